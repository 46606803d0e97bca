"""Every command that a page shows is run, or its arguments are checked, or it is said why not.

A fenced block without a language, or of one of SHELLS, is a block of commands. Each of them stands
in one of the three tables below, as it is written, without its comment.
"""

import argparse
import os
from pathlib import Path
import re
import runpy
import shlex
import shutil
import sys
from types import ModuleType, SimpleNamespace

from owled_ros.bags.types import typestore
from owled_ros.bags.writing import METADATA_VERSION
from owled_ros.cli import build_parser, main
from owled_ros.driver.checkpoint import locate
import pytest
import rclpy
from rclpy.context import Context
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('deploy/**/*.md'),
                *ROOT.glob('training/*.md'), *ROOT.glob('examples/**/*.md')])
SHELLS = ('', 'sh', 'bash')
OTHERS = ('python', 'text', 'yaml', 'json', 'cpp', 'ini', 'xml')

# Run in a temporary folder, on a bag of 3 s with small pictures and a model pruned on it, with
# these options added, which make it shorter: the last of several counts.
FEW = '--method magnitude --allocation uniform --samples 4 --held-out 1'
RUN = {
    'owled calibrate drive --model embedded --output pruned --sparsity 0.5': FEW,
    'owled calibrate drive --output pruned --components all --component-sparsity vision=0.3': FEW,
    'owled calibrate drive --output pruned --components language --exclude down_proj$': FEW,
    'owled calibrate drive --output pruned --sparsity 0.5 --pattern 2:4 --allocation uniform': FEW,
    'owled calibrate my_drive --model ~/models/my_vlm --output pruned '
    '--image-topic /front/image_raw --odom-topic /vehicle/odom --sparsity 0.5': FEW,
    'owled calibrate my_drive --model my_vlm --output pruned --sparsity 0.5': FEW,
    'owled demo-bag drive --seconds 40 --seed 7': '--seconds 1 --size 64x48',
    'owled evaluate embedded --blind': '--scenes 4',
    'owled evaluate embedded --closed-loop --drives 200 --seconds 60 --dtype bfloat16':
        '--drives 1 --seconds 1 --dtype float32',
    'owled evaluate embedded --scenes 2000': '--scenes 4',
    'owled evaluate pruned --bag drive': '',
    'owled evaluate pruned --bag drive --truth-topic /owled/truth '
    '--explanation-topic /owled/truth_explanation': '',
    'owled evaluate pruned --bag my_drive --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom': '',
    'owled evaluate ~/models/my_vlm --bag my_drive --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom': '',
    'owled format ~/models/my_vlm --size 1280x720': '',
    'owled format ~/models/my_vlm': '',
    'owled inspect demo/pruned': '',
    'owled inspect pruned': '',
    'owled pack pruned --output packed': '',
    'owled render demo/bag --model demo/pruned --output drive.mp4': '--seconds 1',
    'owled render drive --model pruned --output drive.gif --start 10 --seconds 8 --rate 5 '
    '--width 480': '--start 1 --seconds 1',
    'owled render drive --output drive.mp4': '--seconds 1',
    'owled render my_drive --model ~/models/my_vlm --output my_drive.mp4 '
    '--image-topic /front/image_raw --odom-topic /vehicle/odom': '--seconds 1',
}

