"""Which weights go: against brute force, with ties, to the exact number; and what updates gain."""

from owled_ros.errors import UserError
from owled_ros.pruning.methods import METHODS
from owled_ros.pruning.patterns import Cut, lowest, lowest_of_all, parse_pattern
from owled_ros.pruning.statistics import InputHessian, InputNorms
import pytest
import torch


def statistic(x, kind=InputNorms):
    found = kind.empty(x.shape[1], x.device)
    found.add(x)
    return found


@pytest.fixture
def correlated():
    """Draw a weight matrix, and inputs that say much about one another."""
    torch.manual_seed(0)
    x = torch.randn(500, 24) @ torch.randn(24, 24) + torch.randn(500, 24)
    return torch.randn(16, 24), x


def test_wanda_is_brute_force():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 7), torch.randn(20, 7)
    norms = [sum(float(v) ** 2 for v in x[:, j]) ** 0.5 for j in range(7)]
    new, mask = METHODS['wanda'].prune(weight, statistic(x), Cut(15))
    for row in range(5):
        scores = sorted((abs(float(weight[row, j])) * norms[j], j) for j in range(7))
        gone = {j for _, j in scores[:3]}
        assert {j for j in range(7) if mask[row, j]} == gone
        assert all(new[row, j] == (0 if j in gone else weight[row, j]) for j in range(7))


def test_magnitude_is_over_the_whole_matrix():
    weight = torch.tensor([[1., -9., 3.], [8., 0.5, -2.]])
    new, mask = METHODS['magnitude'].prune(weight, None, Cut(3))
    assert mask.tolist() == [[True, False, False], [False, True, True]]
    assert new.tolist() == [[0., -9., 3.], [8., 0., 0.]]


