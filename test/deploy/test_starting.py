"""What starts the node on a vehicle names things that are there: script, unit, Dockerfiles."""

import configparser
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / 'deploy'
DOCKERFILES = sorted(DEPLOY.glob('Dockerfile*'))
UNIT = DEPLOY / 'owled-driving.service'

NODE = """#!/usr/bin/env bash
printf '%s\\n' "$SOURCED" "$$" "$@"
exit 7
"""


def environment_file():
    lines = (DEPLOY / 'driving.env').read_text().splitlines()
    return dict(line.split('=', 1) for line in lines if line and line[0] != '#')


@pytest.fixture
def install(tmp_path):
    """Write what colcon would have installed, with a node that says how it was started."""
    folder = tmp_path / 'install'
    node = folder / 'owled_ros' / 'lib' / 'owled_ros' / 'driving_node'
    node.parent.mkdir(parents=True)
    node.write_text(NODE)
    node.chmod(0o755)
    (folder / 'setup.bash').write_text('[ -n "$NOT_SET" ] || export SOURCED=yes\n')
    return folder


def drive(install, *arguments, **environment):
    """Return the lines that the node said, the process id that was given, and its status."""
    process = subprocess.Popen(
        [DEPLOY / 'drive', *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={'PATH': os.environ['PATH'], 'OWLED_INSTALL': str(install), **environment})
    out, error = process.communicate(timeout=30)
    return out.splitlines(), process.pid, process.returncode, error


def test_the_script_becomes_the_node(install):
    said, started, status, error = drive(install)
    assert status == 7, error
    assert said[:3] == ['yes', str(started), '--ros-args']
    parameters = said[said.index('--params-file') + 1]
    assert parameters == f'{install}/owled_ros/share/owled_ros/config/driving.yaml'


def test_the_script_passes_on_what_the_environment_says(install):
    file = environment_file()
    said, _, _, _ = drive(install, '-p', 'device:=cpu', **{**file, 'OWLED_INSTALL': str(install)})
    assert said[-2:] == ['-p', 'device:=cpu']
    assert said[said.index('--params-file') + 1] == file['PARAMS_FILE']
    remappings = file['REMAPPINGS'].split()
    assert len(remappings) == 3
    for remapping in remappings:
        assert said[said.index(remapping) - 1] == '-r'


def test_the_remapped_topics_are_those_of_the_node():
    """By the SROS2 policy, which test_policy.py compares with the running node."""
    profile, = [profile for profile in
                ElementTree.parse(ROOT / 'config' / 'sros2_policy.xml').iter('profile')
                if profile.get('node') == 'driving_node']
    heard = {topic.text for topics in profile.iter('topics') if topics.get('subscribe')
             for topic in topics}
    assert {remapping.partition(':=')[0]
            for remapping in environment_file()['REMAPPINGS'].split()} <= heard


def test_the_script_says_what_is_missing(tmp_path):
    _, _, status, error = drive(tmp_path / 'nowhere')
    assert status != 0 and 'nowhere/setup.bash' in error


def test_every_variable_in_the_file_is_used():
    told = (DEPLOY / 'drive').read_text()
    known = {'ROS_DOMAIN_ID', 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'}
    assert {name for name in environment_file() if name not in known} == \
        set(re.findall(r'\$\{(\w+):-', told))


def test_the_executable_is_the_one_that_is_installed():
    assert 'install_executable(driving_node driving_node lib/${PROJECT_NAME})' in \
        (ROOT / 'CMakeLists.txt').read_text()
    assert '$install/owled_ros/lib/owled_ros/driving_node' in (DEPLOY / 'drive').read_text()


# The unit -----------------------------------------------------------------------------------

@pytest.fixture
def unit():
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def test_the_unit_keeps_the_node_when_the_model_is_killed(unit):
    service = unit['Service']
    assert service['OOMPolicy'] == 'continue'
    assert service['ExecStart'] == f'{environment_file()["OWLED_INSTALL"]}/drive'
    assert service['Restart'] == 'always' and unit['Unit']['StartLimitIntervalSec'] == '0'
    status = re.search(r'^USER_ERROR = (\d+) ',
                       (ROOT / 'owled_ros' / 'ros' / 'starting.py').read_text(), re.M)[1]
    assert service['RestartPreventExitStatus'] == status


@pytest.mark.skipif(shutil.which('systemd-analyze') is None, reason='there is no systemd-analyze')
def test_systemd_understands_the_unit(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace('=/opt/owled/drive', f'={DEPLOY / "drive"}'))
    done = subprocess.run(['systemd-analyze', 'verify', copy], text=True, capture_output=True)
    assert done.returncode == 0 and UNIT.name not in done.stderr, done.stderr


# The Dockerfiles ----------------------------------------------------------------------------

def instructions(file):
    """Return (word, arguments) of each instruction, continued lines joined."""
    text = re.sub(r'\\\n', ' ', re.sub(r'^#.*\n', '', file.read_text(), flags=re.MULTILINE))
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def requirements():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    return {re.match(r'[\w-]+', line)[0] for line in lines if line and line[0] != '#'}


def commands(file):
    """Return the commands of all RUN instructions, split into words."""
    found = []
    for word, arguments in instructions(file):
        if word == 'RUN':
            found.append([])
            for part in shlex.split(arguments):
                found.append([]) if part == '&&' else found[-1].append(part)
    return found


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request):
    return request.param


def test_what_is_copied_is_there(dockerfile):
    sources = {source for word, arguments in instructions(dockerfile) if word == 'COPY'
               for source in arguments.split()[:-1]}
    assert all((ROOT / source).exists() for source in sources), sources
    # All that the build needs, by test_builds.py, but for what only pip reads.
    assert {'CMakeLists.txt', 'LICENSE', 'package.xml', 'config', 'launch', 'msg', 'owled_ros',
            'resource', 'requirements.txt', 'deploy/drive'} == sources


def test_pip_installs_the_requirements_and_nothing_else(dockerfile):
    installs = [command for command in commands(dockerfile) if command[:2] == ['pip', 'install']]
    assert len(installs) == 1
    words = [word for word in installs[0][2:] if word != '--no-cache-dir']
    assert words[-2:] == ['-r', '/tmp/requirements.txt']
    assert words[:-2] in ([], ['-c', '/tmp/constraints.txt'])
    for command in commands(dockerfile):
        if command[:2] == ['pip', 'uninstall']:
            assert not {word for word in command[2:] if word[0] != '-'} & requirements()


def test_ros_packages_are_those_of_the_manifest(dockerfile):
    declared = {element.text for element in ElementTree.parse(ROOT / 'package.xml').getroot()
                if element.tag.endswith('depend')}
    named = {word for command in commands(dockerfile) for word in command
             if word.startswith('ros-${ROS_DISTRO}-')}
    packages = {word.removeprefix('ros-${ROS_DISTRO}-').replace('-', '_') for word in named}
    assert 'cv_bridge' in packages
    assert packages - {'ros_base'} <= declared


def test_the_container_starts_as_the_unit_does(dockerfile):
    found = instructions(dockerfile)
    assert found[-1] == ['CMD', '["/opt/owled/drive"]']
    assert ['COPY', 'deploy/drive /opt/owled/drive'] in found
    assert any(word == 'USER' and not arguments.startswith(('0', 'root'))
               for word, arguments in found)
    assert '--install-base /opt/owled ' in dockerfile.read_text()
