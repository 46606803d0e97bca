"""Stepped decoding gives the tokens of transformers' own generate, on many families."""

import importlib.util
from pathlib import Path

from owled_ros.driver import stepping
from owled_ros.driver.beginning import CAUSAL, keep_beginning
from owled_ros.driver.stepping import CachePool, language_step, SteppedDecoder
from owled_ros.sparse.linear import make_sparse
import pytest
import torch

FAMILIES = Path(__file__).parents[1] / 'pruning' / 'test_families.py'
spec = importlib.util.spec_from_file_location('families', FAMILIES)
families = importlib.util.module_from_spec(spec)
spec.loader.exec_module(families)
# Its projections are fused: stepped by its own forward.
NOT_STEPPED = {families.fused}
TOKENS = 12
BEGINNING = 10      # tokens


def build(family, *, sparse):
    torch.manual_seed(3)
    model, sample = family()
    model.eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= torch.rand_like(module.weight) < (0.5 if sparse else 1)
                module.weight *= 4      # logits that differ from token to token
    return model, sample(torch.Generator().manual_seed(5))


def stepped_tokens(model, inputs, step, caches):
    decoder = SteppedDecoder(model, inputs, caches, step)
    tokens = []
    for _ in range(TOKENS):
        tokens.append(int(decoder.next_logits()[0].argmax()))
        decoder.feed(tokens[-1:])
    return tokens


@pytest.fixture(autouse=True)
def gradients_off():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize('sparse', [False, True], ids=['dense', 'sparse'])
@pytest.mark.parametrize('family', families.VISION, ids=lambda family: family.__name__)
def test_the_tokens_are_those_of_generate(family, sparse):
    model, inputs = build(family, sparse=sparse)
    model.generation_config.eos_token_id = None     # all of TOKENS
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)
    expected = expected[0, inputs['input_ids'].shape[1]:].tolist()
    if sparse:
        make_sparse(model)
    step, why = language_step(model)
    assert (step is None) == (family in NOT_STEPPED), why
    caches = CachePool()
    assert stepped_tokens(model, inputs, step, caches) == expected
    # A cache that was used before, and an answer jumped over in pieces.
    decoder = SteppedDecoder(model, inputs, caches, step)
    for first, last in ((0, 1), (1, 6), (6, TOKENS - 1)):
        decoder.feed(expected[first:last])
        assert int(decoder.next_logits()[0].argmax()) == expected[last]


def test_a_cache_grows_and_is_used_again():
    model, inputs = build(families.llama, sparse=False)
    step, _ = language_step(model)
    caches = CachePool()
    decoder = SteppedDecoder(model, inputs, caches, step)
    for token in range(300):
        decoder.feed([token % 90 + 3])
    long = decoder.next_logits()
    ids = torch.cat([inputs['input_ids'], torch.tensor([[t % 90 + 3 for t in range(300)]])], 1)
    assert torch.allclose(long, model(ids).logits[:, -1], atol=1e-3)
    memory = decoder._cache.layers[0]._room[0].data_ptr()
    del decoder
    again = SteppedDecoder(model, inputs, caches, step)
    assert again._cache.layers[0]._room[0].data_ptr() == memory
    other = SteppedDecoder(model, inputs, caches, step)     # two at a time have one each
    assert other._cache.layers[0]._room[0].data_ptr() != memory


def with_beginning(inputs, start=3):
    """Return inputs whose image comes after text."""
    shape = inputs['input_ids'].shape
    text = torch.arange(start, start + BEGINNING)[None]
    before = {'input_ids': text, 'attention_mask': torch.ones_like(text)}
    return {name: torch.cat([before.get(name, torch.zeros_like(text)), value], 1)
            if value.shape == shape else value for name, value in inputs.items()}


def in_type(inputs, dtype):
    return {name: value.to(dtype) if value.is_floating_point() else value
            for name, value in inputs.items()}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('family', families.VISION, ids=lambda family: family.__name__)
def test_what_prompts_begin_with_is_computed_once_or_not_at_all(family, dtype):
    model, inputs = build(family, sparse=False)
    model.to(dtype)
    prompts = [in_type(with_beginning(sample), dtype) for sample in (
        inputs, family()[1](torch.Generator().manual_seed(6)))]
    step, _ = language_step(model)
    expected = [stepped_tokens(model, prompt, step, CachePool()) for prompt in prompts]
    caches = CachePool()
    image = getattr(model.config, 'image_token_id', getattr(model.config, 'image_token_index', 0))
    count = keep_beginning(model, prompts, image, caches, step)
    assert count >= BEGINNING if model.config.model_type in CAUSAL else count == 0
    if dtype != torch.float32:
        return      # tokens are as near to one another as the rounding
    computed = []
    model.register_forward_pre_hook(lambda module, args, given: computed.append(
        given['input_ids'].shape[1]), with_kwargs=True)
    for _ in range(2):
        for prompt, tokens in zip(prompts, expected):
            assert stepped_tokens(model, prompt, step, caches) == tokens
            length = prompt['input_ids'].shape[1]
            assert length - count in computed
    other = with_beginning(inputs, start=4)     # begins with something else
    assert stepped_tokens(model, other, step, caches) == stepped_tokens(
        model, other, step, CachePool())
    assert stepped_tokens(model, prompts[0], step, caches) == expected[0]


def test_a_model_that_computes_otherwise_is_not_stepped():
    model, _ = build(families.llama, sparse=False)
    layer = model.model.layers[1]
    forward = layer.forward
    layer.forward = lambda hidden, **more: forward(hidden, **more) * 1.1
    step, why = language_step(model)
    assert step is None and 'logits differ' in why


def test_memory_that_runs_out_while_a_cache_grows_leaves_it_whole(monkeypatch):
    model, inputs = build(families.llama, sparse=False)
    step, _ = language_step(model)
    caches = CachePool()
    decoder = SteppedDecoder(model, inputs, caches, step)
    expected = stepped_tokens(model, inputs, step, CachePool())
    real, calls = stepping._larger, []

    def fails_at_the_values(states, length):
        calls.append(length)
        if len(calls) == 2:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return real(states, length)

    monkeypatch.setattr(stepping, '_larger', fails_at_the_values)
    decoder.feed([5] * 300)
    with pytest.raises(torch.OutOfMemoryError):
        decoder.next_logits()
    del decoder
    again = SteppedDecoder(model, inputs, caches, step)
    again.feed([5] * 300)
    again.next_logits()
    del again
    assert stepped_tokens(model, inputs, step, caches) == expected
