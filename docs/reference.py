#!/usr/bin/env python3
"""Write docs/reference.md from the code.

Topics are those of nodes that are made here, parameters their tables, messages the .msg files, and
commands the parsers of `owled`. Only what the files are for is written here. After a change of any
of these run `python docs/reference.py`: a test compares the page with what it makes.
"""

import argparse
from pathlib import Path
import re

from owled_ros import calibration_node
from owled_ros.cli import build_parser
from owled_ros.driver.format_file import FORMAT_FILE
from owled_ros.driving_node import DrivingNode
from owled_ros.ros import parameters, qos
from owled_ros.ros.messages import ODOMETRY_TYPES
from owled_ros.ros.planner_outputs import OUTPUTS
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

PAGE = Path(__file__).with_name('reference.md')
MESSAGES = PAGE.parents[1] / 'msg'
OF_ROS = ('/rosout', '/parameter_events', '/clock')
NAMESPACE = '/any'
# Each makes the driving node listen to other topics.
VARIANTS = ({}, {'image_transport': 'compressed'},
            {'odom_type': parameters.SPEED_STEERING, 'undistort': True})
# What the type does not say. A topic that is not here fails the making of the page.
NOTES = {
    'image': 'the camera, with `image_transport` `raw`',
    'image/compressed': 'the camera, with `image_transport` `compressed`: `/compressed` after the '
                        'name that `image` is remapped to',
    'camera_info': 'with `undistort` or `field_of_view`',
    'odom': 'motion of the vehicle, in `base_frame`; the type by `odom_type`: ' + ', '.join(
        f'`{name}` `{package}/{message}`' for name, (package, message) in ODOMETRY_TYPES.items()),
    'speed': f'with `odom_type` `{parameters.SPEED_STEERING}`: m/s',
    'steering': f'with `odom_type` `{parameters.SPEED_STEERING}`: rad at the front wheels, left '
                'positive',
    'command': 'route and speed limit; optional',
    'owled/action': 'for planners; check `status == OK` first',
    'owled/explanation': 'for people',
    'owled/info': 'which model drives, how sparse, with which limits',
    'owled/debug_image/compressed': 'drawn while somebody listens',
    '/diagnostics': 'every second',
}
FILES = (
    ('file', 'where', 'what it is'),
    ('`owled.json`', 'in a pruned model', 'what was done, on which data, with which result: '
     '[its keys](pruning.md#what-is-written)'),
    ('`report.html`, `blocks.png`, `projections.png`, `samples.png`', 'in a pruned model',
     'the same for people; `report.html` needs nothing but itself'),
    ('`.NAME.partial`', 'beside the output `NAME`', 'an unfinished calibration, '
     '[which goes on when it is run again](pruning.md#stopped-and-run-again)'),
    (f'`{FORMAT_FILE}`', 'in a model, optional', 'how the model is asked and in which words it '
     f"answers; [the embedded model's](../owled_ros/assets/embedded/{FORMAT_FILE}) is an example"),
    ('`config.json`, `*.safetensors`, tokenizer and processor', 'in any model',
     'as transformers writes them; nothing is unpickled, and no code of a model runs'),
    ('`packed.safetensors`', 'in what `owled pack` wrote',
     '[all weights, the pruned projections packed](sparse-runtime.md#packed-directories)'),
    ('`driving.yaml`, `calibration.yaml`', '[config/](../config)',
     'every parameter with its default, to copy and to give as `params_file`'),
    ('`table.md`, `table.csv`, `cells/`', 'of `owled evaluate --table`',
     '[results of the table](evaluation.md#the-table)'),
)


def reference():
    """Return the text of the page."""
    return '\n'.join([
        """\
# Reference

Made by `docs/reference.py` from the code; a test keeps the two the same.

- [Topics](#topics)
- [Parameters of the driving node](#parameters-of-the-driving-node)
- [Parameters of the calibration node](#parameters-of-the-calibration-node)
- [Messages](#messages)
- [Commands](#commands)
- [Files](#files)

## Topics

Of the driving node. Names without a leading slash are relative: they are remapped, and lie in the
node's namespace. Reliability and depth of all but `/diagnostics` can be overridden by the
parameters `qos_overrides.*`.
""", *topics(), """
The calibration node listens to the topics that its parameters name, where it has no bag.

## Parameters of the driving node

*start*: read only. *configure*: while the node is unconfigured. *any time*: also while it drives.
""", *driving_parameters(), """
## Parameters of the calibration node

What a value must be is checked at `configure`. *start*: read only.
""", *calibration_parameters(), """
## Messages
""", *messages(), """\
## Commands

Exit status: 0 done; 1 the answer is no; 2 something that the user can mend, said in one sentence;
130 interrupted. Every command has `--help`, and `--json`: the result as JSON, progress on standard
error. What stands in parentheses is the default.
""", *commands(), """\
## Files
""", *table(*FILES), ''])


def table(*rows):
    """Yield a table of Markdown; the first row is its head."""
    for number, row in enumerate(rows):
        cells = (str(cell).replace('|', r'\|').replace('<', '&lt;') for cell in row)
        yield '| ' + ' | '.join(cells) + ' |'
        if number == 0:
            yield '|' + '---|' * len(row)


