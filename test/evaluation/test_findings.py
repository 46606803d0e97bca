"""What a table says, from numbers that were made up for the test."""

from dataclasses import replace

import numpy as np
from owled_ros.evaluation.findings import ACCURACIES, bars, ERRORS, pairs
from owled_ros.evaluation.table import Cell, DENSE, OURS, Plan

PLAN = Plan(methods=('Wanda', 'OWL+Wanda', OURS), sparsities=(0.5, 0.6), components=('both',),
            data=('driving',), seeds=(0,), closed_sparsities=(0.5, 0.6))


def scores(level, count=400):
    """Errors around `level`, the same frames being hard for everybody."""
    hard = np.random.default_rng(0).random(count)
    return {**dict.fromkeys(ERRORS, level * (0.5 + hard)),
            **{metric: (hard > level / 10).astype(float) for metric in ACCURACIES}}


def drives(successes, count=200):
    return np.array([1.0] * successes + [0.0] * (count - successes))


def opened(ours=1.0, owl=1.5):
    return {DENSE: scores(1.0), **{
        Cell(method, sparsity).name: scores(level * (1 + sparsity - 0.5))
        for sparsity in PLAN.sparsities
        for method, level in (('Wanda', 2.0), ('OWL+Wanda', owl), (OURS, ours))}}


def closed(ours=(198, 195), owl=(190, 150)):
    found = {DENSE: drives(200)}
    for method, counts in ((OURS, ours), ('OWL+Wanda', owl)):
        for sparsity, count in zip(PLAN.sparsities, counts):
            found[Cell(method, sparsity).name] = drives(count)
    return found


def by_name(found, start):
    bar, = [bar for bar in found if bar.name.startswith(start)]
    return bar


def test_a_model_that_loses_nothing_meets_every_bar():
    assert all(bar.met for bar in bars(opened(), closed(), PLAN))


def test_a_dense_model_that_does_not_drive_is_told_first():
    nobody = {name: 0 * column for name, column in closed().items()}
    assert not bars(opened(), nobody, PLAN)[0].met


def test_errors_that_grow_by_five_percent_are_too_much():
    found = bars(opened(ours=1.05), closed(), PLAN)
    assert not by_name(found, 'E_lon at 50%').met
    assert 'at most +5.0%' in by_name(found, 'E_lon at 50%').value


def test_success_is_judged_by_its_bound_and_not_by_its_mean():
    assert by_name(bars(opened(), closed(ours=(196, 196)), PLAN), 'closed-loop success at').met
    # Four points fewer on average, but it may be more than five.
    assert not by_name(bars(opened(), closed(ours=(192, 192)), PLAN), 'closed-loop success at').met


def test_a_method_that_is_better_than_ours_is_named():
    found = bars(opened(ours=1.6), closed(), PLAN)
    bar = by_name(found, 'ours against')
    assert not bar.met and 'OWL+Wanda in E_lon at 50%' in bar.value
    rows = pairs(opened(ours=1.6), closed(), PLAN)
    assert {row['verdict'] for row in rows if row['against'] == 'Wanda'} == {'better'}
    assert all(row['p'] >= row['comparison'].p for row in rows)
    # In success, more is better.
    assert {row['verdict'] for row in rows if row['metric'] == 'success'} == {'better'}


def test_how_far_one_can_prune():
    bar = by_name(bars(opened(), closed(), PLAN), 'largest sparsity')
    assert bar.value == '60% and 50%' and bar.met
    bar = by_name(bars(opened(), closed(owl=(198, 198)), PLAN), 'largest sparsity')
    assert bar.value == '60% and 60%' and not bar.met


def test_how_far_goes_beyond_what_is_compared():
    plan, drives_on = replace(PLAN, beyond=(0.8,)), closed()
    drives_on[Cell(OURS, 0.8).name] = drives(199)
    assert by_name(bars(opened(), drives_on, plan), 'largest sparsity').value == '80% and 50%'


def test_how_far_is_as_far_as_all_below_drive():
    bar = by_name(bars(opened(), closed(ours=(150, 198)), PLAN), 'largest sparsity')
    assert bar.value == 'below 50% and 50%' and not bar.met
    ours_alone = {name: found for name, found in closed().items() if 'OWL' not in name}
    assert by_name(bars(opened(), ours_alone, PLAN), 'largest sparsity').met is None


def test_comparisons_that_are_missing_leave_the_bar_open():
    """And none may be worse among those that there are."""
    # E_lon against two methods and success against OWL, at two sparsities each.
    without = closed()
    del without[Cell('OWL+Wanda', 0.6).name]
    bar = by_name(bars(opened(), without, PLAN), 'ours against')
    assert bar.met is None and '5 of 6 comparisons' in bar.value


def test_what_the_correction_hides_is_told():
    """One pair of many that is just about worse is a tie after the correction."""
    almost = opened()
    ours, owl = (Cell(method, 0.5).name for method in (OURS, 'OWL+Wanda'))
    noise = np.random.default_rng(1).normal(0, 0.1, 400)
    almost[ours]['E_lon'] = almost[owl]['E_lon'] + noise - noise.mean() + 0.01
    alike = closed(ours=(190, 150))
    rows = pairs(almost, alike, PLAN)
    row, = [row for row in rows if row['against'] == 'OWL+Wanda' and row['sparsity'] == 0.5
            and row['metric'] == 'E_lon']
    assert row['comparison'].p < 0.05 < row['p'] and row['verdict'] == 'tie'
    assert '1 worse without the correction' in by_name(bars(almost, alike, PLAN),
                                                       'ours against').value


def test_what_was_not_measured_is_not_met():
    found = bars({DENSE: scores(1.0)}, {}, PLAN)
    assert [bar.name for bar in found] == [bar.name for bar in bars(opened(), closed(), PLAN)]
    assert all(bar.met is None for bar in found)
