from owled_ros.cli import main
from owled_ros.errors import UserError
from owled_ros.sparse import bench
from owled_ros.sparse.bench import (
    bench_model,
    bench_prefill,
    bench_projection,
    plot,
    projection_lines,
    pruned_weight,
    Shape,
    shape_named,
    SPARSITIES,
)
from owled_ros.sparse.timing import Contestant, in_turn, rotation_bytes, Times
import pytest
import torch

TINY = Shape(64, 96, 2, 4, 2, 200, 16)


def test_each_contestant_has_its_turn_in_every_round():
    order = []
    contestants = [Contestant('a', [lambda: order.append('a')] * 2),
                   Contestant('b', [lambda: order.append('b')])]
    times = in_turn(contestants, 2, torch.device('cpu'))
    assert order == list('aab' * 3)     # the first round warms up
    assert [len(times.seconds[name]) for name in 'ab'] == [2, 2]


def test_ratios_are_of_rounds():
    times = Times({'slow': [2.0, 6.0, 4.0], 'fast': [1.0, 2.0, 4.0]})
    assert times.ratio('slow', 'fast') == (2.0, 1.0, 3.0)
    assert times.fastest(['slow', 'fast']) == 'fast'
    assert rotation_bytes(torch.device('cpu')) > 1 << 20


def test_a_weight_has_the_zeros_that_were_asked_for():
    weight = pruned_weight(500, 400, 0.7)
    assert float((weight == 0).float().mean()) == pytest.approx(0.7, abs=0.01)


def test_projections_are_measured_against_dense(tmp_path):
    rows = bench_projection(64, 128, device='cpu', rounds=2, rotate=1 << 16)
    packed = [row for row in rows if row['what'] == 'packed']
    assert [row['sparsity'] for row in packed] == list(SPARSITIES)
    for row in packed:
        density = 1 - row['sparsity']
        assert row['bits_per_weight'] == pytest.approx(16 * density + 1, abs=1)
        assert row['times_16_bit_low'] <= row['times_16_bit'] <= row['times_16_bit_high']
        assert row['gb_per_s'] == pytest.approx(row['bytes'] / row['seconds'] / 1e9)
    assert {'fp32', 'bf16', 'fp16', 'packed int8'} <= {row['what'] for row in rows}
    assert len(projection_lines(rows)) == len(rows) + 1
    plot(rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 1000
    assert bench_prefill(64, 128, device='cpu', rounds=1)['times_dense'] > 0


def test_whole_models_are_measured():
    row = bench_model(TINY, sparsity=0.5, device='cpu', rounds=2, tokens=2, prompt=4)
    assert row['limit'] > 1 and 0 < row['explained'] < 1.5
    assert 0.5 < row['packed_share'] < 0.7 and row['packed_share'] < row['model_share'] < 1


def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench, 'SHAPES', {'tiny': TINY})
    monkeypatch.setattr(bench, 'rotation_bytes', lambda device: 1 << 16)
    assert main(['bench', 'tiny', '--rounds', '1', '--plot', str(tmp_path / 'plot.png')]) == 0
    out = capsys.readouterr().out
    assert 'mlp.up 96 x 64' in out and 'times dense' in out
    assert (tmp_path / 'plot.png').is_file()
    assert main(['bench', 'huge']) == 2
    with pytest.raises(UserError, match='no shape'):
        shape_named('huge')
