"""Graphs of single tokens: the same tokens as without, whatever a cache went through.

No GPU is needed: a trace of torch's operations stands for a CUDA graph. As there, the operations
and the memory they read and write are fixed when it is recorded, and so is every number that
Python computed meanwhile.
"""

from pathlib import Path
import sys

from owled_ros.driver import stepping
from owled_ros.driver.graphed import graphed_step, GraphedStep
from owled_ros.driver.stepping import CachePool, language_step, SteppedDecoder
from owled_ros.sparse import linear
from owled_ros.sparse.linear import make_sparse, TorchKernels
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

sys.path.insert(0, str(Path(__file__).parent))
from test_stepping import build, families, stepped_tokens  # noqa: E402, I100


class Trace:
    """What a function computed, recorded operation by operation, on the memory it used."""

    recorded = 0

    def __init__(self, function):
        function()
        self._replay = make_fx(lambda: function())()
        Trace.recorded += 1

    def replay(self):
        return self._replay()


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    # On a CPU the norms read a number back, which no graph can.
    monkeypatch.setattr(stepping, '_norm', lambda module: module)
    with torch.inference_mode():
        yield


def both_steps(family):
    model, inputs = build(family, sparse=False)
    step, why = language_step(model)
    assert not why
    return model, inputs, step, GraphedStep(step, Trace)


STEPPED = [family for family in families.VISION if family is not families.fused]


@pytest.mark.parametrize('family', STEPPED, ids=lambda family: family.__name__)
def test_the_tokens_are_the_same(family):
    model, inputs, step, graph = both_steps(family)
    assert stepped_tokens(model, inputs, graph, CachePool()) == stepped_tokens(
        model, inputs, step, CachePool())


def test_each_cache_is_recorded_once():
    model, inputs, step, graph = both_steps(families.llava)
    caches, before = CachePool(), Trace.recorded
    for _ in range(3):
        stepped_tokens(model, inputs, graph, caches)
    assert Trace.recorded - before == 1
    # In turns, as an action and the explanation of the one before.
    fed = [5, 6, 7], [25, 26, 27]
    decoders = [SteppedDecoder(model, inputs, caches, graph) for _ in fed]
    alone = [SteppedDecoder(model, inputs, CachePool(), step) for _ in fed]
    for tokens in zip(*fed):
        for token, mine, own in zip(tokens, decoders, alone):
            mine.feed([token])
            own.feed([token])
        for mine, own in zip(decoders, alone):
            assert torch.allclose(mine.next_logits(), own.next_logits(), atol=1e-5)
    assert Trace.recorded - before == 2


def test_a_cache_that_grew_is_recorded_again():
    model, inputs, step, graph = both_steps(families.llava)
    mine, own = (SteppedDecoder(model, inputs, CachePool(), way) for way in (graph, step))
    before = Trace.recorded
    for token in range(300):    # more than there is room for at first
        for decoder in (mine, own):
            decoder.feed([token % 90 + 3])
        assert torch.allclose(mine.next_logits(), own.next_logits(), atol=1e-4)
    assert Trace.recorded - before == 2


def test_logits_stay_when_the_next_token_is_replayed():
    model, inputs, _, graph = both_steps(families.llava)
    decoder = SteppedDecoder(model, inputs, CachePool(), graph)
    decoder.feed([5])
    first = decoder.next_logits()
    kept = first.clone()
    decoder.feed([6])
    decoder.next_logits()
    assert torch.equal(first, kept)


@pytest.mark.parametrize('recorded', ['before', 'after'])
def test_a_broken_frame_leaves_nothing_behind(recorded):
    model, inputs, step, graph = both_steps(families.llava)
    caches = CachePool()
    expected = stepped_tokens(model, inputs, step, CachePool())
    if recorded == 'before':
        assert stepped_tokens(model, inputs, graph, caches) == expected
    broken = {**inputs, 'pixel_values': inputs['pixel_values'] * float('nan')}
    broken['input_ids'], broken['attention_mask'] = (     # longer than what follows
        torch.cat([ids, ids[:, -4:]], 1) for ids in (inputs['input_ids'],
                                                     inputs['attention_mask']))
    decoder = SteppedDecoder(model, broken, caches, graph)
    if recorded == 'before':
        decoder.feed([5])
    assert decoder.next_logits().isnan().all()
    del decoder
    assert stepped_tokens(model, inputs, graph, caches) == expected


def test_kernels_that_read_numbers_back_are_not_recorded(monkeypatch):
    model, _ = build(families.llava, sparse=True)
    monkeypatch.setattr(linear, 'kernels_for', lambda device: TorchKernels())
    make_sparse(model)
    step, _ = language_step(model)
    chosen, why = graphed_step(model, step, Trace)
    assert chosen is step and why.startswith('RuntimeError: ')


class FailsLater(Trace):
    """The second recording fails."""

    made = 0

    def __init__(self, function):
        FailsLater.made += 1
        if FailsLater.made > 1:
            raise RuntimeError('out of memory')
        super().__init__(function)


def test_a_recording_that_fails_while_driving_ends_the_graphs_not_the_drive():
    model, inputs = build(families.llava, sparse=False)
    step, _ = language_step(model)
    graph = GraphedStep(step, FailsLater)
    mine, own = (SteppedDecoder(model, inputs, CachePool(), way) for way in (graph, step))
    for token in range(260):    # the cache grows, and is to be recorded again
        for decoder in (mine, own):
            decoder.feed([token % 90 + 3])
        assert torch.allclose(mine.next_logits(), own.next_logits(), atol=1e-4)
    assert FailsLater.made == 2 and 'out of memory' in str(graph.failed)


class Failing:
    def __init__(self, function):
        raise RuntimeError('operation not permitted when stream is capturing\nCUDA ...')


class Frozen(Trace):
    """One of the memories that a graph reads stays as it was when it was recorded."""

    name = None

    def __init__(self, function):
        self._token, self._kept = function.__self__, None
        super().__init__(function)

    def replay(self):
        memory = getattr(self._token, self.name)
        if self._kept is None:
            self._kept = memory.clone()
        memory.copy_(self._kept)
        return super().replay()


def test_a_graph_that_fails_is_not_used():
    model, _, step, _ = both_steps(families.llava)
    chosen, said = graphed_step(model, step, Failing)
    assert chosen is step and '\n' not in said
    assert said == 'RuntimeError: operation not permitted when stream is capturing'


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('name', ['_ids', '_place', '_position'])
def test_a_graph_that_computes_otherwise_is_not_used(name, dtype):
    model, _ = build(families.llava, sparse=False)
    model.to(dtype)
    step, why = language_step(model)
    assert not why
    assert graphed_step(model, step, Trace)[1] == ''
    chosen, said = graphed_step(model, step, type('F', (Frozen,), {'name': name}))
    assert chosen is step and 'differ' in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason='CUDA graphs need a GPU')
@pytest.mark.parametrize('family', STEPPED, ids=lambda family: family.__name__)
def test_on_a_gpu(family, monkeypatch):
    monkeypatch.undo()      # the norms that a GPU has
    model, inputs = build(family, sparse=True)
    model, inputs = model.cuda(), {name: value.cuda() for name, value in inputs.items()}
    make_sparse(model)
    step, why = language_step(model)
    assert not why
    graph, why = graphed_step(model, step)
    assert not why
    assert stepped_tokens(model, inputs, graph, CachePool()) == stepped_tokens(
        model, inputs, step, CachePool())
