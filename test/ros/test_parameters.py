"""The table of parameters against the file that users edit, and against itself."""

from pathlib import Path

from owled_ros.errors import UserError
from owled_ros.ros.parameters import BY_NAME, check_change, CONFIGURE, PARAMETERS, Settings
import pytest
import yaml

CONFIG = Path(__file__).parents[2] / 'config' / 'driving.yaml'


def defaults(**changed):
    return {parameter.name: parameter.default for parameter in PARAMETERS} | changed


def flat(tree, prefix=''):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value


def test_the_configuration_file_lists_every_default():
    listed = dict(flat(yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']))
    assert listed == defaults()
    for name, value in listed.items():
        assert type(value) is type(BY_NAME[name].default), name


def test_every_parameter_is_described():
    for parameter in PARAMETERS:
        descriptor = parameter.descriptor()
        assert descriptor.description
        if isinstance(parameter.default, float):
            assert descriptor.floating_point_range[0].from_value < \
                descriptor.floating_point_range[0].to_value
        elif type(parameter.default) is int:
            assert descriptor.integer_range[0].to_value > 0


def test_defaults_go_together():
    settings = Settings(defaults())
    assert settings.limits.speed == 16.7
    assert settings.max_frame_age <= settings.deadline <= settings.valid_for <= settings.horizon


@pytest.mark.parametrize('changed, words', [
    ({'image_transport': 'theora'}, 'one of: raw, compressed'),
    ({'deadline': float('nan')}, 'between'),
    ({'deadline': 2.0}, 'more than valid_for'),
    ({'valid_for': 5.0}, 'more than horizon'),
    ({'hang_limit': 0.5}, 'deadline .* more than hang_limit'),
    ({'limits.emergency_deceleration': 2.0}, 'at least as large'),
    ({'image_width': 640}, 'image_height .* go together'),
    ({'diagnostics.error.frame_rate': 9.0}, 'frame_rate .9. is less bad'),
    ({'diagnostics.warn.temperature': 99.0}, 'temperature .95. is less bad'),
    ({'model': ''}, 'model is empty'),
    ({'base_frame': ''}, 'base_frame is empty'),
])
def test_one_sentence_for_what_cannot_be(changed, words):
    with pytest.raises(UserError, match=words) as raised:
        Settings(defaults(**changed))
    assert '\n' not in str(raised.value)


def test_what_needs_an_unconfigured_node():
    fixed = [parameter.name for parameter in PARAMETERS if parameter.changes == CONFIGURE]
    check_change({name: BY_NAME[name].default for name in fixed}, unconfigured=True)
    check_change({'deadline': 0.4}, unconfigured=False)
    for name in fixed:
        with pytest.raises(UserError, match=name):
            check_change({name: BY_NAME[name].default}, unconfigured=False)
