"""The sources build with colcon, linked and copied, and as a wheel, and nothing is left out."""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ('CMakeLists.txt', 'LICENSE', 'MANIFEST.in', 'README.md', 'package.xml',
           'pyproject.toml', 'requirements.txt', 'requirements-ros.txt', 'setup.py',
           'config', 'launch', 'msg', 'owled_ros', 'resource')
EXECUTABLES = ('driving_node', 'calibration_node')
KERNELS = 'sparse/kernels/libowled_kernels.so'

# What a program in the built workspace sees.
LOOK = """
import json, shutil
import owled_ros, owled_ros.msg
from owled_ros.msg import DrivingAction
from rclpy.serialization import deserialize_message, serialize_message
from owled_ros.sparse.kernels.library import kernels
data = serialize_message(DrivingAction(status=DrivingAction.OK, reason='none'))
print(json.dumps({
    'package': owled_ros.__file__, 'messages': owled_ros.msg.__file__,
    'reason': deserialize_message(data, DrivingAction).reason, 'owled': shutil.which('owled'),
    'kernels': kernels() and kernels().paths()}))
"""


def package_files(folder=ROOT):
    return [path.relative_to(folder) for path in folder.glob('owled_ros/**/*')
            if path.is_file() and '__pycache__' not in path.parts]


def shared_files(folder=ROOT):
    return [path.relative_to(folder) for pattern in ('launch/*.py', 'config/*')
            for path in folder.glob(pattern)]


def run(command, folder, environment):
    result = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def environment():
    """Return the environment in which colcon finds ROS 2 and this Python's tools."""
    prefix = os.environ.get('AMENT_PREFIX_PATH', sys.prefix)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return {**os.environ, 'AMENT_PREFIX_PATH': prefix, 'PATH': path,
            'CMAKE_PREFIX_PATH': os.environ.get('CMAKE_PREFIX_PATH', prefix)}


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Make a colcon workspace with a copy of the sources."""
    folder = tmp_path_factory.mktemp('workspace')
    package = folder / 'src' / 'owled_ros'
    package.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, package / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, package / name)
    return folder


@pytest.mark.parametrize('way', ['copied', 'linked'])
def test_colcon(way, workspace, environment):
    options = ['--symlink-install'] if way == 'linked' else []
    run(['colcon', 'build', *options, '--build-base', f'build-{way}', '--install-base', way,
         '--cmake-args', '-G', 'Ninja', f'-DPython3_EXECUTABLE={sys.executable}'],
        workspace, environment)
    shell = f'set -e; . {way}/local_setup.bash; exec {sys.executable} -c "$0"'
    seen = json.loads(run(['bash', '-c', shell, LOOK], workspace, environment))
    installed = workspace / way / 'owled_ros'
    package = Path(seen['package']).parent
    assert installed in package.parents
    assert Path(seen['messages']) == package / 'msg' / '__init__.py'
    assert seen['reason'] == 'none'
    assert (package / KERNELS).is_file() and 'portable' in seen['kernels']
    assert seen['owled'] == str(installed / 'bin' / 'owled')
    for name in EXECUTABLES:
        assert os.access(installed / 'lib' / 'owled_ros' / name, os.X_OK)
    places = {path: package.parent / path for path in package_files()}
    places |= {path: installed / 'share' / 'owled_ros' / path for path in shared_files()}
    for path, place in places.items():
        assert place.read_bytes() == (ROOT / path).read_bytes()
        assert place.is_symlink() == (way == 'linked')


def test_wheel(workspace, environment, tmp_path):
    run([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path,
         workspace / 'src' / 'owled_ros'], workspace, environment)
    wheel, = tmp_path.glob('owled_ros-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    data = wheel.name.split('-cp')[0] + '.data/data'
    assert {str(path) for path in package_files()} <= names
    assert {'owled_ros/msg/_driving_action.py', f'owled_ros/{KERNELS}'} <= names
    assert any(name.startswith('owled_ros/owled_ros_s__rosidl_typesupport_fastrtps_c')
               for name in names)
    assert f'{data}/lib/libowled_ros__rosidl_typesupport_fastrtps_cpp.so' in names
    assert f'{data}/share/ament_index/resource_index/packages/owled_ros' in names
    assert {f'{data}/share/owled_ros/{path}' for path in shared_files()} <= names
    for name in EXECUTABLES:
        assert modes[f'{data}/lib/owled_ros/{name}'] & 0o111
    assert not any('__pycache__' in name for name in names)