# Not run, but their arguments are those that the program, or the launch file, takes.
LONG = 'takes minutes to hours'
ENDLESS = 'a node, which runs until it is interrupted'
ALIKE = 'nearly the same is run'
LISTENER = 'waits for a node that listens'
DRIVE = 'ros2 launch owled_ros driving.launch.py '
CHECKED = {
    'benchmarks/decode.py --json decode.json --plot decode.png': LONG,
    'benchmarks/decode.py --device cuda --json decode-gpu.json': 'needs a GPU',
    'benchmarks/latency.py --json latency.json': LONG,
    'owled bench pruned --json': LONG,
    'owled bench 7b --layers 8': LONG,
    'owled bench qwen-0.5b --plot bench.png': LONG,
    'owled calibrate --images photos --model my_vlm --output pruned':
        'test/calibration_node/test_corpora.py reads images',
    'owled calibrate --text book.txt notes.txt --model my_llm --output pruned --samples 128':
        'test/calibration_node/test_corpora.py reads texts',
    'owled calibrate drive --output pruned --method wanda --allocation owl '
    '--statistics sequential': 'test/pruning/test_pipeline.py runs it',
    'owled calibrate my_drive --output pruned --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom --sparsity 0.5': ALIKE,
    'owled demo-bag my_drive --seconds 60 --seed 11': ALIKE,
    'owled evaluate embedded --bag my_drive --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom': ALIKE,
    'owled evaluate embedded --closed-loop --drives 200 --seconds 60': ALIKE,
    'owled evaluate embedded --scenes 1000': ALIKE,
    'owled evaluate pruned --scenes 200': ALIKE,
    'owled replay demo/bag --loop --wait-for /camera/image_raw/compressed': LISTENER,
    'owled replay drive --rate 1.0 --wait-for /camera/image_raw/compressed': LISTENER,
    'owled watch': 'test/ros/test_watching.py runs it',
    'owled watch --seconds 10 --json': 'test/ros/test_watching.py runs it',
    'python -m owled_ros.driving_node --ros-args -p model:=$PWD/demo/pruned '
    '-p image_transport:=compressed -p use_sim_time:=true -r image:=/camera/image_raw '
    '-r odom:=/odom': ENDLESS,
    'python3 examples/planner.py --ros-args -r odom:=/vehicle/odom -r cmd_vel:=/planner/cmd_vel':
        ENDLESS,
    f'{DRIVE}image_topic:=/front/image_raw image_transport:=compressed '
    'odom_topic:=/vehicle/twist odom_type:=twist': ENDLESS,
    f'{DRIVE}model:=$PWD/demo/pruned image_transport:=compressed '
    'image_topic:=/camera/image_raw odom_topic:=/odom use_sim_time:=true': ENDLESS,
    f'{DRIVE}model:=$PWD/pruned image_topic:=/front/image_raw image_transport:=compressed '
    'odom_topic:=/vehicle/odom': ENDLESS,
    f'{DRIVE}model:=$PWD/pruned model_hash:=0123456789ab image_topic:=/front/image_raw '
    'odom_topic:=/vehicle/odom': ENDLESS,
    'owled evaluate embedded --table results --quick': LONG,
    'owled evaluate pruned --bag my_other_drive --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom': 'the same with my_drive is run',
    'owled evaluate ~/models/my_vlm --bag my_other_drive --image-topic /front/image_raw '
    '--odom-topic /vehicle/odom': 'the same with my_drive is run',
    'owled evaluate embedded --table results --dtype bfloat16 --beside half=RUN-HALF/model': LONG,
    'python benchmarks/calibration_cost.py --part time --repetitions 2 --json FILE': LONG,
    'python benchmarks/calibration_cost.py --part time --samples 8 --repetitions 1 --only '
    'OWL with dense --json FILE': LONG,
    'python benchmarks/calibration_cost.py --part memory --only OWL with dense --threads 1 '
    '--memory-products bf16 --memory-blocks 1 --json FILE': LONG,
    'python benchmarks/calibration_cost.py --quick': LONG,
    'python benchmarks/perplexity.py --work DIR --json docs/results/perplexity.json '
    '--plot docs/results/perplexity.png': LONG,
    'python benchmarks/perplexity.py --work DIR --quick': LONG,
    'python benchmarks/perplexity.py --work DIR --report': 'needs what is finished in DIR',
    'python benchmarks/perplexity.py --work DIR --verify': LONG,
    'python training/train.py --data DATA --output RUN --render 14 --scenes 1000000 --batch 256 '
    '--learning-rate 1.6e-3 --steps 30000 --dense-steps 4000 --decay 10000': LONG,
    'python training/train.py --data DATA --output RUN --render 2': LONG,
    'python training/write_card.py RUN/model': LONG,
    'ros2 launch owled_ros calibration.launch.py bag:=drive model:=embedded output:=pruned '
    'sparsity:=0.5': 'needs ros2 launch',
    f'{DRIVE}image_topic:=/camera/image_raw odom_topic:=/odom': ENDLESS,
    f'{DRIVE}model:=$PWD/pruned image_topic:=/front/image_raw odom_topic:=/vehicle/odom': ENDLESS,
    'ros2 run owled_ros driving_node --ros-args --enclave /owled_ros/driving_node': ENDLESS,
    'script/demo': LONG,
    'script/fault-campaign --faults 2000 --seed 1 --json seed1.json': LONG,
    'script/fault-campaign --sum seed1.json seed2.json': 'needs what runs of the campaign wrote',
    'script/soak --minutes 60 --output soak': LONG,
    'torchrun --nproc-per-node 2 -m owled_ros.cli calibrate my_drive --model my_vlm '
    '--output pruned': 'test/pruning/test_processes.py runs it',
}

