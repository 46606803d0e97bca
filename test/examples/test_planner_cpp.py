"""The example planner in C++: what decides, with any compiler; the node, where rclcpp is."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
import pytest
from road import brakes, Road, speeds_up

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'examples' / 'planner_cpp'
STRICT = ['-std=c++17', '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Werror', '-g']
SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all']
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
COLCON = shutil.which('colcon', path=PATH)


def run(command, **options):
    done = subprocess.run(command, text=True, capture_output=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_decides_keeps_the_rules(tmp_path):
    compiler = shutil.which('g++')
    if compiler is None:
        pytest.skip('no g++')
    probe = tmp_path / 'probe.cpp'
    probe.write_text('int main() {}')
    has_sanitizers = subprocess.run([compiler, *SANITIZERS, probe, '-o', tmp_path / 'probe'],
                                    capture_output=True).returncode == 0
    program = tmp_path / 'test_action_follower'
    run([compiler, *STRICT, *(SANITIZERS if has_sanitizers else []), '-I', PACKAGE / 'src',
         PACKAGE / 'test' / 'test_action_follower.cpp', '-o', program])
    assert run([program]) == 'passed\n'


@pytest.mark.skipif(COLCON is None, reason='there is no colcon')
@pytest.mark.parametrize('folder, package', [
    (ROOT, 'owled_ros'), (PACKAGE, 'owled_planner_cpp')], ids=['repository', 'example'])
def test_colcon_builds_it_only_when_it_is_asked_to(folder, package, tmp_path):
    listed = run([COLCON, '--log-base', tmp_path, 'list', '--names-only', '--base-paths', folder])
    assert listed.split() == [package]


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    """Build the planner against the installed rclcpp."""
    try:
        get_package_prefix('rclcpp')
    except (PackageNotFoundError, OSError):     # OSError: AMENT_PREFIX_PATH is not set
        pytest.skip('no rclcpp: ROS 2 from PyPI has none')
    folder = tmp_path_factory.mktemp('planner_cpp')
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    environment = {**os.environ, 'PATH': PATH, 'AMENT_PREFIX_PATH': os.pathsep.join(prefixes)}
    cmake = shutil.which('cmake', path=PATH)
    run([cmake, '-S', PACKAGE, '-B', folder, f'-DCMAKE_PREFIX_PATH={";".join(prefixes)}',
         f'-DPython3_EXECUTABLE={sys.executable}'], env=environment)
    run([cmake, '--build', folder], env=environment)
    run([shutil.which('ctest', path=PATH), '--output-on-failure'], env=environment, cwd=folder)
    return folder / 'planner'


@pytest.fixture
def planner(program, ros_domain):
    process = subprocess.Popen([program])
    yield process
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture
def road(ros_domain):
    road = Road()
    yield road
    road.close()


def test_it_brakes_when_actions_stop_coming(planner, road):
    command = road.until(speeds_up, acting=True, engaging=True)
    assert command.twist.angular.z == pytest.approx(0.05 * command.twist.linear.x)
    road.until(brakes, acting=False)
    road.until(speeds_up, acting=True, engaging=True)


def test_it_brakes_when_the_driving_node_is_gone(planner, road):
    road.until(speeds_up, acting=True, engaging=True, valid_for=120)   # s; nobody waits so long
    road.lose_the_driving_node()
    road.until(brakes, acting=False)
