"""What allocations measure, against whole forwards and backwards of the whole model."""

from owled_ros.pruning import prune, PruningSettings
from owled_ros.pruning.allocation import allocate, Share
from owled_ros.pruning.alphapruning import hill_exponent, measure_alpha
from owled_ros.pruning.fisher import BINS, fisher, histogram, measure_fisher
from owled_ros.pruning.lane import Lane
from owled_ros.pruning.measuring import measure_ablation, Subject, walk
from owled_ros.pruning.patterns import choose, Cut
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import find_chains
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForImageTextToText


@pytest.fixture
def subject(llava_dir, samples, tmp_path):
    model = StreamedModel(llava_dir, torch.device('cpu'))
    chains = find_chains(model, samples[0])
    chosen = {block.name: block.projections for chain in chains for _, block in chain.steps()
              if block.projections}
    return Subject(model, chains, chosen, list(samples), Stash(tmp_path / 'stash', 1 << 20),
                   PruningSettings(sparsity=0.7), lambda line: None)


def load(directory):
    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()


def loss(model, sample, reduction='sum'):
    labels = sample['input_ids'][0].clone()
    labels[labels == 99] = -100
    return functional.cross_entropy(
        model(**sample).logits[0, :-1], labels[1:], ignore_index=-100, reduction=reduction)


def test_fisher_is_the_squared_gradient_of_the_whole_model(subject, llava_dir, samples):
    found = measure_fisher(subject)
    model = load(llava_dir)
    squares = dict.fromkeys(found, 0)
    for sample in samples:
        model.zero_grad()
        loss(model, sample, 'mean').backward()
        for name in found:
            squares[name] = squares[name] + model.get_submodule(name).weight.grad.square()
    assert len(found) == 3 * 6 + 2 + 3 * 7 + 1 and 'lm_head' in found
    for name, counts in found.items():
        weight = model.get_submodule(name).weight.detach()
        expected = histogram(weight.square() * squares[name] / len(samples))
        moved = sum(abs(a - b) for a, b in zip(counts, expected)) / 2
        assert sum(counts) == weight.numel() and moved <= 0.01 * weight.numel(), name


def test_samples_without_an_image_have_a_gradient_too(subject, samples):
    text = {name: value[:, 16:] for name, value in samples[1].items() if value.dim() == 2}
    subject.samples[1] = text
    assert len(measure_fisher(subject)) == 42


@torch.no_grad()
def test_ablation_is_the_rise_of_the_loss(subject, llava_dir, samples):
    found = measure_ablation(subject)
    assert len(found) == 6
    for name in ('model.vision_tower.encoder.layers.1', 'model.language_model.layers.0'):
        model = load(llava_dir)
        dense = sum(loss(model, sample) for sample in samples)
        inputs, linears = {}, {}
        for short, module in model.get_submodule(name).named_modules():
            if isinstance(module, torch.nn.Linear):
                linears[short] = module
                module.register_forward_pre_hook(lambda m, args, short=short: inputs.setdefault(
                    short, []).append(args[0].reshape(-1, m.in_features)))
        for sample in samples:
            model(**sample)
        seen = {short: torch.cat(parts).norm(dim=0) for short, parts in inputs.items()}
        for short, linear in linears.items():
            cut = Cut(round(0.7 * linear.weight.numel()))
            linear.weight.masked_fill_(choose(linear.weight.abs() * seen[short], cut), 0)
        tokens = sum(sample['input_ids'].shape[1] - 16 for sample in samples)
        rise = (sum(loss(model, sample) for sample in samples) - dense) / tokens
        assert found[name] == pytest.approx(float(rise), rel=1e-3, abs=1e-6)


def test_one_threshold_for_all():
    spread = [0] * BINS
    cheap, dear = spread.copy(), spread.copy()
    for index in range(100):
        cheap[400 + index] = 10
        dear[450 + index] = 10
    shares = [Share('language', 1000, cheap), Share('language', 1000, dear)]
    wide = PruningSettings(outlier_width=0.3)
    assert fisher(shares, 0.5, wide) == pytest.approx([0.75, 0.25], abs=1e-6)
    narrow = PruningSettings(outlier_width=0.1)     # 0.3 to 0.6 is allowed
    assert fisher(shares, 0.5, narrow) == pytest.approx([0.6, 0.4], abs=1e-6)


def test_the_exponent_of_a_known_tail():
    # Pareto with exponent a: the i-th largest of n is about (n / i)^(1 / (a - 1)).
    number = torch.arange(1, 2001, dtype=torch.float64)
    for exponent in (2.0, 3.5):
        spectrum = (2000 / number) ** (1 / (exponent - 1))
        weight = torch.diag(spectrum.sqrt())
        assert hill_exponent(weight) == pytest.approx(exponent, rel=0.01)
        assert hill_exponent(torch.cat([weight, weight])) == pytest.approx(exponent, rel=0.01)
    assert hill_exponent(torch.zeros(4, 4)) == 1.0
    assert hill_exponent(torch.eye(8)) == 1001


def test_blocks_with_heavy_tails_are_kept(subject):
    name = 'model.language_model.layers.1'
    read = subject.model.read

    def read_heavier(weight):
        values = read(weight)
        if weight.startswith(name):
            left, spectrum, right = torch.linalg.svd(values, full_matrices=False)
            values = left @ torch.diag(spectrum ** 3) @ right
        return values

    subject.model.read = read_heavier
    found = measure_alpha(subject)
    assert len(found) == 6 and all(value < -1 for value in found.values())
    shares = [Share('language', 100, found[f'model.language_model.layers.{i}']) for i in range(3)]
    settings = PruningSettings(sparsity=0.5, allocation='alphapruning')
    sparsities = allocate(shares, settings)
    assert min(sparsities) == sparsities[1] and max(sparsities) - min(sparsities) == (
        pytest.approx(0.16))


@pytest.mark.parametrize('allocation', ['fisher', 'ablation', 'shuffled', 'alphapruning'])
def test_the_budget_is_exact_whatever_is_measured(llava_dir, samples, tmp_path, allocation):
    record = prune(llava_dir, samples, PruningSettings(sparsity=0.6, allocation=allocation),
                   tmp_path / 'out', progress=lambda line: None)
    for component in ('vision', 'language'):
        blocks = [b for b in record['blocks'] if b['component'] == component]
        assert sum(b['pruned'] for b in blocks) == round(0.6 * sum(b['weights'] for b in blocks))
        assert len({round(b['sparsity'], 4) for b in blocks}) > 1


def test_the_loss_is_the_same_a_few_tokens_at_a_time(subject, llava_dir, samples, monkeypatch):
    lane = Lane('whole', subject.model, subject.chains, samples[:2], subject.stash)
    for chain, position, _ in walk(subject, 'through'):
        lane.advance(chain, position)
    expected = sum(loss(load(llava_dir), sample).item() for sample in samples[:2])
    tokens = sum(sample['input_ids'].shape[1] - 16 for sample in samples[:2])
    for at_once in (2, 100):
        monkeypatch.setattr('owled_ros.pruning.lane.LOGITS', at_once)
        assert lane.losses() == (pytest.approx(expected, rel=1e-5), tokens)
