"""How the budget is shared: OWL by hand, OWL as published, exact sums under clamps."""

from owled_ros.errors import UserError
from owled_ros.pruning import PruningSettings
from owled_ros.pruning.allocation import allocate, ALLOCATIONS, clamp, Share, share_out
import pytest


def shares(outliers, counts=None, component='language'):
    counts = counts or [100] * len(outliers)
    return [Share(component, count, share) for share, count in zip(outliers, counts)]


def owl(**settings):
    return PruningSettings(allocation='owl', **settings)


def published_owl(outliers, sparsity, width):
    """Return block sparsities by the formula of the authors' code, lib/prune_all.py."""
    low, high = min(outliers), max(outliers)
    ratios = [(d - low) * (1 / (high - low) * width * 2) for d in outliers]
    mean = sum(ratios) / len(ratios)
    return [1 - (ratio - mean + (1 - sparsity)) for ratio in ratios]


def test_owl_by_hand():
    # D scaled to [0, 0.2]: 0, 0.05, 0.2; weighted mean (0*1 + 0.05*1 + 0.2*2)/4 = 0.1125
    found = allocate(shares([0.01, 0.02, 0.05], [100, 100, 200]),
                     owl(sparsity=0.6, outlier_width=0.1))
    assert found == pytest.approx([0.7125, 0.6625, 0.5125])


@pytest.mark.parametrize('sparsity', [0.3, 0.5, 0.7])
def test_owl_is_the_published_one_when_blocks_are_equal(sparsity):
    outliers = [0.004, 0.011, 0.007, 0.02, 0.013]
    found = allocate(shares(outliers), owl(sparsity=sparsity))
    assert found == pytest.approx(published_owl(outliers, sparsity, 0.08), abs=1e-12)


def test_owl_without_a_spread_is_uniform():
    assert allocate(shares([0.02] * 3), owl(sparsity=0.5)) == [0.5] * 3


def test_each_component_keeps_its_own_budget():
    both = shares([0.01, 0.03], component='vision') + shares([0.02, 0.07])
    found = allocate(both, owl(sparsity=0.5, component_sparsity={'vision': 0.3}))
    assert found == pytest.approx([0.38, 0.22, 0.58, 0.42])


def test_joint_scales_over_all_components():
    both = shares([0.01, 0.03], component='vision') + shares([0.02, 0.05])
    found = allocate(both, owl(sparsity=0.5, joint=True))
    assert found == pytest.approx(published_owl([0.01, 0.03, 0.02, 0.05], 0.5, 0.08))


@pytest.mark.parametrize('joint', [False, True])
def test_the_projector_gets_the_sparsity_asked_for_unless_it_is_compared(joint):
    between = shares([0.04, 0.09], component='projector')
    given = shares([0.01, 0.03], component='vision') + between + shares([0.02, 0.07])
    found = allocate(given, owl(sparsity=0.5, components='all', joint=joint))
    assert found[2:4] == [0.5, 0.5] and 0.5 not in found[:2] + found[4:]
    histograms = [[0] * shift + [5, 5] + [0] * (998 - shift) for shift in (0, 9, 3, 8, 1, 7)]
    given = [Share(share.component, 100, histogram)
             for share, histogram in zip(given, histograms)]
    found = allocate(given, PruningSettings(
        sparsity=0.5, components='all', joint=joint, outlier_width=0.3))
    assert found[2] > 0.7 and found[3] < 0.3


@pytest.mark.parametrize('allocation', ALLOCATIONS)
@pytest.mark.parametrize('sparsity', [0.0, 0.4, 0.95])
def test_every_allocation_meets_the_budget(allocation, sparsity):
    evidence = [0.01, 0.05, 0.02, 0.09]
    if allocation == 'fisher':  # histograms of costs
        evidence = [[0] * shift + [5, 5] + [0] * (998 - shift) for shift in (400, 300, 500, 420)]
    given = shares(evidence, [100, 300, 10, 50])
    found = allocate(given, PruningSettings(
        sparsity=sparsity, allocation=allocation, outlier_width=0.3))
    total = sum(value * share.count for value, share in zip(found, given))
    assert total == pytest.approx(sparsity * 460, abs=1e-6)
    assert all(0 <= value <= 0.99 for value in found)


@pytest.mark.parametrize('allocation', ['owl', 'shuffled', 'ablation'])
def test_ties(allocation):
    settings = PruningSettings(sparsity=0.6, allocation=allocation)
    assert allocate(shares([0.02] * 4), settings) == pytest.approx([0.6] * 4)
    assert allocate(shares([0.0] * 4), settings) == pytest.approx([0.6] * 4)
    some = allocate(shares([0.01, 0.03, 0.01, 0.03]), settings)
    assert len(set(some)) == 2 and sum(some) == pytest.approx(4 * 0.6)


def test_shuffled_deals_out_the_same_values_by_seed():
    given = shares([0.01, 0.05, 0.02, 0.09, 0.03])
    found = [allocate(given, PruningSettings(allocation='shuffled', seed=seed))
             for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert sorted(found[0]) == pytest.approx(sorted(allocate(given, owl())))


def test_rising_prunes_more_with_depth():
    found = allocate(shares([None] * 3), PruningSettings(allocation='rising'))
    assert found == pytest.approx([0.42, 0.5, 0.58])


@pytest.mark.parametrize('target', [0.0, 0.02, 0.5, 0.97, 0.99])
def test_clamps_give_back_what_they_took(target):
    wanted = [target - 0.4, target + 0.1, target + 0.3]
    counts = [100, 300, 50]
    found = clamp(wanted, counts, target)
    assert all(0 <= value <= 0.99 for value in found)
    mean = sum(v * c for v, c in zip(found, counts)) / sum(counts)
    assert mean == pytest.approx(target, abs=1e-9)


def test_what_the_clamps_cannot_meet_is_refused():
    with pytest.raises(UserError, match='cannot be met'):
        clamp([0.995], [10], 0.995)


def test_whole_numbers_have_the_exact_sum():
    assert share_out([1.5, 2.7, 0.8], [10, 10, 10], 5) == [1, 3, 1]
    assert share_out([4.9, 0.1], [4, 10], 5) == [4, 1]
    assert share_out([0.0, 0.0], [3, 3], 5) == [3, 2]