# Programs of others, and the shell's own words.
SHELL = 'the shell'
INSTALLS = 'installs, from a network'
THEIRS = "ROS 2's own, not in its wheels"
COVERAGE = 'runs the tests themselves'
NOT_CHECKED = {
    '. .venv/enter': 'made by script/setup',
    '. install/setup.bash': 'made by colcon',
    '. ~/owled_venv/bin/activate': 'made by venv',
    '/usr/bin/python3 -m venv --system-site-packages ~/owled_venv':
        "with ROS 2's own Python, as in deploy/Dockerfile",
    'python -c import numpy; print("numpy<%d" % (int(numpy.__version__.split(".")[0]) + 1)) '
    '> constraints.txt': 'as in deploy/Dockerfile',
    'python test/faults/broken_nodes.py': 'half an hour; test/faults looks for its guards',
    'cd ..': SHELL,
    'cd ~/ws/src': SHELL,
    'colcon build --cmake-args -DPython3_EXECUTABLE=$HOME/owled_venv/bin/python3':
        'test/package/test_builds.py runs it with another Python',
    'colcon build --packages-select owled_ros --install-base /opt/owled':
        'test/package/test_builds.py runs the like',
    'colcon build --packages-up-to owled_planner_cpp': 'needs rclcpp',
    'cp -r src/owled_ros/examples/planner_cpp src/': SHELL,
    'export ROS_SECURITY_KEYSTORE=$PWD/keystore ROS_SECURITY_ENABLE=true '
    'ROS_SECURITY_STRATEGY=Enforce': SHELL,
    'git clone <this repository> owled_ros': INSTALLS,
    'hf download HuggingFaceTB/SmolVLM-256M-Instruct --local-dir ~/models/my_vlm '
    '--exclude onnx/*': INSTALLS,
    'pip install -e .': INSTALLS,
    'pip install -c constraints.txt -r src/owled_ros/requirements.txt': INSTALLS,
    'pip install gguf accelerate': INSTALLS,
    'pip install torchvision num2words': INSTALLS,
    'python -m coverage combine': COVERAGE,
    'python -m coverage report '
    '--include=owled_ros/driver/*,owled_ros/ros/*,owled_ros/driving_node.py': COVERAGE,
    'python -m coverage run -m pytest test/driver test/ros test/driving_node test/fuzzing':
        COVERAGE,
    'ros2 bag record --output my_drive /front/image_raw/compressed /front/camera_info '
    '/vehicle/odom': THEIRS,
    'ros2 run owled_planner_cpp planner --ros-args -r odom:=/vehicle/odom '
    '-r cmd_vel:=/vehicle/cmd_vel': 'needs rclcpp',
    'ros2 topic pub --once /engage std_msgs/msg/Bool {data: true}': THEIRS,
    'ros2 run rqt_image_view rqt_image_view /owled/debug_image/compressed': THEIRS,
    'ros2 security create_enclave keystore /owled_ros/driving_node': THEIRS,
    'ros2 security create_keystore keystore': THEIRS,
    'ros2 security create_permission keystore /owled_ros/driving_node '
    '$(ros2 pkg prefix --share owled_ros)/config/sros2_policy.xml': THEIRS,
    'python -m mkdocs build --strict': 'test/docs/test_site.py runs it',
    'python docs/architecture.py': 'no arguments',
    'python docs/debug_image.py': 'no arguments',
    'python docs/reference.py': 'no arguments; test/docs/test_reference.py runs it',
    'rosdep install --from-paths src --ignore-src '
    '--skip-keys python3-pytorch-pip python3-rosbags-pip python3-transformers-pip': INSTALLS,
    'rviz2 -d $(ros2 pkg prefix --share owled_ros)/config/owled.rviz': THEIRS,
    'script/test': COVERAGE,
    'script/test-matrix test/ros': COVERAGE,
    'script/test test/pruning -x': COVERAGE,
}


