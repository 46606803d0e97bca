"""Which weights go: against brute force, with ties, to the exact number."""

import pytest
import torch

from owled_ros.pruning.methods import METHODS, lowest
from owled_ros.pruning.statistics import InputNorms


def statistic(x):
    norms = InputNorms(x.shape[1], x.device)
    norms.add(x)
    return norms


def test_wanda_is_brute_force():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 7), torch.randn(20, 7)
    norms = [sum(float(v) ** 2 for v in x[:, j]) ** 0.5 for j in range(7)]
    new, mask = METHODS['wanda'].prune(weight, statistic(x), 15)
    for row in range(5):
        scores = sorted((abs(float(weight[row, j])) * norms[j], j) for j in range(7))
        gone = {j for _, j in scores[:3]}
        assert {j for j in range(7) if mask[row, j]} == gone
        assert all(new[row, j] == (0 if j in gone else weight[row, j]) for j in range(7))


def test_magnitude_is_over_the_whole_matrix():
    weight = torch.tensor([[1., -9., 3.], [8., 0.5, -2.]])
    new, mask = METHODS['magnitude'].prune(weight, None, 3)
    assert mask.tolist() == [[True, False, False], [False, True, True]]
    assert new.tolist() == [[0., -9., 3.], [8., 0., 0.]]


@pytest.mark.parametrize('count', [0, 1, 4, 13, 34, 35])
def test_the_count_is_exact_and_spread_over_rows(count):
    mask = lowest(torch.rand(5, 7), count)
    per_row = mask.sum(1)
    assert int(mask.sum()) == count
    assert int(per_row.max() - per_row.min()) <= 1


def test_ties_go_to_the_lower_column():
    assert lowest(torch.zeros(2, 4), 4).tolist() == [[True, True, False, False]] * 2


def test_norms_add_up_over_calls():
    torch.manual_seed(0)
    x = torch.randn(30, 4)
    norms = InputNorms(4, x.device)
    for part in x.split(7):
        norms.add(part)
    torch.testing.assert_close(norms.norms(), x.norm(dim=0))
    assert norms.tokens == 30