def test_random_is_seeded():
    weight = torch.ones(6, 8)
    masks = [METHODS['random'].prune(weight, None, Cut(24, seed=seed))[1] for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('count', [0, 1, 17, 192, 383, 384])
def test_the_count_is_exact(correlated, name, count):
    weight, x = correlated
    before = weight.clone()
    new, mask = METHODS[name].prune(weight, statistic(x, METHODS[name].statistic), Cut(count))
    assert int(mask.sum()) == count
    assert torch.equal(new == 0, mask)
    assert torch.isfinite(new).all() and torch.equal(weight, before)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('pattern', [(2, 4), (4, 8), (1, 3)])
def test_a_pattern_keeps_n_of_every_m(correlated, name, pattern):
    weight, x = correlated
    kept, of = pattern
    cut = Cut(weight.numel() * (of - kept) // of, pattern)
    new, mask = METHODS[name].prune(weight, statistic(x, METHODS[name].statistic), cut)
    assert (mask.reshape(-1, of).sum(1) == of - kept).all()
    assert torch.equal(new == 0, mask)


@pytest.mark.parametrize('pattern', [None, (2, 4)])
def test_updates_lower_the_error_of_the_outputs(correlated, pattern):
    weight, x = correlated

    def error(name):
        new, _ = METHODS[name].prune(
            weight, statistic(x, METHODS[name].statistic), Cut(192, pattern))
        return float((x @ (weight - new).T).norm() / (x @ weight.T).norm())

    errors = {name: error(name) for name in METHODS}
    assert errors['admm'] < 0.8 * errors['wanda']
    assert errors['sparsegpt'] < 0.95 * errors['wanda'] < 0.95 * errors['random']


def test_sparsegpt_with_one_row_is_the_published_recursion(correlated):
    """Check the update alone: with the mask given, each step is eq. 3 of the paper."""
    weight, x = correlated
    row = weight[:1]
    hessian = statistic(x, InputHessian)
    new, mask = METHODS['sparsegpt'].prune(row, hessian, Cut(10))
    damped = hessian.matrix().double()
    damped = damped + 0.01 * damped.diagonal().mean() * torch.eye(24)
    expected = row[0].double()
    for column in range(24):
        if mask[0, column]:     # H restricted to the columns not yet passed
            inverse = torch.linalg.inv(damped[column:, column:])
            step = expected[column] / inverse[0, 0]
            expected[column:] = expected[column:] - step * inverse[0]
    torch.testing.assert_close(new[0].double(), expected, rtol=1e-3, atol=1e-3)


def test_sparsegpt_chooses_in_a_pattern_what_is_left_of_the_errors_before(correlated):
    """Each group is chosen at its first column (sec. 3.4), by what the weights are by then."""
    weight, x = correlated
    hessian = statistic(x, InputHessian)
    new, mask = METHODS['sparsegpt'].prune(weight[:1], hessian, Cut(12, (2, 4)))
    damped = hessian.matrix().double()
    damped = damped + 0.01 * damped.diagonal().mean() * torch.eye(24)
    inverses = [torch.linalg.inv(damped[column:, column:]) for column in range(24)]
    expected, gone = weight[0].double(), set()
    for column in range(24):
        if column % 4 == 0:
            costs = [(float(expected[j] ** 2 / inverses[j][0, 0]), j)
                     for j in range(column, column + 4)]
            gone |= {j for _, j in sorted(costs)[:2]}
        if column in gone:
            step = expected[column] / inverses[column][0, 0]
            expected[column:] = expected[column:] - step * inverses[column][0]
    assert set(mask[0].nonzero().flatten().tolist()) == gone
    torch.testing.assert_close(new[0].double(), expected, rtol=1e-3, atol=1e-3)


def test_a_pattern_may_be_wider_than_a_stripe():
    x = torch.randn(400, 512)
    new, mask = METHODS['sparsegpt'].prune(
        torch.randn(3, 512), statistic(x, InputHessian), Cut(768, (128, 256)))
    assert (mask.reshape(-1, 256).sum(1) == 128).all() and torch.isfinite(new).all()


def test_admm_approaches_the_least_squares_fit(correlated):
    weight, x = correlated
    hessian = statistic(x, InputHessian)
    new, mask = METHODS['admm'].prune(weight, hessian, Cut(192))
    gram = hessian.matrix().double()
    norms = gram.diagonal().sqrt()
    gram = gram + torch.diag(0.1 * norms.square())     # the damping that the method adds

    def error(row):
        return float(row @ gram @ row)

    for row in range(3):
        kept = ~mask[row]
        target = gram @ weight[row].double()
        fit = torch.zeros(24, dtype=torch.float64)
        fit[kept] = torch.linalg.solve(gram[kept][:, kept], target[kept])
        best = error(fit - weight[row])
        assert best <= error((new[row] - weight[row]).double()) < 1.1 * best


@pytest.mark.parametrize('name', ['sparsegpt', 'admm'])
def test_inputs_that_are_always_zero_go_first(correlated, name):
    weight, x = correlated
    x = x.clone()
    x[:, [3, 10]] = 0
    new, mask = METHODS[name].prune(weight, statistic(x, InputHessian), Cut(192))
    assert mask[:, [3, 10]].all() and torch.isfinite(new).all()


@pytest.mark.parametrize('count', [0, 1, 4, 13, 34, 35])
def test_a_remainder_is_spread_over_rows(count):
    per_row = lowest(torch.rand(5, 7), count).sum(1)
    assert int(per_row.sum()) == count and int(per_row.max() - per_row.min()) <= 1


def test_ties_go_to_the_lower_column():
    assert lowest(torch.zeros(2, 4), 4).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize('kind', [InputNorms, InputHessian])
def test_norms_add_up_over_calls(kind):
    torch.manual_seed(0)
    x = torch.randn(30, 4)
    found = kind.empty(4, x.device)
    for part in x.split(7):
        found.add(part)
    torch.testing.assert_close(found.norms(), x.norm(dim=0))


def test_patterns_are_read():
    assert parse_pattern('2:4') == (2, 4) and parse_pattern('unstructured') is None
    for bad in ('4:2', '0:4', '2', 'a:b', '2:4:8', '-1:4'):
        with pytest.raises(UserError, match='pattern'):
            parse_pattern(bad)


@pytest.mark.parametrize('scores', [torch.arange(24.).flip(0), torch.zeros(24),
                                    torch.tensor([2., 0., 1., 1.]).repeat(6)])
def test_the_lowest_of_all_are_the_first_of_a_stable_order(scores):
    for count in range(25):
        chosen = lowest_of_all(scores.view(4, 6), count)
        assert torch.equal(chosen, lowest(scores[None], count).view(4, 6))