def blocks(page):
    """Return (language, text) of every fenced block of a page."""
    return re.findall(r'^ *```(\S*) *\n(.*?)^ *``` *$', page.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(text):
    """Return the words of each command in a block, without what is set for it beforehand."""
    commands = []
    for line in text.replace('\\\n', ' ').splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=';&|')
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ';']:
            if set(word) - set(';&|'):
                if words or not re.match(r'\w+=', word):
                    words.append(word)
            elif words:
                commands.append(words)
                words = []
    return commands


SHOWN = {' '.join(words): (words, page.relative_to(ROOT)) for page in PAGES
         for language, text in blocks(page) if language in SHELLS
         for words in commands_of(text)}


def test_every_command_is_accounted_for():
    tables = [*RUN, *CHECKED, *NOT_CHECKED]
    assert len(tables) == len(set(tables)), 'a command stands in two tables'
    new = {text: str(page) for text, (_, page) in SHOWN.items() if text not in tables}
    assert new == {}, 'put these into one of the three tables of test_commands.py'
    assert sorted(set(tables) - set(SHOWN)) == [], 'no page shows these any longer'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    assert page.read_text().count('```') == 2 * len(blocks(page)), 'a block is not closed'
    for language, text in blocks(page):
        assert language in SHELLS + OTHERS, text


def test_the_words_of_commands():
    assert commands_of('cd a && A=1 run \\\n  --b "c d"   # e && f\n\nx | y;z\n') == [
        ['cd', 'a'], ['run', '--b', 'c d'], ['x'], ['y'], ['z']]


# -- run ---------------------------------------------------------------------------------------

def copy_with_other_names(bag, copy):
    """Write a bag whose messages have the topics of `bag`, and others too."""
    others = {'/camera/image_raw/compressed': '/front/image_raw/compressed',
              '/odom': '/vehicle/odom'}
    with Reader(bag) as reader, Writer(copy, version=METADATA_VERSION,
                                       storage_plugin=StoragePlugin.MCAP) as writer:
        written = {(connection.id, topic): writer.add_connection(
            topic, connection.msgtype, typestore=typestore())
            for connection in reader.connections
            for topic in {connection.topic, others.get(connection.topic, connection.topic)}}
        for connection, stamp, data in reader.messages():
            for (number, _), target in written.items():
                if number == connection.id:
                    writer.write(target, stamp, data)


