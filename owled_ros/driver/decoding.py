"""Decoding an answer: first an action that always parses, then free text.

An answer is literals and fields. A literal is never decoded: its tokens are fed at once together
with what comes before it (jump forward). A field may only be one of its allowed texts: at each
token the model chooses among those that still lead to one of them, so that whatever the weights
are, the answer is an action.
"""

import math

import torch


class TokenTree:
    """The allowed token sequences of a field, as a tree; each leaf is a value."""

    def __init__(self, sequences):
        """sequences: pairs of (token ids, value). Raises ValueError when two are the same."""
        self.children, self.value, self.ends = {}, None, False
        for tokens, value in sequences:
            node = self
            for token in tokens:
                node = node.children.setdefault(token, TokenTree(()))
            if node.ends:
                raise ValueError(f'the texts of {node.value} and {value} have the same tokens')
            node.value, node.ends = value, True


class FieldChoice:
    """One walk down a TokenTree, led by the model's logits."""

    def __init__(self, tree):
        self.node = tree
        self.probability = 1.0

    @property
    def done(self):
        return not self.node.children

    @property
    def value(self):
        return self.node.value

    def forced(self):
        """Tokens that need no decision: as long as there is only one way on."""
        tokens = []
        while len(self.node.children) == 1 and not self.node.ends:
            (token, self.node), = self.node.children.items()
            tokens.append(token)
        return tokens

    def choose(self, logits):
        """Take the likeliest allowed token of logits (vocabulary,); returns it."""
        allowed = list(self.node.children)
        scores = logits[torch.tensor(allowed, device=logits.device)].float()
        probabilities = torch.softmax(scores, 0)
        best = int(scores.argmax())
        probability = float(probabilities[best])
        # NaN weights must not pass for confidence, and argmax of NaN is an answer by chance.
        if not math.isfinite(probability):
            raise FloatingPointError('the model gave scores that are not finite')
        self.probability *= probability
        self.node = self.node.children[allowed[best]]
        return allowed[best]


class Decoder:
    """A causal model with its cache: feed tokens, get the logits of the next one."""

    def __init__(self, model, inputs):
        """inputs: the processor's dict of tensors of one prompt, batch 1."""
        self.model = model
        self.pending = []
        output = model(**inputs, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        self.logits = output.logits[0, -1]

    def feed(self, tokens):
        """Append tokens; they are computed when the next logits are asked for."""
        self.pending += tokens

    def next_logits(self):
        """Logits (vocabulary,) after all that was fed."""
        if self.pending:
            ids = torch.tensor([self.pending], device=self.logits.device)
            output = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True,
                                logits_to_keep=1)
            self.cache, self.logits, self.pending = output.past_key_values, output.logits[0, -1], []
        return self.logits


def decode_field(decoder, tree):
    """Decode one field; returns (value, probability among the allowed)."""
    choice = FieldChoice(tree)
    decoder.feed(choice.forced())
    while not choice.done:
        decoder.feed([choice.choose(decoder.next_logits())])
        decoder.feed(choice.forced())
    return choice.value, choice.probability


class ExplanationStream:
    """The free text after an action, decoded greedily in slices of a few tokens."""

    def __init__(self, decoder, tokenizer, max_tokens):
        self._decoder, self._tokenizer, self._max_tokens = decoder, tokenizer, max_tokens
        self._tokens = []
        self.complete = False
        self.confidence = 1.0

    @property
    def text(self):
        return self._tokenizer.decode(self._tokens, skip_special_tokens=True).strip()

    @torch.inference_mode()
    def advance(self, tokens):
        """Decode up to `tokens` more; returns True when the explanation is complete."""
        for _ in range(tokens):
            if self.complete:
                break
            self._step()
        return self.complete

    def _step(self):
        logits = self._decoder.next_logits().float()
        token = int(logits.argmax())
        self.confidence *= float(torch.softmax(logits, 0)[token])
        if token == self._tokenizer.eos_token_id:
            self.complete = True
        else:
            self._tokens.append(token)
            self._decoder.feed([token])
            self.complete = len(self._tokens) >= self._max_tokens
        if self.complete:
            self._decoder = None  # the cache is the largest thing that an explanation holds
