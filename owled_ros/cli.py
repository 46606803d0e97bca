"""The `owled` command: the package's work without a launch file.

Exit status: 0 done, 1 the answer is no, 2 something that the user can mend, said in one sentence.
"""

import argparse
import json
import math
import os
from pathlib import Path
import sys

from owled_ros.errors import UserError

# Imports of torch, rclpy and the rest are inside the commands: `owled --help` answers at once.


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parsed = build_parser().parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except UserError as error:
        if is_first():
            print(f'owled: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('owled: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:     # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def build_parser():
    parser = argparse.ArgumentParser(
        prog='owled', description='Drives from a camera with a pruned vision-language model.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for add in (add_demo_bag, add_format, add_calibrate, add_pack, add_replay, add_watch,
                add_render, add_evaluate, add_inspect, add_bench):
        add(commands)
    return parser


def add_command(commands, name, run, help, *examples):
    parser = commands.add_parser(
        name, help=help, description=help,
        epilog='\n'.join(f'example: {example}' for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(run=run)
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON, progress goes to standard error')
    return parser


def is_first():
    """Return whether this is the process that speaks, of those that torchrun may have started."""
    return os.environ.get('RANK', '0') == '0'


def reporter(arguments):
    """Where progress goes: not among the JSON."""
    if not is_first():
        return lambda text: None
    stream = sys.stderr if arguments.json else sys.stdout
    return lambda text: print(text, file=stream, flush=True)


def show(arguments, result, lines):
    """Print a result: JSON for programs, lines for people."""
    if not is_first():
        return
    if arguments.json:
        print(json.dumps(result, indent=2, default=str))
    else:
        print('\n'.join(lines))


# -- demo-bag ----------------------------------------------------------------------------------

def add_demo_bag(commands):
    parser = add_command(
        commands, 'demo-bag', demo_bag, 'write a bag of a rendered drive, with the truth in it',
        'owled demo-bag drive --seconds 40 --seed 7')
    parser.add_argument('output', type=Path, help='the bag to write; must not exist')
    parser.add_argument('--seconds', type=float, default=40.0, help='how long it is (40)')
    parser.add_argument('--seed', type=int, default=7, help='which world is driven through (7)')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument('--size', default='640x480', help='of the camera, WIDTHxHEIGHT (640x480)')


def demo_bag(arguments):
    from owled_ros.scenes.recording import record_drive
    width, height = parse_size(arguments.size)
    recording = record_drive(
        arguments.output, seconds=arguments.seconds, seed=arguments.seed, width=width,
        height=height, storage=arguments.storage, progress=reporter(arguments))
    show(arguments, vars(recording), [
        f'{recording.path}: {recording.frames} frames, {recording.seconds:.0f} s, '
        f'{recording.metres:.0f} m, {recording.stops} stops'])


def parse_size(text):
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(part.isdigit() and 32 <= int(part) <= 8192 for part in parts):
        raise UserError(f'the size {text!r} is not WIDTHxHEIGHT, each from 32 to 8192')
    return int(parts[0]), int(parts[1])


# -- format ------------------------------------------------------------------------------------

def add_format(commands):
    parser = add_command(
        commands, 'format', format_of, 'check in which words a model is asked and answers, and '
        'write driving_format.yaml where it has none', 'owled format ~/models/my_vlm')
    parser.add_argument('model', help="a directory, 'embedded', or a name on the hub")
    parser.add_argument('--size', default='640x480', help='of the camera, WIDTHxHEIGHT (640x480)')


def format_of(arguments):
    from dataclasses import asdict

    from owled_ros.driver.checkpoint import load_processor, locate
    from owled_ros.driver.format_check import check_format
    from owled_ros.driver.format_file import FORMAT_FILE
    from owled_ros.driver.prompt import DrivingFormat
    width, height = parse_size(arguments.size)
    directory = locate(arguments.model)
    driving_format = DrivingFormat.of_model(directory)
    processor = load_processor(directory)
    path = directory / FORMAT_FILE
    written = not path.exists()
    if written:
        if not Path(arguments.model).expanduser().is_dir():
            raise UserError(f'{arguments.model} is no directory to write {FORMAT_FILE} into; '
                            f'download the model into one of your own')
        driving_format.write(directory)
    found = check_format(processor, driving_format, width, height)
    show(arguments, {'path': str(path), 'written': written, **asdict(found)},
         [f'{path}: {"written, change it as you need" if written else "can be used"}',
          *format_lines(found, arguments.size)])


def format_lines(found, size):
    """Return what a FormatCheck says, for people."""
    of_frame = '' if found.image_tokens is None else f', {found.image_tokens} of them the frame'
    return [
        '', f'prompt, for example; {found.prompt_tokens} tokens with a frame of {size}{of_frame}:',
        *(f'  {line}' for line in found.prompt.splitlines()),
        '', 'answer, for example, up to the explanation:',
        *(f'  {line}' for line in found.answer.splitlines()),
        '', f'{"":14s} {"texts":>7s} {"tokens":>7s} {"decided":>8s}    at most',
        *(f'{field.name:14s} {field.texts:7d} {field.tokens:7d} {field.decisions:8d}'
          for field in found.fields),
        f'an action takes at most {found.action_tokens} tokens, of which the model decides '
        f'{found.decisions}; the others are given',
        *(f'note: {remark}' for remark in found.remarks)]


# -- calibrate ---------------------------------------------------------------------------------

def add_driver(parser):
    """Options that say on what a driver runs, and what it steers."""
    parser.add_argument('--wheelbase', type=float, default=2.7, help='m, for the steering (2.7)')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='auto',
                        help='float32, float16 or bfloat16 (auto: float32 on a CPU)')


def add_source(parser):
    """Options that say where in a bag things are."""
    parser.add_argument('--image-topic', default='/camera/image_raw')
    parser.add_argument('--odom-topic', default='/odom')
    parser.add_argument('--command-topic', default='', help='owled_ros/DrivingCommand (none)')
    parser.add_argument('--truth-topic', default='',
                        help='owled_ros/DrivingAction instead of the recorded motion (none)')
    parser.add_argument('--explanation-topic', default='', help='goes with --truth-topic (none)')
    parser.add_argument('--base-frame', default='base_link')
    parser.add_argument('--undistort', action='store_true',
                        help='undo the distortion that the camera info tells of')
    parser.add_argument('--field-of-view', type=float, default=0.0,
                        help='rad across that the model is shown, cropped by what the camera info '
                             'tells (0: all)')
    parser.add_argument('--camera-info-topic', default='',
                        help='sensor_msgs/CameraInfo (camera_info beside the images)')
    parser.add_argument('--horizon', type=float, default=1.0,
                        help='s of motion after a frame that make its action (1)')
    parser.add_argument('--max-ego-gap', type=float, default=0.1,
                        help='s without odometry that are bridged (0.1)')
    parser.add_argument('--max-command-age', type=float, default=2.0,
                        help='s that a command holds (2)')


def source_of(arguments):
    from owled_ros.bags.samples import Source
    return Source(
        image_topic=arguments.image_topic, odom_topic=arguments.odom_topic,
        base_frame=arguments.base_frame, horizon=arguments.horizon,
        max_ego_gap=arguments.max_ego_gap, max_command_age=arguments.max_command_age,
        command_topic=arguments.command_topic, truth_topic=arguments.truth_topic,
        explanation_topic=arguments.explanation_topic, undistort=arguments.undistort,
        field_of_view=arguments.field_of_view, camera_info_topic=arguments.camera_info_topic)


def add_calibrate(commands):
    parser = add_command(
        commands, 'calibrate', calibrate, 'prune a model on recorded drives, texts or images',
        'owled calibrate drive --model embedded --output pruned --sparsity 0.5',
        'owled calibrate drive --output pruned --method wanda --allocation owl '
        '--statistics sequential      # as published',
        'owled calibrate drive --output pruned --components all --component-sparsity vision=0.3',
        'owled calibrate drive --output pruned --sparsity 0.5 --pattern 2:4 --allocation uniform',
        "owled calibrate drive --output pruned --components language --exclude 'down_proj$'",
        'owled calibrate --text book.txt notes.txt --model my_llm --output pruned --samples 128',
        'owled calibrate --images photos --model my_vlm --output pruned')
    parser.add_argument('bags', nargs='*', type=Path, metavar='BAG',
                        help='rosbag2 directories (the options of a bag say where things are)')
    parser.add_argument('--model', default='embedded',
                        help="'embedded', a directory, or a name on the hub (embedded)")
    parser.add_argument('--output', type=Path, required=True, help='the directory to make')
    add_corpora(parser.add_argument_group('without bags, or beside them'))
    add_pruning(parser.add_argument_group('what is pruned, and how'))
    add_source(parser.add_argument_group('in a bag'))


def add_corpora(parser):
    """Options that say what is read: see owled_ros/corpora.py."""
    parser.add_argument('--text', nargs='+', type=Path, default=[], metavar='FILE',
                        help='text files, UTF-8')
    parser.add_argument('--tokens', type=int, default=512,
                        help='tokens of each piece of text (512)')
    parser.add_argument('--images', type=Path, metavar='DIR',
                        help='a folder of images; the captions of its metadata.jsonl, with '
                             'file_name and text in each line, are taught if it has one')
    parser.add_argument('--prompt', default='Describe this image.',
                        help='what the model is asked about an image (Describe this image.)')
    parser.add_argument('--samples', type=int, default=64,
                        help='frames, pieces or images to calibrate on (64)')
    parser.add_argument('--held-out', type=int, default=16,
                        help='others to measure the losses on (16)')


def add_pruning(parser):
    """Options for the fields of PruningSettings, which says more of each."""
    def add(name, kind, default, help, **more):
        shown = 'none' if default == [] else default
        parser.add_argument(f'--{name}', type=kind, default=default, help=f'{help} ({shown})',
                            **more)

    add('sparsity', float, 0.5, 'share of the prunable weights, from 0 to 0.99')
    add('method', str, 'admm', 'which weights go: admm, sparsegpt, wanda, magnitude, random')
    add('allocation', str, 'fisher', 'how blocks share the budget: fisher, owl, owl-projection, '
        'ablation, alphapruning, rising, uniform, random, shuffled')
    add('statistics', str, 'dense', 'of the inputs, dense: in the dense model; sequential: in the '
        'model as it is pruned, two passes more')
    add('pattern', str, 'unstructured', 'unstructured, or n:m to keep n of m neighbours')
    add('components', str, 'both', 'vision, projector, language, head, several of them with '
        'commas, both (vision,language), or all (the projector too)')
    add('component-sparsity', str, [], 'a budget of its own for a component, as '
        'in vision=0.3; may be given again', action='append', metavar='COMPONENT=SHARE')
    parser.add_argument('--joint', action='store_true',
                        help='the blocks of all components share one budget')
    add('include', str, [], 'prune only what this regular expression finds in the name of; may '
        'be given again', action='append', metavar='REGEX')
    add('exclude', str, [], 'leave dense what this regular expression finds in the name of; may '
        'be given again', action='append', metavar='REGEX')
    add('outlier-threshold', float, 5.0, "OWL's M: an outlier is above M times the mean score")
    add('outlier-width', float, 0.08, "OWL's lambda: block sparsities span at most 2 lambda")
    add('seed', int, 0, 'for whatever is drawn; the same seed gives the same bytes')
    add('minimum-samples', int, 4, 'fewer samples than this are refused')
    add('device', str, 'auto', 'auto, cpu or cuda')
    add('activation-bytes', int, 1 << 28, 'activations beyond this size go to the disk')


def settings_of(arguments):
    """Return the PruningSettings that the options say."""
    from dataclasses import fields

    from owled_ros.pruning.settings import parse_shares, PruningSettings
    values = {field.name: getattr(arguments, field.name) for field in fields(PruningSettings)}
    return PruningSettings(**{
        **values, 'component_sparsity': parse_shares(arguments.component_sparsity),
        'include': tuple(arguments.include), 'exclude': tuple(arguments.exclude)})


def calibrate(arguments):
    from owled_ros.calibration import calibrate as run
    from owled_ros.calibration import Request
    request = Request(
        output=arguments.output, model=arguments.model, bags=tuple(arguments.bags),
        source=source_of(arguments), texts=tuple(arguments.text), tokens=arguments.tokens,
        images=arguments.images, prompt=arguments.prompt, samples=arguments.samples,
        held_out=arguments.held_out, pruning=settings_of(arguments))
    report = run(request, reporter(arguments))
    sparsity, loss = report['sparsity'], report['loss']
    show(arguments, report, [
        f'{arguments.output}: sparsity {sparsity["measured"]:.4f} of {sparsity["requested"]} '
        f'requested, {sparsity["pruned_weights"]} of {sparsity["prunable_weights"]} weights',
        f'loss a token: {loss["dense"]:.4f} dense, {loss["pruned"]:.4f} pruned',
        f'report: {arguments.output / "report.html"}'])


# -- pack --------------------------------------------------------------------------------------

def add_pack(commands):
    parser = add_command(
        commands, 'pack', pack, 'write a pruned model anew, its pruned projections without their '
        'zeros, for the driving node', 'owled pack pruned --output packed')
    parser.add_argument('model', help="'embedded', a directory, or a name on the hub")
    parser.add_argument('--output', type=Path, required=True, help='the directory to make')


def pack(arguments):
    from owled_ros.pack import pack_model
    written = pack_model(arguments.model, arguments.output, reporter(arguments))
    show(arguments, written, [
        f'{written["output"]}: {written["projections"]} projections packed in '
        f'{written["packed_bytes"]} bytes, {written["packed_share"]:.1%} of 16 bit dense',
        f'all weights: {written["bytes"]} bytes, '
        f'{written["bytes"] / written["original_bytes"]:.1%} of the '
        f'{written["original_bytes"]} that they were; hash {written["hash"]}'])


# -- replay ------------------------------------------------------------------------------------

def add_replay(commands):
    parser = add_command(
        commands, 'replay', replay, 'play a bag into the ROS graph, with /clock',
        'owled replay drive --rate 1.0 --wait-for /camera/image_raw/compressed')
    parser.add_argument('bag', type=Path)
    parser.add_argument('--rate', type=float, default=1.0, help='times real time (1)')
    parser.add_argument('--start', type=float, default=0.0, help='s into the bag (0)')
    parser.add_argument('--loop', action='store_true', help='again and again, until interrupted')
    parser.add_argument('--no-clock', action='store_true', help='publish no /clock')
    parser.add_argument('--topics', nargs='+', default=(), help='only these')
    parser.add_argument('--wait-for', nargs='+', default=(),
                        help='topics that somebody must listen to before it starts')


def replay(arguments):
    from owled_ros.ros.replay import replay as run
    summary = run(
        arguments.bag, rate=arguments.rate, start=arguments.start, loop=arguments.loop,
        clock=not arguments.no_clock, topics=tuple(arguments.topics),
        wait_for=tuple(arguments.wait_for), report=reporter(arguments))
    show(arguments, summary, [f'{count:6d}  {topic}'
                              for topic, count in sorted(summary['messages'].items())])


# -- watch -------------------------------------------------------------------------------------

def add_watch(commands):
    parser = add_command(
        commands, 'watch', watch, 'show the actions and explanations of a ROS graph as they come',
        'owled watch', 'owled watch --seconds 10 --json')
    parser.add_argument('--seconds', type=float, default=math.inf,
                        help='how long (until interrupted)')


def watch(arguments):
    from owled_ros.ros.watching import watch as run
    if not arguments.seconds > 0:
        raise UserError(f'seconds ({arguments.seconds}) must be positive')
    heard = run(arguments.seconds, sys.stderr if arguments.json else sys.stdout)
    show(arguments, heard, [])
    if not any(topic['messages'] for topic in heard.values()):
        print('owled: no action and no explanation was heard; start a driving node, and check that '
              'ROS_DOMAIN_ID is the same here and there', file=sys.stderr)
        return 1


# -- render ------------------------------------------------------------------------------------

def add_render(commands):
    parser = add_command(
        commands, 'render', render,
        'drive on the frames of a bag, and write a film of what would have been done',
        'owled render drive --output drive.mp4',
        'owled render drive --model pruned --output drive.gif --start 10 --seconds 8 --rate 5 '
        '--width 480')
    parser.add_argument('bag', type=Path)
    parser.add_argument('--model', default='embedded',
                        help="'embedded', a directory, or a name on the hub (embedded)")
    parser.add_argument('--output', type=Path, required=True,
                        help='the .mp4 or .gif to write; must not exist')
    parser.add_argument('--start', type=float, default=0.0, help='s into the drive (0)')
    parser.add_argument('--seconds', type=float, default=math.inf, help='how long (to the end)')
    parser.add_argument('--width', type=int, default=640, help='pixels (640)')
    parser.add_argument('--rate', type=float, default=0.0,
                        help='pictures a second (as many as the camera made)')
    parser.add_argument('--explain-every', type=float, default=1.0,
                        help='s between two explanations (1)')
    add_driver(parser)
    add_source(parser)


def render(arguments):
    from owled_ros.bags.samples import Drive
    from owled_ros.driver.driver import Driver
    from owled_ros.film.files import check_path
    from owled_ros.film.rendering import Cut, render_drive
    if not arguments.wheelbase > 0:
        raise UserError(f'wheelbase ({arguments.wheelbase}) must be positive')
    cut = Cut(arguments.start, arguments.seconds, arguments.width, arguments.rate,
              arguments.explain_every)
    check_path(arguments.output)
    drive = Drive(arguments.bag, source_of(arguments))
    driver = Driver.load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    rendered = render_drive(driver, drive, arguments.output, cut, wheelbase=arguments.wheelbase,
                            progress=reporter(arguments))
    show(arguments, vars(rendered), [
        f'{rendered.path}: {rendered.seconds:.1f} s, {rendered.pictures} pictures of '
        f'{rendered.frames} frames, {rendered.refused} without an action'])


# -- evaluate ----------------------------------------------------------------------------------

def add_evaluate(commands):
    parser = add_command(
        commands, 'evaluate', evaluate,
        'measure a model on rendered scenes that it has never seen, or on a bag',
        'owled evaluate embedded --scenes 1000',
        'owled evaluate embedded --closed-loop --drives 200 --seconds 60',
        'owled evaluate embedded --table results --quick')
    parser.add_argument('model', help="'embedded', a directory, or a name on the hub")
    parser.add_argument('--scenes', type=int, default=1000, help='how many scenes (1000)')
    parser.add_argument('--bag', type=Path, action='append', default=[],
                        help='a bag instead of scenes; may be given again')
    parser.add_argument('--blind', action='store_true',
                        help='show grey images: what can be answered without seeing')
    parser.add_argument('--closed-loop', action='store_true',
                        help='drive through rendered worlds by its own answers instead')
    parser.add_argument('--drives', type=int, default=200,
                        help='goes with --closed-loop: how many drives (200)')
    parser.add_argument('--seconds', type=float, default=60.0,
                        help='goes with --closed-loop: s of each drive (60)')
    parser.add_argument('--table', type=Path, metavar='DIR',
                        help='prune it by every method at many sparsities instead, and write '
                             'what that does into DIR; goes on where it was stopped')
    parser.add_argument('--quick', action='store_true',
                        help='goes with --table: small enough to see that it works, in DIR/quick')
    parser.add_argument('--beside', action='append', default=[], metavar='NAME=MODEL',
                        help='goes with --table: another model to measure too, as half=DIR')
    add_driver(parser)
    add_source(parser)


def evaluate(arguments):
    from owled_ros.driver.memory import reuse_freed
    reuse_freed()
    if arguments.table:
        return evaluate_table(arguments)
    if arguments.closed_loop:
        return evaluate_closed_loop(arguments)
    return evaluate_open_loop(arguments)


def evaluate_table(arguments):
    from dataclasses import asdict, replace

    from owled_ros.evaluation.table import Plan, Table
    from owled_ros.evaluation.table_report import write_table
    check_closed_loop(arguments)
    beside = dict(pair.split('=', 1) for pair in arguments.beside if '=' in pair)
    if len(beside) < len(arguments.beside):
        raise UserError(f'--beside {" ".join(arguments.beside)} is not NAME=MODEL, each name once')
    folder = arguments.table / 'quick' if arguments.quick else arguments.table
    plan = Plan.quick() if arguments.quick else replace(
        Plan(), scenes=arguments.scenes, drives=arguments.drives, seconds=arguments.seconds)
    table = Table(arguments.model, folder, plan, beside=beside, device=arguments.device,
                  dtype=arguments.dtype, progress=reporter(arguments))
    bars = write_table(folder, *table.run(), plan, table.model.name)
    show(arguments, {'table': str(folder / 'table.md'),
                     'bars': [asdict(bar) for bar in bars]},
         [f'{"not measured" if bar.met is None else "met" if bar.met else "missed":12s} '
          f'{bar.name}: {bar.value}' for bar in bars] + [f'{folder / "table.md"}'])


def check_closed_loop(arguments):
    if arguments.scenes < 1:
        raise UserError(f'scenes ({arguments.scenes}) must be positive')
    if arguments.drives < 1 or not 1 <= arguments.seconds <= 60:
        raise UserError(f'drives ({arguments.drives}) must be positive and seconds '
                        f'({arguments.seconds}) from 1 to 60, where the worlds end')
    if arguments.bag or arguments.blind:
        raise UserError('a bag or grey images cannot be driven through; leave out --bag and '
                        '--blind, or --closed-loop and --table')


def evaluate_closed_loop(arguments):
    from owled_ros.driver.driver import Driver
    from owled_ros.evaluation.closed_loop import drive_closed_loop, record, summarise
    check_closed_loop(arguments)
    driver = Driver.load(arguments.model, device=arguments.device, dtype=arguments.dtype,
                         backend='transformers')  # drives are decided in batches
    outcomes, experts = drive_closed_loop(driver, arguments.drives, arguments.seconds,
                                          progress=reporter(arguments))
    ours, expert = summarise(outcomes), summarise(experts)
    show(arguments, {'model': f'{driver.name} {driver.hash}', 'seconds': arguments.seconds,
                     'driver': ours, 'expert': expert, 'outcomes': record(outcomes)},
         [f'{"":24s} {"driver":>8s} {"expert":>8s}']
         + [f'{name:24s} {ours[name]:8.3f} {expert[name]:8.3f}' for name in ours
            if name != 'drives'])


def evaluate_open_loop(arguments):
    from owled_ros.driver.driver import Driver
    from owled_ros.evaluation.metrics import measure
    from owled_ros.evaluation.open_loop import ask, time_driver, weight_bytes
    if arguments.scenes < 1 or not arguments.wheelbase > 0:
        raise UserError(f'scenes ({arguments.scenes}) and wheelbase ({arguments.wheelbase}) must '
                        f'be positive')
    progress = reporter(arguments)
    driver = Driver.load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    cases, total = evaluation_cases(arguments)
    if arguments.blind:
        cases = (case.blind() for case in cases)
    answers = ask(driver, cases, total=total, progress=progress)
    if not answers:
        raise UserError(f'no frame of {", ".join(map(str, arguments.bag))} can be used; check the '
                        f'topics and the odometry')
    metrics = {**measure(answers, arguments.wheelbase),
               **time_driver(driver, evaluation_cases(arguments)[0]),
               'weight_bytes': weight_bytes(arguments.model)}
    show(arguments, {'model': f'{driver.name} {driver.hash}', **metrics}, [
        f'{name:34s} {value:.4f}' if isinstance(value, float) else f'{name:34s} {value}'
        for name, value in metrics.items() if not (isinstance(value, float)
                                                   and math.isnan(value))])


def evaluation_cases(arguments):
    """Return the cases to ask about, and how many, as far as it is known."""
    from owled_ros.evaluation.cases import sample_cases, scene_cases
    if not arguments.bag:
        return scene_cases(arguments.scenes), arguments.scenes
    from dataclasses import asdict

    from owled_ros.bags.samples import read_samples
    return sample_cases(read_samples(arguments.bag, **asdict(source_of(arguments)))), None


# -- inspect -----------------------------------------------------------------------------------

def add_inspect(commands):
    parser = add_command(
        commands, 'inspect', inspect, "show a model's blocks, sparsities, bytes and hash",
        'owled inspect pruned')
    parser.add_argument('model', help="'embedded', a directory, or a name on the hub")


def inspect(arguments):
    from owled_ros.driver.checkpoint import locate
    from owled_ros.pruning.inspection import inspect_model
    found = inspect_model(locate(arguments.model))
    lines = [f'{found["directory"]}', f'hash {found["hash"]}, {found["bytes"]} bytes, '
             f'{found["parameters"]} parameters', '']
    lines += [f'{block["component"]:9s} {block["name"]:44s} {block["weights"]:10d} weights  '
              f'{block["zeros"] / block["weights"]:7.2%} zero' for block in found['blocks']]
    total = sum(block['weights'] for block in found['blocks'])
    zeros = sum(block['zeros'] for block in found['blocks'])
    lines += [f'{"all":54s} {total:10d} weights  {zeros / max(total, 1):7.2%} zero']
    show(arguments, found, lines)


# -- bench -------------------------------------------------------------------------------------

def add_bench(commands):
    parser = add_command(
        commands, 'bench', bench,
        'measure what packed weights give on this computer: single projections, and a whole model',
        'owled bench qwen-0.5b --plot bench.png', 'owled bench pruned --json')
    parser.add_argument('model', help="a model's directory, 'embedded', or the name of a size "
                        'whose weights are drawn: smolvlm-256m, qwen-0.5b, smolvlm-2.2b, '
                        'qwen2.5-vl-3b, 7b')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each contestant (5)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (auto)')
    parser.add_argument('--layers', type=int,
                        help='of a size, where the memory does not hold the whole model (all)')
    parser.add_argument('--plot', type=Path, help='draw ratios and times into this PNG')


def bench(arguments):
    from owled_ros.driver.checkpoint import choose_device
    from owled_ros.sparse import bench as sparse_bench
    if arguments.rounds < 1:
        raise UserError(f'rounds ({arguments.rounds}) must be positive')
    result = sparse_bench.bench_named(
        arguments.model, device=choose_device(arguments.device), rounds=arguments.rounds,
        progress=reporter(arguments), layers=arguments.layers)
    if arguments.plot:
        sparse_bench.plot(result['projections'], arguments.plot, result['model'])
    show(arguments, result, [])


if __name__ == '__main__':
    sys.exit(main())