@pytest.fixture(scope='module')
def things(tmp_path_factory):
    """Make a folder with everything that the commands on the pages name."""
    folder = tmp_path_factory.mktemp('things')
    assert main(['demo-bag', str(folder / 'drive'), '--seconds', '3', '--size', '160x120']) == 0
    assert main(['calibrate', str(folder / 'drive'), '--output', str(folder / 'pruned'),
                 *FEW.split()]) == 0
    copy_with_other_names(folder / 'drive', folder / 'my_drive')
    for name in ('my_vlm', 'models/my_vlm'):    # copies: a command may write into them
        shutil.copytree(locate('embedded'), folder / name)
    (folder / 'demo').mkdir()
    (folder / 'demo' / 'bag').symlink_to(folder / 'drive')
    (folder / 'demo' / 'pruned').symlink_to(folder / 'pruned')
    return folder


def output_of(words):
    """Return the path that a command of owled writes, or None."""
    if words[1] == 'demo-bag':
        return Path(words[2])
    return Path(words[words.index('--output') + 1]) if '--output' in words else None


@pytest.mark.parametrize('text', RUN)
def test_commands_that_are_run(text, things, tmp_path, monkeypatch, ros_domain):
    if text not in SHOWN:
        pytest.skip('no page shows it')     # another test fails of that
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('PWD', str(tmp_path))
    words = [os.path.expandvars(os.path.expanduser(word)) for word in SHOWN[text][0]]
    output = output_of(words)
    for thing in things.iterdir():
        if output != Path(thing.name):
            (tmp_path / thing.name).symlink_to(thing)
    assert words[0] == 'owled'
    assert main([*words[1:], *RUN[text].split()]) == 0
    assert output is None or output.exists()


# -- checked -----------------------------------------------------------------------------------

class Parsed(Exception):
    """A program has read its arguments, and is to do nothing more."""


