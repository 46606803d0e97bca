import math

import numpy as np
from owled_ros.evaluation.comparing import compare, holm, interval
import pytest


def test_an_interval_is_that_of_the_normal_approximation():
    column = np.random.default_rng(0).normal(3.0, 2.0, 800)
    mean, low, high = interval(column)
    error = 1.96 * column.std() / math.sqrt(800)
    assert mean == pytest.approx(column.mean())
    assert (low, high) == pytest.approx((mean - error, mean + error), abs=0.15 * error)


def test_what_does_not_apply_is_left_out():
    assert interval(np.array([1.0, np.nan, 3.0]))[0] == 2.0
    assert all(math.isnan(value) for value in interval(np.full(3, np.nan)))
    found = compare(np.array([1.0, np.nan, 3.0, 9.0]), np.array([0.0, 5.0, np.nan]))
    assert found.pairs == 1 and found.difference == 1.0
    assert compare(np.full(2, np.nan), np.ones(2)).pairs == 0


def test_pairs_see_a_difference_that_the_spread_would_hide():
    random = np.random.default_rng(1)
    theirs = random.normal(10, 5, 400)
    ours = theirs - 0.2 + random.normal(0, 0.5, 400)
    found = compare(ours, theirs)
    assert found.low < found.difference < found.high < 0
    assert found.low < found.at_least and found.at_most < found.high
    assert found.p < 0.01
    assert found.ratio == pytest.approx(ours.mean() / theirs.mean() - 1)
    assert found.ratio < found.ratio_at_most < 0


def test_errors_that_nobody_makes_do_not_grow():
    assert compare(np.zeros(9), np.zeros(9)).ratio_at_most == 0.0
    assert compare(np.ones(9), np.zeros(9)).ratio_at_most == np.inf


def test_no_difference_is_not_found():
    random = np.random.default_rng(2)
    theirs = random.normal(0, 1, 300)
    found = compare(theirs + random.normal(0, 0.3, 300), theirs)
    assert found.low < 0 < found.high and found.p > 0.05
    assert compare(theirs, theirs).p == 1.0


def test_the_same_scores_give_the_same_numbers():
    ours, theirs = np.random.default_rng(3).random((2, 50))
    assert compare(ours, theirs) == compare(ours, theirs)


def test_holm_multiplies_the_smallest_by_the_number_of_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize('lost, gained, p', [
    (0, 0, 1.0), (4, 0, 0.125), (0, 8, 2 / 2 ** 8), (10, 2, 2 * (1 + 12 + 66) / 2 ** 12),
    (5, 5, 1.0)])
def test_few_drives_that_fail_are_compared_exactly(lost, gained, p):
    theirs = np.array([1.0] * (200 - gained) + [0.0] * gained)
    ours = np.array([0.0] * lost + [1.0] * (200 - lost))
    assert compare(ours, theirs).p == pytest.approx(p)