def code(value):
    return f'`{value}`' if value != '' else ''


# -- topics ------------------------------------------------------------------------------------

def topics():
    rows = {}
    for variant in VARIANTS:
        for topic, *row in topics_of(variant):
            rows.setdefault(topic, (code(topic), *row, NOTES[topic]))
    rows = [*rows.values(), *(
        (code(output.topic), code(f'{output.package}/{output.message}'), 'out',
         quality(qos.PLANNER_OUTPUT), f'an action that is `OK`, where `outputs` names `{name}`')
        for name, output in OUTPUTS.items())]
    return table(('topic', 'type', '', 'QoS', ''),
                 *sorted(rows, key=lambda row: (row[2], row[0].strip('`/').startswith('diag'))))


def topics_of(values):
    """Yield (topic, type, in or out, QoS) of a driving node with these parameters."""
    context = Context()
    rclpy.init(args=[], context=context)
    node = DrivingNode(context=context, namespace=NAMESPACE, parameter_overrides=[
        Parameter(name, value=value) for name, value in {**values, 'autostart': False}.items()])
    try:
        for direction, ends in (('in', node.subscriptions), ('out', node.publishers)):
            for end in ends:
                topic = end.topic_name.removeprefix(f'{NAMESPACE}/')
                # bond is there only where its messages are installed.
                if topic not in (*OF_ROS, 'bond') and not topic.startswith(node.get_name()):
                    package = end.msg_type.__module__.split('.')[0]
                    yield (topic, code(f'{package}/{end.msg_type.__name__}'), direction,
                           quality(end.qos_profile))
    finally:
        node.destroy_node()
        context.try_shutdown()


def quality(profile):
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    lease = profile.liveliness_lease_duration.nanoseconds / 1e9
    return ', '.join(filter(None, [
        'reliable' if reliable else 'best effort', 'transient local' if latched else '',
        f'depth {profile.depth}', f'liveliness lease {lease:g} s' if 0 < lease < 1e6 else '']))


# -- parameters --------------------------------------------------------------------------------

def driving_parameters():
    return table(('parameter', 'default', 'range', 'may change', ''), *(
        (code(parameter.name), shown(parameter.default), span(parameter), parameter.changes,
         parameter.description) for parameter in parameters.PARAMETERS))


def shown(default):
    """Return a default as a parameter file has it."""
    return code({'': "''", True: 'true', False: 'false'}.get(default, default)
                if isinstance(default, (str, bool)) else default)


def span(parameter):
    if parameter.choices:
        return ', '.join(map(code, parameter.choices))
    return '' if parameter.low is None else f'{parameter.low:.9g} to {parameter.high:.9g}'


def calibration_parameters():
    return table(('parameter', 'default', 'may change', ''), *(
        (code(name), shown(default),
         'start' if name in calibration_node.READ_ONLY else 'configure', description)
        for name, (default, description) in calibration_node.PARAMETERS.items()))


# -- messages ----------------------------------------------------------------------------------

def messages():
    for file in sorted(MESSAGES.glob('*.msg')):
        yield from message(file)


def message(file):
    """Yield the section of a .msg file: what it says of itself, its constants, its fields."""
    yield from (f'### {file.stem}', '')
    rows, said = [], []
    for line in [*file.read_text().splitlines(), '']:
        definition, _, comment = (part.strip() for part in line.partition('#'))
        if definition:
            kind, name, value = re.fullmatch(r'(\S+)\s+(\w+)(?:=(\S+))?', definition).groups()
            rows.append((code(name), code(kind) if value is None else value, comment))
        elif comment and not rows:
            said.append(comment)
        else:   # the end of a paragraph, and of what it is about
            yield from (' '.join(said), '') if said else ()
            if rows:
                head = ('field', 'type') if rows[0][1].startswith('`') else ('constant', 'value')
                yield from (*table((*head, ''), *rows), '')
            rows, said = [], [comment] if comment else []


# -- commands ----------------------------------------------------------------------------------

def commands():
    subparsers, = (action for action in build_parser()._actions
                   if isinstance(action, argparse._SubParsersAction))
    for name, parser in subparsers.choices.items():
        yield from command(name, parser)


def command(name, parser):
    """Yield the section of a command: what it does, its arguments, its examples."""
    purpose = parser.description
    yield from (f'### owled {name}', '', f'{purpose[0].upper()}{purpose[1:]}.', '')
    rows = [(code(' '.join([*action.option_strings[:1], *values(action)])),
             action.help or told_default(action))
            for action in parser._actions if action.dest not in ('help', 'json')]
    yield from table(('argument', ''), *rows)
    examples = [line.removeprefix('example: ') for line in parser.epilog.splitlines()]
    yield from ('', '```', *examples, '```', '')


def told_default(action):
    """Return what stands for the help of an option that explains itself."""
    return f'({action.default})' if action.option_strings else ''


def values(action):
    """Return what follows an option, or the name of an argument."""
    if action.nargs == 0:
        return []
    name = action.metavar or (
        ' or '.join(action.choices) if action.choices else
        action.dest.upper() if action.option_strings else action.dest)
    return [f'{name} ...' if action.nargs in ('+', '*') else name]


if __name__ == '__main__':
    PAGE.write_text(reference())
