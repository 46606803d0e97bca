import json
import shutil
from types import SimpleNamespace

from owled_ros.cli import main
from owled_ros.driver.checkpoint import load_model, locate
from owled_ros.errors import UserError
from owled_ros.sparse import bench, bench_models
from owled_ros.sparse.bench import bench_prefill, bench_projection, plot, projection_lines
from owled_ros.sparse.bench_models import (
    bench_directory,
    bench_model,
    free_bytes,
    packed_copy,
    random_model,
    require_room,
    token_bytes,
    weight_bytes,
)
from owled_ros.sparse.packing import follows
from owled_ros.sparse.sizes import (
    pruned_weight,
    Shape,
    shape_named,
    SHAPES,
    SPARSITIES,
    two_four_weight,
)
from owled_ros.sparse.timing import Contestant, in_turn, rotation_bytes, Times
import pytest
import torch

TINY = Shape(64, 96, 2, 4, 2, 200, 16)
CPU = torch.device('cpu')


@pytest.fixture
def small(monkeypatch):
    """Let weights rotate through little memory, and 'tiny' be the name of a size."""
    monkeypatch.setitem(SHAPES, 'tiny', TINY)
    for module in (bench, bench_models):
        monkeypatch.setattr(module, 'rotation_bytes', lambda device: 1 << 16)


@pytest.fixture
def pruned_directory(tmp_path):
    """Give the embedded model's directory, half of every projection cut."""
    directory = tmp_path / 'half'
    shutil.copytree(locate('embedded'), directory)
    model = load_model(directory, 'cpu')
    with torch.no_grad():
        for module in model.get_decoder().modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= torch.rand(module.weight.shape) < 0.5
    model.half().save_pretrained(directory)
    return directory


def test_each_contestant_has_its_turn_in_every_round():
    order = []
    contestants = [Contestant('a', [lambda: order.append('a')] * 2),
                   Contestant('b', [lambda: order.append('b')])]
    times = in_turn(contestants, 2, torch.device('cpu'))
    assert order == list('aab' * 3)     # the first round warms up
    assert [len(times.seconds[name]) for name in 'ab'] == [2, 2]


def test_what_is_prepared_comes_before_the_turns():
    order = []
    in_turn([Contestant('a', [lambda: order.append('turn')] * 2,
                        prepare=lambda: order.append('prepare'))], 1, CPU)
    assert order == ['prepare', 'turn', 'turn'] * 2


