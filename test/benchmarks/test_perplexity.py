"""The parts of the perplexity benchmark that need no model: intervals, places, cells, bars."""

import random

from language_model import tables
from language_model.comparison import paired_interval, percentile, spread
from perplexity import all_cells, Cell, grid_cells, Notebook, OURS, quick_cells
import pytest


def test_a_difference_that_all_documents_share_has_no_interval():
    low, high = paired_interval([1., 2., 5.], [1.5, 2.5, 5.5])
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)


def test_the_interval_of_noise_holds_zero_and_narrows_with_documents():
    draw = random.Random(1)

    def width(count):
        ours = [draw.gauss(3, 1) for _ in range(count)]
        low, high = paired_interval(ours, [value + draw.gauss(0, 0.2) for value in ours])
        assert low < 0 < high
        return high - low
    assert width(400) < width(25) / 2


def test_documents_are_compared_in_pairs():
    with pytest.raises(ValueError, match='no pairs'):
        paired_interval([1., 2.], [1.])


@pytest.mark.parametrize('value, place', [(0., 100.), (2., 50.), (9., 0.), (1., 75.)])
def test_a_percentile_counts_those_that_are_worse(value, place):
    assert percentile(value, [1., 1., 3., 4.]) == pytest.approx(place)


def test_spread_is_half_the_range():
    assert spread([3., 1., 2.]) == 1 and spread([5.]) == 0


def test_the_grid_is_the_whole_of_it():
    cells = [cell for statistics in ('dense', 'sequential') for method in ('wanda', 'sparsegpt')
             for cell in grid_cells(statistics, method)]
    assert len(set(cells)) == 4 * 2 * 2 * 2 * 3 and set(cells) <= set(all_cells())


def test_every_cell_can_be_asked_of_the_package():
    for cell in all_cells():
        assert cell.settings().sparsity == cell.sparsity


def test_quick_is_ours_and_its_rival():
    ours, rival = quick_cells()
    assert tables.is_ours(ours, OURS) and rival.allocation == 'owl'
    assert ours.sparsity == rival.sparsity and set(quick_cells()) <= set(all_cells())


def record(loss):
    return {'losses': {'general': [loss - 0.1, loss + 0.1]}, 'pruning_seconds': 1.0}


def test_a_bar_is_against_the_best_owl_and_may_be_missed():
    cells = {Cell(**OURS, sparsity=0.5): record(4.0),
             Cell('wanda', 'owl', 0.5): record(4.5),
             Cell('sparsegpt', 'owl', 0.5): record(4.05)}
    bar, = tables.result(cells, record(3.0), ours=OURS)['bars']
    assert bar['value'] == pytest.approx(0.05) and bar['bar'] == 0.08 and not bar['met']
    del cells[Cell('sparsegpt', 'owl', 0.5)]
    bar, = tables.result(cells, record(3.0), ours=OURS)['bars']
    assert bar['value'] == pytest.approx(0.5) and bar['met']


def test_finished_cells_are_read_again(tmp_path):
    notebook, cell = Notebook(tmp_path), Cell('wanda', 'owl', 0.6)
    assert notebook.finished() == {}
    notebook.keep({'cell': vars(cell), **record(4.0)})
    notebook.keep({'cell': 'dense', **record(3.0)})
    assert notebook.finished()[cell]['losses'] == record(4.0)['losses']
    assert set(notebook.finished()) == {cell, 'dense'}
