"""Stepped decoding gives the tokens of transformers' own generate, on many families."""

import importlib.util
from pathlib import Path

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


def test_a_model_that_computes_otherwise_is_not_stepped():
    model, _ = build(families.llama, sparse=False)
    layer = model.model.layers[1]
    forward = layer.forward
    layer.forward = lambda hidden, **more: forward(hidden, **more) * 1.1
    step, why = language_step(model)
    assert step is None and 'logits differ' in why