def test_ratios_are_of_rounds():
    times = Times({'slow': [2.0, 6.0, 4.0], 'fast': [1.0, 2.0, 4.0]})
    assert times.ratio('slow', 'fast') == (2.0, 1.0, 3.0)
    assert times.spread('slow') == (4.0, 2.0, 6.0)
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
        assert row['of_limit'] == pytest.approx(row['times_16_bit'] / row['limit'])
        assert row['of_copy'] > 0
    assert {'fp32', 'bf16', 'fp16', 'packed int8'} <= {row['what'] for row in rows}
    assert len(projection_lines(rows)) == len(rows) + 1
    plot(rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 1000
    assert bench_prefill(64, 128, device='cpu', rounds=1)['times_dense'] > 0


def test_a_two_four_weight_follows_its_pattern():
    weight = two_four_weight(8, 64)
    assert follows(weight, (2, 4)) and float((weight == 0).float().mean()) == 0.5


def test_two_four_is_left_out_where_torch_has_none():
    assert bench.two_four_missing(64, 64, CPU) == 'torch has no such product for cpu'
    rows = bench_projection(64, 64, device='cpu', rounds=1, rotate=1 << 16)
    assert '2:4' not in {row['what'] for row in rows}


def test_two_four_takes_part_where_torch_has_it(monkeypatch):
    """What stands in for torch's compressed tensor, which is for CUDA only, is dense here."""
    class Compressed(torch.Tensor):
        packed, meta = torch.zeros(64 * 32, dtype=torch.bfloat16), torch.zeros(256)

    monkeypatch.setattr(bench, 'two_four_missing', lambda rows, columns, device: '')
    monkeypatch.setattr(torch.sparse, 'to_sparse_semi_structured',
                        lambda weight: weight.as_subclass(Compressed))
    rows = bench_projection(64, 64, device='cpu', rounds=1, rotate=1 << 16)
    row, = [row for row in rows if row['what'] == '2:4']
    assert row['bytes'] == 64 * 32 * 2 + 256 * 4 and row['sparsity'] == 0.5


def test_what_torch_says_against_two_four_is_told(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError('this shape is not supported\nmore')

    monkeypatch.setattr(bench, '_two_four', refuse)
    gpu = SimpleNamespace(type='cuda')
    assert bench.two_four_missing(64, 64, gpu) == 'this shape is not supported'


def test_language_models_are_measured(small):
    rows = bench_model(TINY, device='cpu', rounds=2, tokens=2, prompt=4)
    assert [row['what'] for row in rows] == ['transformers', 'dense'] + ['sparse'] * 3
    dense = rows[1]
    assert dense['limit'] == dense['of_limit'] == dense['times_dense_first'] == 1
    for row, sparsity in zip(rows[2:], SPARSITIES):
        assert row['sparsity'] == pytest.approx(sparsity, abs=0.02)
        assert row['limit'] == pytest.approx(dense['token_bytes'] / row['token_bytes'])
        assert row['of_limit'] == pytest.approx(row['times_dense_token'] / row['limit'])
        assert row['explained'] > 0 and row['of_copy'] > 0
        for key in ('seconds_first', 'seconds_token', 'times_dense_first', 'times_dense_token'):
            assert 0 < row[f'{key}_low'] <= row[key] <= row[f'{key}_high']
    assert [row['weight_bytes'] for row in rows] == sorted(
        (row['weight_bytes'] for row in rows), reverse=True)


def test_bytes_of_a_model_and_of_a_token():
    model = random_model(TINY)
    projections = 2 * TINY.layers * TINY.layer_weights()
    others = weight_bytes(model) - projections      # the embedding, which is the head, and norms
    assert 200 * 64 * 2 < others < 200 * 64 * 2 + 2000
    assert token_bytes(model) == weight_bytes(model)
    bench_models.cut(model, 0.5)
    packed = packed_copy(model)
    assert projections / 2 < weight_bytes(packed) - others < projections * 0.8
    assert packed.lm_head.weight is model.lm_head.weight
    assert weight_bytes(model) == projections + others, 'the dense one has lost weights'


def test_the_models_of_a_directory_are_measured(small, pruned_directory):
    types = [torch.float32, torch.bfloat16]
    rows, absent = bench_directory(pruned_directory, device='cpu', rounds=1, types=types)
    assert absent == []
    assert [(row['what'], row['type']) for row in rows] == [
        ('transformers', 'float32'), ('dense', 'float32'), ('sparse', 'float32'),
        ('dense', 'bfloat16'), ('sparse', 'bfloat16')]
    dense, packed = rows[1], rows[2]
    assert dense['weight_bytes'] > packed['weight_bytes'] > rows[4]['weight_bytes']
    assert dense['token_bytes'] < dense['weight_bytes']     # the image encoder takes no part
    assert packed['sparsity'] == pytest.approx(0.5, abs=0.01)


def test_a_directory_that_is_not_pruned_says_so(small):
    rows, absent = bench_directory('embedded', device='cpu', rounds=1, types=[torch.float32])
    assert [row['what'] for row in rows] == ['transformers', 'dense']
    assert absent == [{'what': 'sparse float32', 'why': 'no projection of the model is pruned'}]


def test_a_type_for_which_there_is_no_room_is_left_out(small, monkeypatch):
    monkeypatch.setattr(bench_models, 'free_bytes', lambda device: 1000)
    rows, absent = bench_directory('embedded', device='cpu', rounds=1,
                                   types=[torch.float32, torch.bfloat16])
    assert {row['type'] for row in rows} == {'float32'}
    assert absent[1]['what'] == 'dense and sparse bfloat16' and 'are free' in absent[1]['why']


def test_a_model_that_the_memory_does_not_hold_is_refused(monkeypatch):
    assert free_bytes(CPU) > 1 << 20
    require_room(TINY, CPU)
    monkeypatch.setattr(bench_models, 'free_bytes', lambda device: 20 << 30)
    require_room(SHAPES['smolvlm-2.2b'], CPU)
    with pytest.raises(UserError, match=r'about [34]\d\.\d GB .* of its 28 layers with --layers'):
        require_room(SHAPES['7b'], CPU)


def test_the_command(small, capsys, tmp_path):
    picture = tmp_path / 'plot.png'
    assert main(['bench', 'tiny', '--rounds', '1', '--plot', str(picture)]) == 0
    out = capsys.readouterr().out
    assert 'mlp.up 96 x 64' in out and 'times the dense seconds' in out
    assert '2:4: torch has no such product for cpu' in out
    assert 'prefill of 128 tokens, and a token after them\n' in out
    assert picture.is_file()
    assert main(['bench', 'huge']) == 2
    with pytest.raises(UserError, match='no shape'):
        shape_named('huge')


def test_the_command_with_some_layers(small, capsys):
    assert main(['bench', 'tiny', '--rounds', '1', '--layers', '1', '--json']) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert '1 of its 2 layers, and the head' in captured.err
    assert (result['model']['layers'], result['model']['of_layers']) == (1, 2)
    assert {row['what'] for row in result['absent']} == {'2:4'}
    for layers, model in ((0, 'tiny'), (3, 'tiny'), (1, 'embedded')):
        assert main(['bench', model, '--layers', str(layers)]) == 2
        assert 'layers' in capsys.readouterr().err


def test_the_command_with_a_directory(small, pruned_directory, capsys, tmp_path):
    picture = tmp_path / 'plot.png'
    assert main(['bench', str(pruned_directory), '--rounds', '1', '--plot', str(picture)]) == 0
    out = capsys.readouterr().out
    assert 'mlp.gate_proj 512 x 192' in out and 'vision' not in out
    assert 'action ms' in out and 'transformers float32' in out
    assert picture.is_file()