def check_program(program, words, monkeypatch):
    """Start a Python program of the repository up to the point where its arguments are read."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_end(parser, *arguments):
        parse_args(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_end)
    monkeypatch.setattr(sys, 'argv', [str(program), *words])
    monkeypatch.syspath_prepend(program.parent)
    known = set(sys.modules)
    try:
        with pytest.raises(Parsed):
            runpy.run_path(str(program), run_name='__main__')
    except ModuleNotFoundError as error:
        pytest.skip(f'{error.name} is not installed')
    finally:
        for name in set(sys.modules) - known:   # others have modules of the same names
            if str(ROOT) in str(getattr(sys.modules[name], '__file__', '')) \
                    and not name.startswith('owled_ros'):
                del sys.modules[name]


def check_script(script, words, monkeypatch):
    """Check a script that hands its arguments to a Python program, or is one."""
    program = re.search(r'^exec python (\S+)', script.read_text(), re.MULTILINE)
    check_program(ROOT / program[1] if program else script, words, monkeypatch)


def launch_arguments(file, monkeypatch):
    """Return {name: choices} of a launch file, whether or not `ros2 launch` is installed."""
    def module(name, **contents):
        stand_in = ModuleType(name)
        vars(stand_in).update(contents)
        monkeypatch.setitem(sys.modules, name, stand_in)

    def declared(name, choices=None, **_):
        return SimpleNamespace(name=name, choices=choices)

    nothing = dict.fromkeys(('Node', 'ParameterValue', 'LaunchConfiguration'))
    module('launch', LaunchDescription=list)
    module('launch.actions', DeclareLaunchArgument=declared, OpaqueFunction=SimpleNamespace)
    module('launch.substitutions', **nothing)
    module('launch_ros')
    module('launch_ros.actions', **nothing)
    module('launch_ros.parameter_descriptions', **nothing)
    module('ament_index_python')
    module('ament_index_python.packages', get_package_share_directory=lambda name: str(ROOT))
    entities = runpy.run_path(str(file))['generate_launch_description']()
    return {entity.name: entity.choices for entity in entities if hasattr(entity, 'name')}


def check_launch(words, monkeypatch):
    file = ROOT / 'launch' / words[0]
    known = launch_arguments(file, monkeypatch)
    for word in words[1:]:
        name, given, value = word.partition(':=')
        assert given and name in known, f'{word}: {file.name} has {sorted(known)}'
        assert not known[name] or value in known[name], f'{word}: one of {known[name]}'


def check_ros_arguments(words):
    """Check what follows `--ros-args` as rclpy does."""
    context = Context()
    rclpy.init(args=words, context=context)     # raises where it cannot be understood
    context.try_shutdown()


def check_node(words):
    """Check the name of a node of this package, and the parameters that are set."""
    check_ros_arguments(words[1:])
    from owled_ros import calibration_node
    from owled_ros.ros import parameters
    known = {'driving_node': parameters.BY_NAME,
             'calibration_node': calibration_node.PARAMETERS}[words[0]]
    for option, word in zip(words, words[1:]):
        if option == '-p':
            assert word.partition(':=')[0] in {*known, 'use_sim_time'}, word


def check(words, monkeypatch):
    """Fail unless the arguments of a command are such that its program takes."""
    program, *rest = words
    if program == 'owled':
        build_parser().parse_args(rest)
    elif program == 'torchrun':
        from torch.distributed.run import get_args_parser
        started = get_args_parser().parse_args(rest)
        assert started.module and started.training_script == 'owled_ros.cli'
        check(['owled', *started.training_script_args], monkeypatch)
    elif program == 'ros2' and rest[:2] == ['launch', 'owled_ros']:
        check_launch(rest[2:], monkeypatch)
    elif program == 'ros2' and rest[:2] == ['run', 'owled_ros']:
        check_node(rest[2:])
    elif program in ('python', 'python3') and rest[0] == '-m':
        check_node([rest[1].removeprefix('owled_ros.'), *rest[2:]])
    elif program in ('python', 'python3') and '--ros-args' in rest:
        assert (ROOT / rest[0]).is_file()
        check_ros_arguments(rest[1:])
    elif program in ('python', 'python3'):
        check_program(ROOT / rest[0], rest[1:], monkeypatch)
    else:
        check_script(ROOT / program, rest, monkeypatch)


@pytest.mark.parametrize('text', CHECKED)
def test_arguments_of_commands_that_are_not_run(text, monkeypatch, ros_domain):
    if text not in SHOWN:
        pytest.skip('no page shows it')     # another test fails of that
    check(SHOWN[text][0], monkeypatch)


@pytest.mark.parametrize('text', [
    'owled evaluate', 'owled inspect pruned --nonsense', 'script/soak --hours 1',
    'script/demo now', 'python benchmarks/latency.py --nonsense',
    'torchrun --nproc-per-node 2 -m owled_ros.cli inspect',
    'ros2 launch owled_ros driving.launch.py image:=/front',
    'ros2 launch owled_ros driving.launch.py image_transport:=theora',
    'ros2 run owled_ros driving_node --ros-args -p dedline:=0.5',
    'python3 examples/planner.py --ros-args -p odom'])
def test_wrong_arguments_are_found(text, monkeypatch, ros_domain):
    with pytest.raises((SystemExit, AssertionError, RuntimeError)):
        check(text.split(), monkeypatch)


def options_of(command):
    """Return the options of `owled COMMAND`, or None where there is no such command."""
    subparsers, = [action for action in build_parser()._actions
                   if isinstance(action, argparse._SubParsersAction)]
    parser = subparsers.choices.get(command)
    return parser and set(parser._option_string_actions)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_a_sentence_have_the_options_that_they_name(page):
    prose = re.sub(r'^ *```.*?^ *```', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for command, rest in re.findall(r'`owled ([\w-]+)([^`]*)`', prose):
        known = options_of(command)
        assert known is not None, f'owled {command}'
        assert set(re.findall(r'(?<!\S)--[\w-]+', rest)) <= known, f'owled {command}{rest}'
