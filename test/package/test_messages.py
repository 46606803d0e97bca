"""The messages are those of the design, and say what owled_ros.driver.action says."""

from pathlib import Path
import re

from owled_ros.driver.action import Limits, LimitsApplied, Maneuver, Route, Status
from owled_ros.msg import DrivingAction, DrivingCommand, Explanation, ModelInfo
import pytest

SOURCES = sorted(Path(__file__).parents[2].joinpath('msg').glob('*.msg'))

FIELDS = {
    DrivingAction: {
        'header': 'std_msgs/Header', 'published': 'builtin_interfaces/Time',
        'sequence': 'uint64', 'status': 'uint8', 'reason': 'string', 'acceleration': 'float',
        'curvature': 'float', 'steering_angle': 'float', 'target_speed': 'float',
        'horizon': 'builtin_interfaces/Duration', 'maneuver': 'uint8', 'limits_applied': 'uint8',
        'confidence': 'float', 'latency': 'builtin_interfaces/Duration',
        'compute_time': 'builtin_interfaces/Duration', 'valid_for': 'builtin_interfaces/Duration',
        'model': 'string'},
    Explanation: {
        'header': 'std_msgs/Header', 'action_sequence': 'uint64', 'text': 'string',
        'complete': 'boolean', 'confidence': 'float', 'model': 'string'},
    ModelInfo: {
        'header': 'std_msgs/Header', 'name': 'string', 'hash': 'string',
        'requested_sparsity': 'float', 'measured_sparsity': 'float', 'backend': 'string',
        'backend_reason': 'string', 'wheelbase': 'float',
        **{f'limit_{name}': 'float' for name in vars(Limits())}},
    DrivingCommand: {
        'header': 'std_msgs/Header', 'route': 'uint8', 'speed_limit': 'float'},
}

CONSTANTS = {
    DrivingAction: {
        **Status.__members__, **Maneuver.__members__,
        **{f'LIMIT_{bit.name}': bit for bit in LimitsApplied if bit}},
    Explanation: {},
    ModelInfo: {},
    DrivingCommand: dict(Route.__members__),
}


def constants_of(message):
    return {name: getattr(message, name) for name in vars(type(message))
            if name.isupper() and not name.startswith('_')}


@pytest.mark.parametrize('message', FIELDS)
def test_fields_are_those_of_the_design(message):
    assert message.get_fields_and_field_types() == FIELDS[message]


@pytest.mark.parametrize('message', CONSTANTS)
def test_constants_are_those_of_the_core(message):
    assert constants_of(message) == CONSTANTS[message]


def test_a_blank_action_is_not_an_order():
    blank = DrivingAction()
    assert blank.status == DrivingAction.UNKNOWN != DrivingAction.OK
    assert blank.maneuver == DrivingAction.NONE
    assert blank.valid_for.sec == blank.valid_for.nanosec == 0


def test_a_blank_command_only_follows_the_road():
    assert DrivingCommand().route == DrivingCommand.FOLLOW


@pytest.mark.parametrize('source', SOURCES, ids=lambda path: path.stem)
def test_every_field_and_constant_is_explained(source):
    lines = [line for line in source.read_text().splitlines() if line and line[0] != '#']
    assert lines
    for line in lines:
        assert re.search(r'\S +# \S', line), f'{source.name}: no comment on: {line}'
