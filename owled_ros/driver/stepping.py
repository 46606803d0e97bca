"""
Decoding without the overhead of a whole framework: a kept cache, and one short step per token.

transformers spends about half a millisecond on a layer and token before it multiplies anything,
which on a CPU is as long as the multiplications of a pruned half-billion model. Here the prompt
goes through the model's own forward, and what follows through `LanguageStep`: the same layers,
called directly. Whether that computes the same is not assumed but tried on the model itself; a
model for which it does not is stepped by its own forward.
"""

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 256          # the cache grows by so many tokens at a time
TRIED_TOKENS = (12, 3, 1, 1)    # a prompt, a literal that is jumped over, and two single tokens


class KeptLayer(DynamicLayer):
    """Keys and values of a layer in memory that is kept: (1, heads, length, head size)."""

    def lazy_initialization(self, key_states, value_states):
        """Take the types and sizes of the first keys and values, and room for what follows."""
        super().lazy_initialization(key_states, value_states)
        length = key_states.shape[2] + ROOM
        self._room = [_zeros(key_states, length), _zeros(value_states, length)]
        self._shorten(0)

    def update(self, key_states, value_states, *args, **kwargs):
        """Append; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        self.reserve(end)
        for room, states in zip(self._room, (key_states, value_states)):
            room[:, :, begin:end] = states
        self._shorten(end)
        return self.keys, self.values

    @property
    def room(self):
        """The memory of keys and of values, (1, heads, room, head size) each."""
        return self._room

    def reserve(self, length):
        """Have room for so many tokens; what is there may move."""
        if length > self._room[0].shape[2]:
            # Both or none: a cache whose memory ran out in between is used again.
            self._room = [_larger(states, length + ROOM) for states in (self.keys, self.values)]
            self._shorten(self.keys.shape[2])

    def set_length(self, length):
        """Hold the first so many tokens of what was written into `room`; keep the memory."""
        if self.is_initialized:
            self._shorten(length)

    def clear_rest(self):
        """Write zeros over what is no longer held."""
        for room in self._room if self.is_initialized else ():
            room[:, :, self.keys.shape[2]:] = 0

    def _shorten(self, length):
        self.keys, self.values = (room[:, :, :length] for room in self._room)


def _larger(states, length):
    larger = _zeros(states, length)
    larger[:, :, :states.shape[2]] = states
    return larger


def _zeros(states, length):
    return states.new_zeros(*states.shape[:2], length, states.shape[3])


class KeptCache(Cache):
    """A cache in memory that is kept, and the Beginning of all prompts in it, if there is one."""

    def __init__(self):
        super().__init__(layer_class_to_replicate=KeptLayer)
        self._beginning = None
        self.token = None       # the graph of a token on this memory (graphed.py)

    def restart(self, beginning):
        """Forget all tokens but those of a Beginning; None: all."""
        known = beginning is self._beginning and beginning is not None
        for layer in self.layers:
            layer.set_length(len(beginning.tokens) if known else 0)
        if not known and beginning is not None:
            for index, states in enumerate(beginning.states):
                self.update(*states, index)
        self._beginning = beginning
        if self.token is not None:
            # A graph reads all of the room and weighs what is not held with 0: times NaN, which
            # a broken frame may have left, that would be NaN for ever.
            for layer in self.layers:
                layer.clear_rest()


class CachePool:
    """Caches that are used again: one for the action, one for the explanation that it became."""

    def __init__(self):
        self._free = []
        self._beginning = None

    def begin_with(self, beginning):
        """Have in every cache what prompts begin with, a Beginning, computed already; or None."""
        self._beginning = beginning

    def take(self, ids):
        """Return a cache for ids (1, length), and how many of them are in it.

        Its memory is that of one given back, if there is one.
        """
        cache = self._free.pop() if self._free else KeptCache()
        begun = self._beginning is not None and self._beginning.begins(ids)
        cache.restart(self._beginning if begun else None)
        return cache, len(self._beginning.tokens) if begun else 0

    def give_back(self, cache):
        """Take a cache that nobody reads any more."""
        self._free.append(cache)


class NotStepped(Exception):
    """The model's layers are not of the kind that LanguageStep knows."""


