"""The launch files start the nodes that their arguments ask for. Needs ROS 2's `ros2 launch`."""

from pathlib import Path
import re
import shutil
import subprocess

import pytest
import yaml

FILES = Path(__file__).parents[2] / 'launch'
pytestmark = pytest.mark.skipif(shutil.which('ros2') is None, reason='there is no ros2 command')


def launch(*arguments, file='driving'):
    """Return what `ros2 launch` says when it prints the node's command instead of running it."""
    command = ['ros2', 'launch', '--launch-prefix', 'echo', str(FILES / f'{file}.launch.py'),
               *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_defaults_leave_the_parameter_file_alone():
    words = launch()
    assert 'driving.yaml' in words and '--log-level info' in words
    assert '__ns:=/ ' in words and words.count('--params-file') == 2


def test_arguments_reach_the_node():
    words = launch('namespace:=left', 'image_topic:=/left/image_raw', 'log_level:=debug')
    assert 'image:=/left/image_raw' in words and '__ns:=/left' in words
    assert '--log-level debug' in words


def test_unknown_choices_are_refused():
    assert 'is not valid' in launch('image_transport:=theora')


def test_arguments_are_parameters_of_their_types():
    words = launch('outputs:=twist', 'base_frame:=7', 'wheelbase:=3', 'field_of_view:=0.5')
    overrides = yaml.safe_load(Path(re.findall(r'--params-file (\S+)', words)[-1]).read_text())
    values, = [node['ros__parameters'] for node in overrides.values()]
    assert values == {'outputs': 'twist', 'base_frame': '7', 'wheelbase': 3.0,
                      'field_of_view': 0.5, 'use_sim_time': False}
    assert isinstance(values['wheelbase'], float)


@pytest.mark.parametrize('file, argument, words', [
    ('driving', 'params_file:=/no/where.yaml',
     "params_file is '/no/where.yaml', where there is no file"),
    ('driving', 'field_of_view:=abc', "field_of_view is 'abc'; it must be a number"),
    ('driving', 'wheelbase:=long', "wheelbase is 'long'; it must be a number"),
    ('calibration', 'params_file:=/no/where.yaml',
     "params_file is '/no/where.yaml', where there is no file"),
    ('calibration', 'sparsity:=abc', "sparsity is 'abc'; it must be a number"),
    ('calibration', 'samples:=3.5', "samples is '3.5'; it must be a whole number"),
    ('calibration', 'joint:=maybe', "joint is 'maybe'; it must be true or false"),
])
def test_what_cannot_be_is_refused_by_the_name_of_its_argument(file, argument, words):
    said = launch(argument, file=file)
    assert words in said and 'process started' not in said
