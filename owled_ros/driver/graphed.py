"""
Single tokens as CUDA graphs: a token's hundreds of kernels are launched at once.

A GPU multiplies a small model's weights faster than Python can launch the kernels for it. A graph
is recorded for the memory of one cache; what changes from token to token (the token, its place in
the cache, its position) is read from memory too. Whether it computes the same is tried before it
drives; where it does not, or where something in the model cannot be recorded, tokens are launched
kernel by kernel.
"""

from owled_ros.driver.stepping import check_same, KeptCache, NotStepped
import torch

SETTLING = 3        # passes before recording: kernels are compiled, libraries take their memory
PROMPT, TRIED_TOKENS, OFFSET = 12, 4, 3     # of the trial
ROUNDING = 4        # steps of the type by which a replay may differ: the same kernels, same shapes


class CudaGraph:
    """What a function launches on the GPU, recorded."""

    def __init__(self, function):
        """Call `function` until it has settled, then record it; raises what it raises."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(SETTLING):
                function()
            _refuse_waiting(function)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Another thread of the program may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode='thread_local'):
            self._returned = function()

    def replay(self):
        """Launch it again; return the tensor that the function returned, of this time."""
        self._graph.replay()
        return self._returned


def _refuse_waiting(function):
    """Call a function; raise RuntimeError where it waits for the GPU, which no graph can."""
    # A recording that fails leaves torch's allocator as if it went on: better not to begin.
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('error')
    try:
        function()
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Direct:
    """A function called again and again: what a replay is compared with."""

    def __init__(self, function):
        self.replay = function


class GraphedStep:
    """
    A LanguageStep whose single tokens are replayed, one graph for each cache.

    :param step: what the graphs are of, and what takes several tokens at once
    :param record: CudaGraph, or what stands for it: takes a function, has `replay`
    """

    def __init__(self, step, record=CudaGraph):
        self._step, self._record = step, record
        self.failed = None      # the error of a recording

    def __call__(self, ids, cache, offset=0):
        """
        Append tokens to a cache; return the logits (1, vocabulary) after the last.

        Once a recording has failed, which may be while driving when a cache has grown, without
        graphs.
        """
        if ids.shape[1] > 1 or self.failed is not None:
            return self._step(ids, cache, offset)
        end = cache.layers[0].keys.shape[2] + 1
        for layer in cache.layers:
            layer.reserve(end)
        if cache.token is None or not cache.token.is_of(cache):
            try:
                cache.token = _Token(self._step, cache, ids, offset, self._record)
            except Exception as error:  # of a driver, a GPU, or its memory
                self.failed = error
                return self._step(ids, cache, offset)
        logits = cache.token.logits(ids, end - 1, offset)
        for layer in cache.layers:
            layer.set_length(end)
        return logits


class _Token:
    """One token through a step, on one cache's memory."""

    def __init__(self, step, cache, ids, offset, record):
        """Record it with a token that is to come next anyway."""
        self._step = step
        keys = cache.layers[0].keys
        self._ids, self._place, self._position = (
            torch.zeros(shape, dtype=torch.long, device=keys.device)
            for shape in ((1, 1), 1, (1, 1)))
        self._layers = [_Room(layer, self._place) for layer in cache.layers]
        for layer in cache.layers:
            layer.clear_rest()      # see KeptCache.restart
        self._write(ids, keys.shape[2], offset)
        with torch.cuda.device_of(keys):
            self._graph = record(self._pass)

    def is_of(self, cache):
        # Where a cache had to grow, its memory lies elsewhere now.
        return all(mine.is_of(layer) for mine, layer in zip(self._layers, cache.layers))

    def logits(self, ids, place, offset):
        self._write(ids, place, offset)
        # The next token's come into the same memory.
        return self._graph.replay().clone()

    def _write(self, ids, place, offset):
        self._ids.copy_(ids)
        self._place.fill_(place)
        self._position.fill_(place + offset)

    def _pass(self):
        places = torch.arange(self._layers[0].length, device=self._place.device)
        return self._step.through(self._ids, self._layers, self._position,
                                  (places <= self._place)[None])


class _Room:
    """A layer's room in a cache, written at a place that is read when it is launched."""

    def __init__(self, layer, place):
        self._states, self._place = layer.room, place
        self.length = layer.room[0].shape[2]

    def is_of(self, layer):
        return all(mine is theirs for mine, theirs in zip(self._states, layer.room))

    def update(self, *states):
        for room, new in zip(self._states, states):
            room.index_copy_(2, self._place, new)
        return self._states


@torch.inference_mode()
def graphed_step(model, step, record=CudaGraph):
    """Return (a GraphedStep of a model's LanguageStep, ''), or (the step, why not)."""
    graphed = GraphedStep(step, record)
    try:
        _check(model, step, graphed)
    except Exception as error:  # of a model, a driver or a GPU that cannot; it drives without
        return step, f'{type(error).__name__}: {error}'.split('\n')[0]
    return graphed, ''


def _check(model, step, graphed):
    """
    Raise unless several tokens, one by one, come to the same with a graph and without.

    To nearly the same bits as the recorded passes called directly: in 16 bits a difference to the
    step's own order of sums would hide any fault. To about the same as the step.
    """
    text, draw = model.get_decoder(), torch.Generator().manual_seed(1)
    prompt, tokens = torch.randint(0, text.config.vocab_size, (1, PROMPT + TRIED_TOKENS),
                                   generator=draw).to(model.device).split(
                                       [PROMPT, TRIED_TOKENS], 1)
    ways, caches = (graphed, GraphedStep(step, Direct), step), [KeptCache() for _ in range(3)]
    for cache in caches:
        text(input_ids=prompt, past_key_values=cache, use_cache=True)
    for token in tokens.split(1, 1):
        found, direct, expected = (way(token, cache, OFFSET) for way, cache in zip(ways, caches))
        if graphed.failed is not None:
            raise graphed.failed
        _check_equal(found, direct)
        check_same(found, expected)
    for mine, own in zip(caches[0].layers, caches[1].layers, strict=True):
        _check_equal(mine.keys, own.keys)
        _check_equal(mine.values, own.values)


def _check_equal(found, direct):
    tolerance = ROUNDING * torch.finfo(direct.dtype).eps * float(direct.abs().max())
    if not torch.allclose(found, direct, rtol=0, atol=tolerance):
        raise NotStepped('a replay differs from what was recorded by '
                         f'{float((found - direct).abs().max()):.2g}')
