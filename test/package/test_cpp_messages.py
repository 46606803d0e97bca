"""A C++ program compiles, links and runs with the messages of the installed package."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

from owled_ros.driver.action import LimitsApplied, Maneuver, Status
import yaml

CONSUMER = Path(__file__).with_name('consumer')


def test_a_cpp_consumer_sees_the_same_messages(tmp_path):
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    environment = {**os.environ, 'PATH': path, 'AMENT_PREFIX_PATH': os.pathsep.join(prefixes)}
    for command in (
            [shutil.which('cmake', path=path), '-S', CONSUMER, '-B', tmp_path,
             f'-DCMAKE_PREFIX_PATH={";".join(prefixes)}', f'-DPython3_EXECUTABLE={sys.executable}'],
            [shutil.which('cmake', path=path), '--build', tmp_path]):
        result = subprocess.run(command, env=environment, text=True, capture_output=True)
        assert result.returncode == 0, result.stdout + result.stderr
    printed = subprocess.run(
        [tmp_path / 'consumer'], env=environment, text=True, capture_output=True, check=True)
    action = yaml.safe_load(printed.stdout)
    assert action['status'] == Status.OK
    assert action['acceleration'] == -1.5
    assert action['maneuver'] == Maneuver.SLOW_DOWN
    assert action['limits_applied'] == LimitsApplied.JERK | LimitsApplied.SPEED
    assert action['model'] == 'embedded'
