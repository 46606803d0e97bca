"""A table of a few cells on the embedded model, and going on with it."""

import csv
from dataclasses import replace
import json
import subprocess
import sys

from owled_ros.driver.checkpoint import locate
from owled_ros.errors import UserError
from owled_ros.evaluation.quantising import quantise, round_rows
from owled_ros.evaluation.table import (
    BITS,
    Cell,
    DENSE,
    driving_samples,
    METHODS,
    other_samples,
    OURS,
    OWLS,
    Plan,
    Table,
)
from owled_ros.evaluation.table_report import write_table
from owled_ros.pruning import PruningSettings
import pytest
from safetensors.torch import load_file
import torch

PLAN = Plan(methods=('Wanda', OURS), sparsities=(0.5,), beyond=(0.9,),
            components=('both',), data=('driving',), seeds=(0,), samples=4, scenes=4, bar_scenes=5,
            closed_sparsities=(0.5,), drives=2, seconds=0.4)


@pytest.fixture(scope='module')
def tried(tmp_path_factory):
    """Make a folder with a table."""
    folder, said = tmp_path_factory.mktemp('table'), []
    table = Table('embedded', folder, PLAN, processes=0, progress=said.append)
    opened, closed = table.run()
    return folder, table, opened, closed, write_table(folder, opened, closed, PLAN, 'embedded')


def test_every_cell_is_measured(tried):
    _, _, opened, closed, _ = tried
    ours = Cell(OURS, 0.5).name
    assert list(opened) == [DENSE, *BITS, Cell('Wanda', 0.5).name, ours, Cell(OURS, 0.9).name]
    assert list(closed) == [DENSE, ours, Cell(OURS, 0.9).name]
    assert len(opened[DENSE]['scores']['E_lon']) == len(opened[ours]['scores']['E_lon']) == 5
    assert len(opened[Cell('Wanda', 0.5).name]['scores']['E_lon']) == 4
    assert opened[ours]['sparsity'] == pytest.approx(0.5, abs=1e-3)
    assert opened['int4']['scores'] != opened['int8']['scores']
    seconds = [outcome['seconds'] for outcome in closed[DENSE]['outcomes']]
    assert seconds == pytest.approx([0.4, 0.4])


def test_it_is_written_for_people_and_programs(tried):
    folder, _, opened, _, bars = tried
    text = (folder / 'table.md').read_text()
    assert '## Bars' in text and '| ours 50% |' in text and '| int4 |' in text
    assert 'the expert' in text and len(bars) > 10
    with open(folder / 'table.csv') as file:
        rows = list(csv.DictReader(file))
    assert {row['cell'] for row in rows} == set(opened)
    assert (folder / 'E_lon.png').stat().st_size > 5000
    assert not list(folder.rglob('*.partial*'))


def test_it_goes_on_where_it_was_stopped(tried):
    folder, table, opened, closed, _ = tried
    cells = sorted(path.stem for path in table.folder.iterdir())
    assert cells == sorted([*opened, *(f'{name}.closed' for name in closed)])
    ours = table.folder / f'{Cell(OURS, 0.5).name}.json'
    ours.write_text(ours.read_text()[:100])  # as no power cut leaves it, but a full disk might
    again = Table('embedded', folder, PLAN, processes=0, progress=lambda text: None)
    computed = []
    again.open_loop = lambda cell, compute=again.open_loop: computed.append(cell) or compute(cell)
    opened_again, _ = again.run()
    assert computed == [Cell(OURS, 0.5)]
    assert opened_again[Cell(OURS, 0.5).name]['scores'] == opened[Cell(OURS, 0.5).name]['scores']
    assert json.loads(ours.read_text())['scores']


ANOTHER_RUN = """
import json, sys
from owled_ros.evaluation.table import Cell, Plan, Table
table = Table('embedded', sys.argv[1], Plan(), progress=print)
def compute(cell):
    print('computing', cell.name, flush=True)
    input()
    return {'scores': {}, 'by': 'another run'}
try:
    table.records([Cell(name) for name in sys.argv[2:]], '', table.open_key, compute)
except EOFError:
    pass
"""


