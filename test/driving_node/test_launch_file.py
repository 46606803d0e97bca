"""The launch file starts the node that its arguments ask for. Needs ROS 2's `ros2 launch`."""

from pathlib import Path
import shutil
import subprocess

import pytest

FILE = Path(__file__).parents[2] / 'launch' / 'driving.launch.py'
pytestmark = pytest.mark.skipif(shutil.which('ros2') is None, reason='there is no ros2 command')


def launch(*arguments):
    """Return what `ros2 launch` says when it prints the node's command instead of running it."""
    command = ['ros2', 'launch', '--launch-prefix', 'echo', str(FILE), *arguments]
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
