"""Lets pip build what colcon builds; the metadata is in pyproject.toml.

CMake generates and compiles the ROS 2 messages into a staging folder. The Python part of it goes
into the wheel's owled_ros package; headers, libraries, the ament index and the executables for
`ros2 run` go to the same places under the environment's prefix as under /opt/ros.
"""

import importlib.util
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).parent.resolve()


class BuildMessages(build_ext):
    """Runs CMake where setuptools would compile extension modules."""

    def run(self):
        # Kept until the process ends: data_files are read from it after this command.
        self.folder = tempfile.TemporaryDirectory(prefix='owled_ros-')
        staging = Path(self.folder.name, 'install')
        self._build(Path(self.folder.name, 'build'), staging)
        package = staging / 'python' / 'owled_ros'
        (package / '__init__.py').unlink()  # rosidl's empty one; ours is in the source tree
        if self.editable_mode:
            # Nothing generated in the source tree: owled_ros.msg lies in the environment.
            site_packages = 'lib/python{}.{}/site-packages'.format(*sys.version_info)
            self._add_data(package, Path(site_packages, 'owled_ros'))
        else:
            shutil.copytree(package, Path(self.build_lib, 'owled_ros'), dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns('__pycache__'))
        for folder in ('include', 'lib', 'share'):
            self._add_data(staging / folder, Path(folder))

    def _build(self, build, staging):
        prefixes = [*filter(None, [wheel_prefix()]),
                    *filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))]
        environment = {**os.environ, 'AMENT_PREFIX_PATH': os.pathsep.join(prefixes)}
        cmake = shutil.which('cmake')
        if cmake is None:
            raise SystemExit('owled_ros: cmake is not to be found; install it (pip install cmake)')
        for command in (
                [cmake, '-S', SOURCE, '-B', build, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release',
                 f'-DCMAKE_INSTALL_PREFIX={staging}', f'-DCMAKE_PREFIX_PATH={";".join(prefixes)}',
                 f'-DPython3_EXECUTABLE={sys.executable}', '-DPYTHON_INSTALL_DIR=python',
                 '-DBUILD_TESTING=OFF', '-DOWLED_BUILT_BY_PIP=ON'],
                [cmake, '--build', build],
                [cmake, '--install', build]):
            subprocess.run(command, env=environment, check=True)

    def _add_data(self, folder, target):
        for path in sorted(folder.rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                place = target / path.relative_to(folder).parent
                self.distribution.data_files.append((str(place), [str(path)]))

    def get_outputs(self):
        return []

    def get_source_files(self):
        return [str(path.relative_to(SOURCE)) for path in (SOURCE / 'msg').glob('*.msg')]


class PackageWithMessages(Distribution):
    """Makes setuptools treat the package as compiled; has_data is asked by editable installs."""

    def has_ext_modules(self):
        return True

    def has_data(self):
        return True


def wheel_prefix():
    """Return the prefix of the ROS 2 wheels that were installed for this build, or None."""
    spec = importlib.util.find_spec('ament_package')
    if spec is None or 'site-packages' not in Path(spec.origin).parts:
        return None
    return str(Path(spec.origin).parents[4])


setup(
    distclass=PackageWithMessages,
    cmdclass={'build_ext': BuildMessages},
    data_files=[],
)