@pytest.mark.parametrize('ends', ['with its cell', 'without'])
def test_two_runs_share_the_cells(tmp_path, ends):
    another = subprocess.Popen(
        [sys.executable, '-c', ANOTHER_RUN, tmp_path, 'int8'], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with another:
        while 'computing' not in another.stdout.readline():
            pass
        table, computed = Table('embedded', tmp_path, Plan(), progress=lambda text: None), []

        def compute(cell):
            computed.append(cell.name)
            if cell.name == 'int4':     # the last that nobody is at
                another.communicate('\n' if ends == 'with its cell' else None)
            return {'scores': {}, 'by': 'this run'}

        cells = [Cell(name) for name in ('int8', DENSE, 'int4')]
        records = table.records(cells, '', table.open_key, compute)
    assert list(records) == ['int8', DENSE, 'int4']
    by = {'with its cell': 'another run', 'without': 'this run'}[ends]
    assert [record['by'] for record in records.values()] == [by, 'this run', 'this run']
    assert computed == [DENSE, 'int4'] + ['int8'] * (ends == 'without')


def test_a_cell_is_made_again_when_its_settings_change(tmp_path, monkeypatch):
    """Also when it is a default that changed."""
    table = Table('embedded', tmp_path, PLAN, progress=lambda text: None)
    keys = [table.open_key(Cell(method, 0.5)) for method in (OURS, 'Wanda')]
    assert json.loads(json.dumps(keys)) == keys
    assert keys[0]['settings']['method'] == PruningSettings().method
    monkeypatch.setitem(METHODS, OURS, {'method': 'wanda'})
    assert table.open_key(Cell(OURS, 0.5)) != keys[0]
    assert table.open_key(Cell('Wanda', 0.5)) == keys[1]


def test_drives_are_not_made_again_for_more_scenes(tmp_path):
    tables = [Table('embedded', tmp_path, plan) for plan in (PLAN, replace(PLAN, scenes=7))]
    keys = [(table.open_key(Cell(DENSE)), table.closed_key(Cell(DENSE))) for table in tables]
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]
    assert keys[1][0]['scenes'] == 7    # not fewer than those of every other cell


@pytest.mark.parametrize('name', ['dense', 'int4', 'ours', 'a/b', 'half-size', ''])
def test_a_model_beside_the_others_has_a_name_of_its_own(tmp_path, name):
    with pytest.raises(UserError, match='cannot be the name'):
        Table('embedded', tmp_path, PLAN, beside={name: 'embedded'})


def test_the_full_plan_has_what_was_asked_for():
    cells = Plan().cells()
    assert len(cells) == len(set(cells)) and cells[0] == Cell(DENSE)
    assert Cell('OWL+SparseGPT', 0.7, 'vision', 'other') in cells
    assert Cell('magnitude', 0.3, 'language', 'other') not in cells  # needs no data
    assert Cell(OURS, 0.5, 'both', 'driving', 2) in cells
    assert Cell('OWL+Wanda', 0.9) in cells and Cell('Wanda', 0.9) not in cells
    assert Plan().scenes_of(Cell(OURS, 0.5)) == Plan().scenes_of(Cell(DENSE)) == 2000


def test_others_are_as_published_and_ours_is_the_default():
    settings = {name: PruningSettings(**values) for name, values in METHODS.items()}
    assert settings.pop(OURS) == PruningSettings()
    assert {name for name, chosen in settings.items()
            if chosen.statistics == 'sequential'} == {'Wanda', 'SparseGPT', *OWLS}
    assert all(settings[name].allocation == 'owl' for name in OWLS)


def test_other_data_is_not_driving():
    driving, other = list(driving_samples(4, 0)), list(other_samples(4, 0))
    assert [s.explanation for s in driving] == [s.explanation for s in driving_samples(4, 0)]
    assert all(' because ' in sample.explanation for sample in driving)
    assert all(sample.frame.shape == driving[0].frame.shape for sample in other)
    assert not {s.explanation for s in driving} & {s.explanation for s in other}
    assert driving[0].explanation != next(driving_samples(4, 1)).explanation


def test_fewer_bits_are_few_levels_around_nothing(tmp_path):
    weight = torch.randn(6, 50)
    rounded = round_rows(weight, 4)
    assert max(len(row.unique()) for row in rounded) <= 15
    assert (rounded - weight).abs().max() <= weight.abs().amax() / 7 / 2 + 1e-6
    model = locate('embedded')
    packed = [quantise(model, tmp_path / name, bits) for name, bits in BITS.items()]
    whole = sum(path.stat().st_size for path in model.glob('*.safetensors'))
    assert whole / 4 < packed[1] < packed[0] < 0.65 * whole
    before, after = (load_file(folder / 'model.safetensors') for folder in (
        model, tmp_path / 'int4'))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all('layer' in name and before[name].dim() == 2 for name in changed)
