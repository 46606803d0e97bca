"""A drive and a model become a pruned model that transformers loads, the same every time."""

import hashlib
import json
import shlex

from owled_ros.bags.samples import Source
from owled_ros.calibration import calibrate, Request
from owled_ros.errors import UserError
from owled_ros.pruning import PruningSettings
import pytest

TRUTH = Source(truth_topic='/owled/truth', explanation_topic='/owled/truth_explanation')


def request(model, drive, output, **changes):
    values = {'pruning': PruningSettings(sparsity=0.6), 'samples': 8, 'held_out': 3} | changes
    return Request(**{'model': str(model), 'bags': (drive,), 'output': output, **values})


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())}


def test_a_drive_prunes_a_model(tmp_path, model, drive):
    lines = []
    report = calibrate(request(model, drive, tmp_path / 'pruned', source=TRUTH), lines.append)
    assert report['sparsity']['measured'] == pytest.approx(0.6, abs=0.001)
    assert report['data']['samples'] == 8
    source, = report['data']['sources']
    assert (source['kind'], source['names'], source['labels']) == ('bags', ['drive'], 'truth')
    assert (source['usable'], source['calibration'], source['held_out']) == (80, 8, 3)
    assert source['kinds'] == {
        'braking, left': {'usable': 40, 'calibration': 3, 'held_out': 3},
        'speeding up, left': {'usable': 40, 'calibration': 5, 'held_out': 0}}
    timeline, = source['drives']
    assert timeline['name'] == 'drive' and timeline['seconds'] == 7.9
    assert [kind for _, kind in timeline['calibration']].count('braking, left') == 3
    assert all(0 <= time <= 7.9 for time, _ in timeline['calibration'] + timeline['held_out'])
    assert report['loss']['measured_on'] == 'held-out samples'
    written = json.loads((tmp_path / 'pruned' / 'owled.json').read_text())
    assert written['data'] == report['data'] and written['blocks'] == report['blocks']
    assert any('80 frames can be used' in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ['pruned']
    from transformers import AutoModelForImageTextToText, AutoProcessor
    AutoModelForImageTextToText.from_pretrained(tmp_path / 'pruned')
    AutoProcessor.from_pretrained(tmp_path / 'pruned')


def test_several_drives_are_all_calibrated_on(tmp_path, model, drive, longer_drive):
    report = calibrate(
        request(model, drive, tmp_path / 'pruned', source=TRUTH, samples=12, held_out=6,
                bags=(drive, longer_drive)), lambda line: None)
    source, = report['data']['sources']
    assert source['names'] == ['drive', 'longer'] and source['usable'] == 80 + 140
    for found in source['drives']:
        assert len(found['calibration']) >= 3
    assert sum(len(found['calibration']) for found in source['drives']) == 12


def test_same_drive_and_seed_same_bytes(tmp_path, model, drive):
    for name in ('first', 'second'):
        calibrate(request(model, drive, tmp_path / name), lambda line: None)
    assert digests(tmp_path / 'first') == digests(tmp_path / 'second')
    report = json.loads((tmp_path / 'first' / 'owled.json').read_text())
    source, = report['data']['sources']
    assert source['labels'] == 'recorded motion'
    assert source['left_out'] == {'without enough recorded motion after them': 10}


def test_the_command_says_what_differs_from_the_defaults_and_reads_back(model):
    from owled_ros.calibration import command_of
    from owled_ros.cli import build_parser, settings_of, source_of
    settings = PruningSettings(
        sparsity=0.6, method='admm', allocation='fisher', statistics='dense', components='all',
        component_sparsity={'vision': 0.3, 'projector': 0.1}, include=('layers',),
        exclude=('q_proj$', 'a b'), seed=4)
    source = Source(horizon=2.0, max_ego_gap=0.3, odom_topic='/move', undistort=True,
                    field_of_view=0.9, camera_info_topic='/eye')
    command = command_of(Request(
        output='x', model='my model', bags=('a', 'b c'), texts=('t.txt',), pruning=settings,
        source=source, held_out=0))
    assert "'my model'" in command and '--joint' not in command and 'samples' not in command
    parsed = build_parser().parse_args(shlex.split(command)[1:])
    assert settings_of(parsed) == settings and source_of(parsed) == source
    assert [str(bag) for bag in parsed.bags] == ['a', 'b c'] and parsed.held_out == 0
    assert command_of(Request(output='x', bags=('a',), pruning=PruningSettings(joint=True))) == (
        'owled calibrate a --joint --output OUTPUT')


def test_what_progress_raises_stops_the_work_and_it_can_be_repeated(tmp_path, model, drive):
    class Stopped(Exception):
        pass

    def stop(line):
        if line.startswith('pruning'):
            raise Stopped

    output = tmp_path / 'pruned'
    with pytest.raises(Stopped):
        calibrate(request(model, drive, output), stop)
    assert not output.exists()
    calibrate(request(model, drive, output), lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ['pruned']


@pytest.mark.parametrize('changes, says', [
    ({'model': '/no/such/model'}, 'there is no model directory /no/such/model'),
    ({'source': Source(image_topic='/front')}, 'no messages on /front'),
    ({'samples': 2}, 'samples is 2; it must be at least 4'),
])
def test_what_a_user_can_get_wrong(tmp_path, model, drive, changes, says):
    with pytest.raises(UserError, match=says):
        changes = {'model': model} | changes
        calibrate(request(changes.pop('model'), drive, tmp_path / 'pruned', **changes))
    assert not list(tmp_path.iterdir())


def test_a_model_without_weights_or_processor(tmp_path, model, drive):
    bare = tmp_path / 'bare'
    bare.mkdir()
    (bare / 'config.json').write_text('{}')
    with pytest.raises(UserError, match='bare holds no weights'):
        calibrate(request(bare, drive, tmp_path / 'pruned'))
    (bare / 'model.safetensors').write_bytes((model / 'model.safetensors').read_bytes())
    with pytest.raises(UserError, match='the processor in .*bare cannot be loaded'):
        calibrate(request(bare, drive, tmp_path / 'pruned'))


def test_an_output_that_is_there_is_not_touched(tmp_path, model, drive):
    (tmp_path / 'pruned').mkdir()
    (tmp_path / 'pruned' / 'mine').write_text('mine')
    with pytest.raises(UserError, match='already holds something'):
        calibrate(request(model, drive, tmp_path / 'pruned'))
    with pytest.raises(UserError, match='there is no directory'):
        calibrate(request(model, drive, tmp_path / 'a' / 'b' / 'pruned'))
