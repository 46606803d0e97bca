import json
import math

from owled_ros.cli import main
import pytest


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'drive'
    assert main(['demo-bag', str(path), '--seconds', '6', '--size', '160x120']) == 0
    return path


def refused(capsys, complaint, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith('owled: ') and '\n' not in told
    assert complaint in told


def test_the_demo_bag_is_what_it_says(bag, capsys, tmp_path):
    assert main(['demo-bag', str(tmp_path / 'b'), '--seconds', '2', '--size', '64x48',
                 '--storage', 'sqlite3', '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['frames'] == 20
    assert (tmp_path / 'b' / 'metadata.yaml').is_file()
    refused(capsys, 'there already', 'demo-bag', bag)
    refused(capsys, 'WIDTHxHEIGHT', 'demo-bag', tmp_path / 'c', '--size', '640')
    refused(capsys, 'at least 1 s', 'demo-bag', tmp_path / 'c', '--seconds', '0')
    assert not (tmp_path / 'c').exists()


def test_calibrate_evaluate_and_inspect(bag, capsys, tmp_path):
    pruned = tmp_path / 'pruned'
    assert main(['calibrate', str(bag), '--output', str(pruned), '--sparsity', '0.4',
                 '--samples', '8', '--held-out', '4', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert abs(report['sparsity']['measured'] - 0.4) < 1e-3
    assert main(['inspect', str(pruned), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['hash'] == report['model']['sha256'][:12]
    assert {block['component'] for block in found['blocks']} == {'vision', 'language'}
    share = sum(b['zeros'] for b in found['blocks']) / sum(b['weights'] for b in found['blocks'])
    assert abs(share - 0.4) < 2e-3
    assert main(['evaluate', str(pruned), '--bag', str(bag), '--truth-topic', '/owled/truth',
                 '--explanation-topic', '/owled/truth_explanation', '--json']) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured['frames'] > 50
    assert 0.0 <= measured['parse_rate'] <= 1.0
    assert measured['E_lon'] > 0 and measured['L_token'] > 0 and measured['weight_bytes'] > 1e6
    # Of recorded motion alone nothing is known that could be said.
    assert main(['evaluate', str(pruned), '--bag', str(bag), '--json']) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured['E_lon'] > 0 and math.isnan(measured['Acc_TL'])


def test_a_film_of_a_bag(bag, capsys, tmp_path):
    assert main(['render', str(bag), '--output', str(tmp_path / 'drive.mp4'), '--seconds', '1',
                 '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['frames'] == told['pictures'] == 10 and told['refused'] == 0
    assert (tmp_path / 'drive.mp4').stat().st_size > 1000


def test_a_film_of_what_an_ideal_camera_would_see(bag, capsys, tmp_path):
    assert main(['render', str(bag), '--output', str(tmp_path / 'drive.mp4'), '--seconds', '1',
                 '--undistort', '--field-of-view', '0.942', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['frames'] == 10


def test_mistakes_are_told_in_one_sentence(bag, capsys, tmp_path):
    output = tmp_path / 'pruned'
    refused(capsys, str(tmp_path / 'none'), 'calibrate', tmp_path / 'none', '--output', output)
    refused(capsys, 'sparsity', 'calibrate', bag, '--output', output, '--sparsity', '1.0')
    refused(capsys, 'nonsense', 'calibrate', bag, '--output', output, '--method', 'nonsense')
    refused(capsys, 'sequential, dense', 'calibrate', bag, '--output', output, '--statistics', 'x')
    refused(capsys, '/owled/truth', 'calibrate', bag, '--output', output, '--image-topic', '/no')
    refused(capsys, 'config.json', 'calibrate', bag, '--output', output, '--model', tmp_path)
    refused(capsys, 'no model directory', 'inspect', tmp_path / 'none')
    refused(capsys, 'no model directory', 'evaluate', 'none')
    refused(capsys, 'positive', 'evaluate', 'embedded', '--scenes', '0')
    refused(capsys, 'from 1 to 60', 'evaluate', 'embedded', '--closed-loop', '--seconds', '0')
    refused(capsys, 'driven through', 'evaluate', 'embedded', '--closed-loop', '--blind')
    refused(capsys, 'NAME=MODEL', 'evaluate', 'embedded', '--table', output, '--beside', 'half')
    refused(capsys, 'rate', 'replay', bag, '--rate', '0')
    refused(capsys, 'positive', 'watch', '--seconds', '0')
    refused(capsys, 'neither an .mp4', 'render', bag, '--output', tmp_path / 'drive.avi')
    refused(capsys, 'wheelbase', 'render', bag, '--output', tmp_path / 'd.gif', '--wheelbase', '0')
    assert list(tmp_path.iterdir()) == []


def test_every_setting_is_an_option_with_its_default():
    from owled_ros.bags.samples import Source
    from owled_ros.calibration import Request
    from owled_ros.cli import build_parser, settings_of, source_of
    from owled_ros.pruning import PruningSettings
    parsed = build_parser().parse_args(['calibrate', 'drive', '--output', 'pruned'])
    assert settings_of(parsed) == PruningSettings()
    assert source_of(parsed) == Source()
    default = Request(output='pruned')
    for name in ('model', 'tokens', 'prompt', 'samples', 'held_out', 'images'):
        assert getattr(parsed, name) == getattr(default, name), name


def test_every_command_has_help_with_an_example(capsys):
    for command in ('demo-bag', 'calibrate', 'replay', 'evaluate', 'inspect'):
        with pytest.raises(SystemExit) as end:
            main([command, '--help'])
        assert end.value.code == 0
        assert f'example: owled {command}' in capsys.readouterr().out