class LanguageStep:
    """
    One pass over a few text tokens, for language models built like Llama.

    Pre-norm layers of attention (query, key and value projections, optional norms of queries and
    keys, rotary positions) and a gated MLP: Llama, Qwen 2 to 3, and the models around them.

    :raises NotStepped: when a part is missing, or the result is not the model's
    """

    def __init__(self, model):
        self._model, self._text = model, model.get_decoder()
        try:
            self._layers = [_Layer(layer) for layer in self._text.layers]
            self._embed, self._rotary = self._text.embed_tokens, self._text.rotary_emb
            self._norm, self._head = _norm(self._text.norm), model.lm_head
        except AttributeError as error:
            raise NotStepped(str(error)) from error
        kinds = set(getattr(self._text.config, 'layer_types', None) or ['full_attention'])
        if kinds != {'full_attention'}:
            raise NotStepped(f'attention of the kinds {sorted(kinds)}')

    def __call__(self, ids, cache, offset=0):
        """
        Append tokens to a cache; return the logits (1, vocabulary) after the last.

        :param ids: (1, tokens)
        :param offset: what is added to a token's place in the cache to give its position
        """
        begin = cache.layers[0].keys.shape[2]
        count = ids.shape[1]
        place = torch.arange(begin, begin + count, device=ids.device)
        mask = None
        if count > 1:
            mask = torch.arange(begin + count, device=ids.device) <= place[:, None]
        return self.through(ids, cache.layers, (place + offset)[None], mask)

    def through(self, ids, kept, positions, mask):
        """
        Pass tokens through all layers; return the logits (1, vocabulary) after the last.

        :param ids: (1, tokens)
        :param kept: of each layer, what takes keys and values (`update`) and returns all
        :param positions: (1, tokens)
        :param mask: (tokens, keys), true where a token sees a key; None: all
        """
        count = ids.shape[1]
        hidden = self._embed(ids)                           # (1, tokens, hidden)
        cos, sin = self._rotary(hidden, positions)          # (1, tokens, head size)
        cos, sin = (turn.reshape(-1, count, turn.shape[-1])[:1, None] for turn in (cos, sin))
        for layer, mine in zip(self._layers, kept, strict=True):
            hidden = layer(hidden, mine, cos, sin, mask)
        return self._head(self._norm(hidden[:, -1]))

    @torch.inference_mode()
    def check(self):
        """Compare with the model's own forward. Raises NotStepped when they differ."""
        vocabulary = self._text.config.vocab_size
        draw = torch.Generator().manual_seed(0)
        mine, own = (Cache(layer_class_to_replicate=KeptLayer) for _ in range(2))
        for count in TRIED_TOKENS:
            ids = torch.randint(0, vocabulary, (1, count), generator=draw).to(self._model.device)
            first = not own.layers
            expected = self._text(input_ids=ids, past_key_values=own, use_cache=True)
            expected = self._model.lm_head(expected.last_hidden_state[:, -1])
            if first:
                self._text(input_ids=ids, past_key_values=mine, use_cache=True)
            else:
                check_same(self._on(ids, mine), expected)

    def _on(self, ids, cache):
        try:
            return self(ids, cache)
        except (RuntimeError, TypeError, ValueError) as error:
            raise NotStepped(f'{type(self._text).__name__}: {error}') from error


def check_same(found, expected):
    """Raise NotStepped unless two ways to logits came to the same."""
    # Two orders of the same sums: far above what they differ by, far below a wrong layer.
    tolerance = 50 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    if not torch.allclose(found, expected, rtol=0, atol=tolerance):
        raise NotStepped(f'its logits differ by {float((found - expected).abs().max()):.2g}')


