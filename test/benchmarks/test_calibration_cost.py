"""The parts of the benchmark of pruning's cost that need neither llm-compressor nor a clock."""

from dataclasses import asdict
import math

from calibration.original_owl import allocate, OriginalOwl
from calibration.sides import random_tokens
from calibration_cost import (
    bars_of,
    make_model,
    masks_agree,
    merge,
    ORIGINAL,
    OWL,
    SMALL,
    table,
)
from owled_ros.pruning import prune, PruningSettings
import pytest
import torch


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp('model') / 'small', SMALL)


def test_the_original_keeps_more_where_there_are_more_outliers():
    sparsities = allocate([0.01, 0.03, 0.02], 0.7, 0.08)
    assert sparsities == pytest.approx([0.78, 0.62, 0.70])
    assert allocate([0.02, 0.02], 0.7, 0.08) == [0.7, 0.7]


def test_the_original_finds_what_owled_ros_finds(model, tmp_path):
    samples = random_tokens(4, 24, seed=0)
    original = OriginalOwl(model, samples)
    original.prune(0.5)
    original.model.to(torch.bfloat16).save_pretrained(tmp_path / 'original')
    prune(model, [{'input_ids': ids} for ids in samples],
          PruningSettings(sparsity=0.5, method='wanda', allocation='owl', statistics='sequential',
                          device='cpu'), tmp_path / 'ours', progress=lambda line: None)
    # The original rounds the number of weights down in every row; ours meets the budget.
    assert masks_agree(tmp_path / 'original', tmp_path / 'ours') > 0.98
    assert masks_agree(tmp_path / 'original', model) == pytest.approx(0.5, abs=0.02)


def test_the_original_can_leave_early(model):
    told = []
    original = OriginalOwl(model, random_tokens(2, 8, seed=0), told.append, only_blocks=1)
    original.prune(0.5)
    assert told == ['measured block 0', 'pruned block 0']
    zeros = [(block.mlp.down_proj.weight == 0).float().mean().item()
             for block in original.model.model.layers]
    assert zeros[0] == pytest.approx(0.5, abs=0.01) and zeros[1] < 0.01


def row(run, kind, value, samples=4):
    return {'kind': kind, **asdict(run), 'wall_s': value, 'peak_mb': value,
            'samples': samples, 'tokens': 8}


def test_what_was_measured_before_stays():
    before = [row(OWL, 'time', 2.0), row(ORIGINAL, 'time', 8.0), row(OWL, 'time', 3.0, samples=9)]
    rows = merge(before, [row(OWL, 'time', 4.0)])
    assert [(r['wall_s'], r['samples']) for r in rows] == [(8.0, 4), (3.0, 9), (4.0, 4)]
    (bar,) = bars_of(rows)      # of runs of the same size only
    assert (bar['value'], bar['samples']) == (0.5, 4)


def test_bars_are_ratios_of_ours_to_theirs():
    rows = [row(OWL, 'time', 2.0), row(ORIGINAL, 'time', 8.0),
            row(OWL, 'memory', 30.0), row(ORIGINAL, 'memory', 100.0)]
    bars = {bar['name'].split(',')[0]: bar for bar in bars_of(rows)}
    assert bars['time']['value'] == 0.25 and bars['time']['met'] is None
    assert bars['peak memory']['value'] == 0.3 and bars['peak memory']['met'] is False
    assert math.isclose(bars['peak memory']['bar'], 0.25)
    assert len(bars) == 2       # what was not measured has no bar
    assert '| 0.300 | 0.25 | no |' in table(rows, bars.values())
