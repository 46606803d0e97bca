"""The benchmark's shortcut prunes as the package does, on a tiny model of random weights."""

from language_model.in_memory import InMemoryModel
from owled_ros.pruning import prune, PruningSettings
import pytest
from safetensors.torch import load_file
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture
def directory(tmp_path):
    """Save a decoder of three blocks."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / 'model')
    return tmp_path / 'model'


@pytest.mark.parametrize('method, allocation, statistics', [
    ('wanda', 'owl', 'dense'), ('admm', 'fisher', 'dense'), ('sparsegpt', 'uniform', 'sequential'),
    ('random', 'uniform', 'dense')])
def test_the_shortcut_prunes_as_the_package_does(directory, method, allocation, statistics):
    samples = torch.randint(96, (6, 24), generator=torch.Generator().manual_seed(1))
    settings = PruningSettings(method=method, allocation=allocation, statistics=statistics,
                               sparsity=0.6, device='cpu')
    output = directory.parent / 'pruned'
    record = prune(directory, [{'input_ids': sample[None]} for sample in samples], settings,
                   output, progress=lambda line: None)
    streamed = load_file(output / 'model.safetensors')

    model = InMemoryModel(directory)
    dense = model.losses(samples)
    model.prune(samples, settings)
    assert model.sparsity() == pytest.approx(record['sparsity']['measured'])
    same = [(streamed[p.weight] == 0) == (model.weight(p) == 0) for p in model.projections]
    # The package computes in float32 here, the shortcut rounds activations to bf16.
    assert sum(int(s.sum()) for s in same) / sum(s.numel() for s in same) > 0.97
    model.restore()
    assert model.losses(samples) == dense
