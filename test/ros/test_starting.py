"""What keeps a node from starting is said in one sentence, with a status that tells its kind."""

import subprocess
import sys

import pytest

FILES = {'flat': 'wheelbase: 2.0\n',
         'cut': '/**:\n  ros__parameters:\n    wheelbase: [1, a\n',
         'time': '/**:\n  ros__parameters:\n    use_sim_time: 3\n'}


def ended(node, *arguments):
    """Run a node that cannot start; return its status and standard error."""
    done = subprocess.run(
        [sys.executable, '-m', f'owled_ros.{node}', '--ros-args', *arguments],
        capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize('node', ['driving_node', 'calibration_node'])
def test_a_file_of_parameters_that_is_missing(ros_domain, node):
    status, said = ended(node, '--params-file', '/no/where.yaml')
    assert status == 2 and said.startswith(f'{node}: ') and said.count('\n') == 1
    assert '/no/where.yaml' in said and ', at ' not in said     # a line of rcl's source


@pytest.mark.parametrize('name, words', [
    ('flat', 'Cannot have a value before ros__parameters at line 1'),
    ('cut', 'line_num 3'),
    ('time', "'use_sim_time'"),
])
def test_a_file_of_parameters_that_makes_no_sense(ros_domain, tmp_path, name, words):
    (tmp_path / 'parameters.yaml').write_text(FILES[name])
    status, said = ended('driving_node', '--params-file', str(tmp_path / 'parameters.yaml'))
    assert status == 2 and words in said
    assert said.startswith('driving_node: ') and said.count('\n') == 1


@pytest.mark.parametrize('arguments, words', [
    (['-r', 'image:=/1bad'], "Couldn't parse remap rule: '-r image:=/1bad'\n"),
    (['-p', 'deadline'], "Couldn't parse parameter override rule: '-p deadline'"),
    (['--bogus'], "driving_node: there are no such ROS arguments: ['--bogus']\n"),
])
def test_arguments_that_make_no_sense(ros_domain, arguments, words):
    status, said = ended('driving_node', *arguments)
    assert status == 2 and words in said and said.count('\n') == 1


def test_what_may_be_otherwise_the_next_time(ros_domain, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', 'mine')  # rcl tells it as it does a failed middleware
    status, said = ended('driving_node')
    assert status == 1 and said.startswith('driving_node: ') and said.count('\n') == 1
    assert 'ROS_DOMAIN_ID' in said
