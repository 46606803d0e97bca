"""The report of a made-up run: what is in it, and that every picture can be drawn."""

import html
import re

from owled_ros.pruning.report import write_report
import pytest

KINDS = {'braking, straight': {'usable': 20, 'calibration': 3, 'held_out': 1},
         'steady, left': {'usable': 60, 'calibration': 1, 'held_out': 0}}
DRIVES = {
    'kind': 'bags', 'names': ['drive <1>'], 'usable': 80, 'calibration': 4, 'held_out': 1,
    'labels': 'recorded motion', 'left_out': {'without odometry around them': 2}, 'kinds': KINDS,
    'drives': [{'name': 'drive <1>', 'seconds': 8.0, 'calibration': [
        [1.0, 'braking, straight'], [1.5, 'braking, straight'], [2.0, 'braking, straight'],
        [5.0, 'steady, left']], 'held_out': [[7.0, 'braking, straight']]}]}
TEXT = {'kind': 'text', 'names': ['book.txt'], 'usable': 9, 'calibration': 4, 'held_out': 2,
        'files': {'book.txt': {'usable': 9, 'calibration': 4, 'held_out': 2}}}


def block(component, name, sparsity, outliers=0.01):
    projections = [{'name': f'{name}.{kind}', 'shape': [4, 8], 'weights': 32,
                    'pruned': round(32 * sparsity), 'sparsity': sparsity,
                    'outlier_share': outliers} for kind in ('first', 'second')]
    return {'name': name, 'component': component, 'weights': 64, 'pruned': round(64 * sparsity),
            'sparsity': sparsity, 'outlier_share': outliers, 'projections': projections,
            'output_error': None if component == 'projector' else 0.1}


def record(blocks, processes=1, **data):
    return {
        'run': 'r', 'processes': processes,
        'python': 'prune(MODEL, inputs, PruningSettings(sparsity=0.6), OUTPUT)',
        'settings': {'sparsity': 0.5, 'method': 'wanda', 'allocation': 'owl',
                     'pattern': 'unstructured', 'statistics': 'dense',
                     'component_sparsity': {'vision': 0.4}},
        'model': {'name': 'tiny', 'sha256': 'a'}, 'data': {'samples': 8, **data},
        'sparsity': {'requested': 0.5, 'measured': 0.5, 'prunable_weights': 1000,
                     'pruned_weights': 500, 'weights': 1200,
                     'outliers_measured_on': 'the dense model'},
        'loss': {'dense': 2.0, 'pruned': 2.25, 'tokens': 77, 'samples': 4,
                 'measured_on': 'held-out samples'},
        'blocks': blocks, 'bytes': {'dense': 4096, 'pruned': 4096}, 'versions': {'torch': '2'}}


BLOCKS = [*(block('vision', f'eye.{i}', 0.4 + i / 50, 0.01 * i) for i in range(3)),
          block('projector', 'between', 0.5),
          *(block('language', f'mouth.{i}', 0.5) for i in range(14))]


def written(directory, made):
    write_report(made, directory)
    pictures = {path.name for path in directory.glob('*.png')}
    for name in pictures:
        assert (directory / name).read_bytes().startswith(b'\x89PNG')
    page = (directory / 'report.html').read_text()
    assert page.count('data:image/png;base64,') == len(pictures)
    assert 'http' not in page and 'src="d' in page
    return pictures, html.unescape(re.sub('<[^>]*>', ' ', page))


def test_what_a_reader_is_told(tmp_path):
    command = "owled calibrate 'drive <1>' --sparsity 0.6 --output OUTPUT"
    pictures, text = written(tmp_path, record(
        BLOCKS, sources=[DRIVES, TEXT], command=command))
    assert pictures == {'blocks.png', 'projections.png', 'samples.png'}
    for told in (command, 'PruningSettings(sparsity=0.6)', '4,096 bytes', '700 of 1,200',
                 '2.0000 (4 held-out samples, 77 tokens)', '2.2500 (+0.2500)', 'drive <1>',
                 'book.txt', 'Frames left out: 2 without odometry around them',
                 'neither faster nor smaller', 'braking, straight', 'Projector'):
        assert told in text, told


def test_every_number_is_in_a_table(tmp_path):
    first, second = block('vision', 'eye.0', 0.4375, 0.0123), block('language', 'mouth.0', 0.59375)
    second['projections'][1] |= {'outlier_share': 0.0456, 'sparsity': 0.8125}
    second['output_error'] = 0.5678
    _, text = written(tmp_path, record([first, second]))
    rows = ' '.join(text.split())
    for row in ('Vision encoder 1 64 28 43.75 % 40.00 %', 'Language model 1 64 38 59.38 % 50.00 %',
                'eye.0 64 1.23 % 43.75 % 0.1000', 'mouth.0 64 1.00 % 59.38 % 0.5678',
                'eye.0.first 4 x 8 1.23 % 43.75 %', 'mouth.0.second 4 x 8 4.56 % 81.25 %'):
        assert row in rows, row


def test_several_processes_are_started_again(tmp_path):
    _, text = written(tmp_path, record(
        BLOCKS, processes=2, command='owled calibrate drive --output OUTPUT'))
    assert ('torchrun --nproc-per-node 2 -m owled_ros.cli calibrate drive --output OUTPUT'
            in text)


@pytest.mark.parametrize('blocks, pictures', [
    (BLOCKS[3:4], {'projections.png'}),
    (BLOCKS[4:], {'blocks.png', 'projections.png'}),
    ([block('language', f'mouth.{i}', 0.0, 0.0) for i in range(70)],
     {'blocks.png', 'projections.png'}),
], ids=['projector alone', 'all alike', 'nothing cut, deep'])
def test_every_run_can_be_drawn(tmp_path, blocks, pictures):
    found, text = written(tmp_path, record(blocks))
    assert found == pictures
    assert 'samples that were handed over in Python' in text