class _Layer:
    """A decoder layer's parts, called directly."""

    def __init__(self, layer):
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._projections = attention.q_proj, attention.k_proj, attention.v_proj
        self._turned_norms = [getattr(attention, name, None) for name in ('q_norm', 'k_norm')]
        self._out, self._size = attention.o_proj, attention.head_dim
        self._scale = attention.scaling
        self._gate, self._up, self._down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self._activation = mlp.act_fn

    def __call__(self, hidden, kept, cos, sin, mask):
        hidden = hidden + self._attend(self._norms[0](hidden), kept, cos, sin, mask)
        normed = self._norms[1](hidden)
        return hidden + self._down(self._activation(self._gate(normed)) * self._up(normed))

    def _attend(self, hidden, kept, cos, sin, mask):
        count = hidden.shape[1]
        # (1, tokens, heads, head size) each; keys and values may have fewer heads
        query, key, value = (projection(hidden).view(1, count, -1, self._size)
                             for projection in self._projections)
        query, key = (states if norm is None else norm(states)
                      for norm, states in zip(self._turned_norms, (query, key)))
        query, key = (_turned(states.transpose(1, 2), cos, sin) for states in (query, key))
        keys, values = kept.update(key, value.transpose(1, 2))
        # Query heads that share a key head become rows of one product.
        shared = query.shape[1] // keys.shape[1]
        query = query.reshape(1, keys.shape[1], shared * count, self._size)
        seen = functional.scaled_dot_product_attention(
            query, keys, values, scale=self._scale,
            attn_mask=None if mask is None else mask.repeat(shared, 1))
        seen = seen.view(1, -1, count, self._size).transpose(1, 2)
        return self._out(seen.reshape(1, count, -1))


def _turned(states, cos, sin):
    """Rotary positions of (1, heads, tokens, head size)."""
    half = states.shape[-1] // 2
    other = torch.cat([-states[..., half:], states[..., :half]], -1)
    return torch.addcmul(states * cos, other, sin)


def _norm(module):
    """Return a norm as few operations where it is a plain RMS norm."""
    if type(module).__name__ not in ('LlamaRMSNorm', 'Qwen2RMSNorm', 'Qwen3RMSNorm'):
        return module
    weight, epsilon, size = module.weight, module.variance_epsilon, module.weight.numel()

    def norm(hidden):
        # torch's own is nine operations on a CPU; of a single token the sum is one number.
        if hidden.numel() == size and not hidden.is_cuda:
            mean = float(torch.linalg.vector_norm(hidden, dtype=torch.float32)) ** 2 / size
            return weight * (hidden * (mean + epsilon) ** -0.5)
        return functional.rms_norm(hidden, weight.shape, weight, epsilon)
    return norm


class SteppedDecoder:
    """What Decoder is, for one prompt, on a kept cache: feed tokens, get logits."""

    def __init__(self, model, inputs, caches, step=None):
        """Run the model on its prompt.

        inputs: the processor's dict of tensors, batch 1; step: a LanguageStep, if it fits.
        """
        self._model, self._step, self._pool = model, step, caches
        self._pending = []
        self._cache, known = caches.take(inputs['input_ids'])
        output = model(**_after(known, inputs), past_key_values=self._cache, use_cache=True,
                       logits_to_keep=1)
        self._logits = output.logits[:, -1]
        # Where an image takes fewer positions than tokens, text goes on earlier (Qwen-VL).
        deltas = getattr(model.base_model, 'rope_deltas', None)
        self._offset = 0 if deltas is None else int(deltas.reshape(-1)[0])

    def __del__(self):
        if hasattr(self, '_cache'):
            self._pool.give_back(self._cache)

    def feed(self, tokens, row=0):
        """Append tokens; they are computed, all at once, when the next logits are asked for."""
        self._pending += tokens

    def next_logits(self):
        """Logits (1, vocabulary) after all that was fed."""
        if self._pending:
            ids = torch.tensor([self._pending], device=self._logits.device)
            self._pending = []
            if self._step is not None:
                self._logits = self._step(ids, self._cache, self._offset)
            else:
                output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True,
                                     logits_to_keep=1)
                self._logits = output.logits[:, -1]
        return self._logits


def _after(known, inputs):
    """Return a model's inputs without the first tokens, which are in its cache."""
    if not known:
        return inputs
    return {**inputs, 'input_ids': inputs['input_ids'][:, known:]}


def language_step(model):
    """Return (LanguageStep, '') for a model that it fits, else (None, why it does not)."""
    try:
        step = LanguageStep(model)
        step.check()
    except NotStepped as error:
        return None, str(error)
    return step, ''
