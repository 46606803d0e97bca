"""Decoding an answer: first an action that always parses, then free text.

An answer is literals and fields. A literal is never decoded: its tokens are fed at once together
with what comes before it (jump forward). A field may only be one of its allowed texts: at each
token the model chooses among those that still lead to one of them, so that whatever the weights
are, the answer is an action.
"""

import copy
import math

import torch


class AmbiguousTexts(ValueError):
    """Two texts of a field of which one could never be chosen; `values` are what they mean."""

    def __init__(self, one, other, how):
        super().__init__(f'the tokens of {one} {how} those of {other}')
        self.values, self.how = (one, other), how


class TokenTree:
    """The allowed token sequences of a field, as a tree; each leaf is a value."""

    def __init__(self, sequences):
        """sequences: pairs of (token ids, value).

        Raises AmbiguousTexts when two are the same, or one is how another begins: a walk goes on
        as long as it can, and would never end at the shorter one.
        """
        self.children, self.value, self.ends = {}, None, False
        for tokens, value in sequences:
            node = self
            for token in tokens:
                if node.ends:
                    raise AmbiguousTexts(node.value, value, 'are the beginning of')
                node = node.children.setdefault(token, TokenTree(()))
            if node.ends:
                raise AmbiguousTexts(node.value, value, 'are the same as')
            if node.children:
                raise AmbiguousTexts(value, node.any_value(), 'are the beginning of')
            node.value, node.ends = value, True

    def any_value(self):
        """Return the value of some leaf."""
        node = self
        while node.children:
            node = next(iter(node.children.values()))
        return node.value


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
        while len(self.node.children) == 1:
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
    """A causal model with its cache, for one or several prompts: feed tokens, get logits.

    Rows that are fed less than others are padded on the left; padding is masked and takes no
    position, so that a row gets the logits that it gets alone.
    """

    def __init__(self, model, inputs, pad=0):
        """Run the model on its prompts.

        inputs: the processor's dict of tensors, (rows, length), padded on the left.
        pad: any token of the vocabulary, to fill rows up with.
        """
        self.model, self.pad = model, pad
        self.mask = inputs.get('attention_mask', torch.ones_like(inputs['input_ids']))
        self.pending = [[] for _ in self.mask]
        positions = {} if self.mask.all() else {'position_ids': _positions(self.mask)}
        output = model(**inputs, **positions, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        self.logits = output.logits[:, -1]

    def feed(self, tokens, row=0):
        """Append tokens to a row; they are computed when the next logits are asked for."""
        self.pending[row] += tokens

    def next_logits(self):
        """Logits (rows, vocabulary) after all that was fed."""
        if any(self.pending):
            output, self.mask = self._forward(self.pending, self.cache)
            fed = torch.tensor([bool(tokens) for tokens in self.pending], device=self.mask.device)
            self.logits = torch.where(fed[:, None], output.logits[:, -1], self.logits)
            self.cache, self.pending = output.past_key_values, [[] for _ in self.pending]
        return self.logits

    def losses(self, answers):
        """Cross entropy [nats] of each answer's tokens after what was fed; nothing is fed.

        answers: a list of token ids per row, none empty. Returns a list of tensors (tokens,).
        """
        first = self.next_logits()
        longest = max(map(len, answers))
        followed = None
        if longest > 1:
            output, _ = self._forward([tokens[:-1] for tokens in answers],
                                      copy.deepcopy(self.cache), logits_to_keep=longest - 1)
            followed = output.logits
        losses = []
        for row, tokens in enumerate(answers):
            logits = first[row:row + 1]
            if len(tokens) > 1:
                logits = torch.cat([logits, followed[row, -(len(tokens) - 1):]])
            targets = torch.tensor(tokens, device=logits.device)
            losses.append(torch.nn.functional.cross_entropy(logits.float(), targets,
                                                            reduction='none'))
        return losses

    def _forward(self, rows, cache, logits_to_keep=1):
        """Run the model on lists of tokens of unequal length; returns its output and the mask."""
        longest = max(map(len, rows))
        missing = [longest - len(tokens) for tokens in rows]
        device = self.logits.device
        ids = torch.tensor([[self.pad] * gap + tokens for gap, tokens in zip(missing, rows)],
                           device=device)
        fresh = torch.arange(longest, device=device) >= torch.tensor(missing,
                                                                     device=device)[:, None]
        mask = torch.cat([self.mask, fresh.to(self.mask.dtype)], 1)
        masked = {} if mask.all() else {
            'attention_mask': mask, 'position_ids': _positions(mask)[:, -longest:]}
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True,
                          logits_to_keep=logits_to_keep, **masked), mask


def _positions(mask):
    """Each token's place among those of its row that are no padding; (rows, length)."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def decode_fields(decoder, trees):
    """Decode one field of every row, in step; returns (value, probability) per row.

    The probability is the share of the chosen tokens among the allowed ones.
    """
    choices = [FieldChoice(tree) for tree in trees]
    for row, choice in enumerate(choices):
        decoder.feed(choice.forced(), row)
    while not all(choice.done for choice in choices):
        logits = decoder.next_logits()
        for row, choice in enumerate(choices):
            if not choice.done:
                decoder.feed([choice.choose(logits[row])], row)
                decoder.feed(choice.forced(), row)
    return [(choice.value, choice.probability) for choice in choices]


class ExplanationStream:
    """The free text after an action, decoded greedily in slices of a few tokens."""

    def __init__(self, decoder, tokenizer, max_tokens, row=0):
        self._decoder, self._tokenizer, self._max_tokens = decoder, tokenizer, max_tokens
        self._row = row
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
            self.take(self._decoder.next_logits())
        return self.complete

    def take(self, logits):
        """Take the likeliest next token of the decoder's logits (rows, vocabulary)."""
        logits = logits[self._row].float()
        token = int(logits.argmax())
        self.confidence *= float(torch.softmax(logits, 0)[token])
        if token == self._tokenizer.eos_token_id:
            self.complete = True
        else:
            self._tokens.append(token)
            self._decoder.feed([token], self._row)
            self.complete = len(self._tokens) >= self._max_tokens
        if self.complete:
            self._decoder = None  # the cache is the largest thing that an explanation holds
