"""Parameters: what is refused, when, and in which words."""

from diagnostic_msgs.msg import DiagnosticStatus
from owled_ros.msg import DrivingAction
from owled_ros.ros.parameters import ANY_TIME, BY_NAME, CONFIGURE, PARAMETERS, START
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rig import CALM


def test_changes_while_it_drives(start):
    rig = start()
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    for name, value, words in (
            ('autostart', False, 'read-only'),
            ('image_transport', 'compressed', 'read-only'),
            ('model', 'other', 'while the node is unconfigured'),
            ('wheelbase', 3.0, 'while the node is unconfigured'),
            ('deadline', 1000.0, 'range'),
            ('deadline', 9.5, 'valid_for'),
            ('limits.emergency_deceleration', 1.0, 'at least as large'),
            ('deadline', 'soon', '')):
        refused = rig.set(name, value)
        assert not refused.successful, name
        assert words in refused.reason, refused.reason
    assert rig.set('limits.acceleration', 0.2).successful
    since = len(rig.actions)
    rig.drive(lambda: rig.statuses(since).count(DrivingAction.OK) >= 3, 'actions')
    assert rig.actions[-1].acceleration <= 0.2
    assert rig.actions[-1].limits_applied & DrivingAction.LIMIT_ACCELERATION
    assert abs(rig.infos[-1].limit_acceleration - 0.2) < 1e-6


def test_a_request_that_makes_no_sense_does_not_end_the_node(start):
    rig = start()
    rig.wait_until_heard()
    for kind in (200, 255):     # there are no such types
        message = ParameterMessage(name='deadline', value=ParameterValue(type=kind))
        for service, request in (
                (SetParameters, SetParameters.Request(parameters=[message])),
                (SetParametersAtomically, SetParametersAtomically.Request(parameters=[message]))):
            name = ('set_parameters' if service is SetParameters else 'set_parameters_atomically')
            assert not any(r.successful for r in getattr(
                rig.call(service, name, request), 'results', []))
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    assert 'a request failed: ValueError' in rig.words()
    assert rig.state() == 'active'


def test_they_are_checked_together_at_configure(start):
    rig = start(autostart=False, deadline=0.2)
    assert not rig.change('configure')
    assert ('not configured: parameter max_frame_age (3 s) is more than deadline (0.2 s): '
            'a frame that old could not be answered in time') in rig.words()
    assert rig.set('max_frame_age', 0.1).successful
    assert 'one of: auto' in rig.set('backend', 'fast').reason  # alone it is checked at once
    assert rig.change('configure')


@pytest.mark.parametrize('overrides, words', [
    ({'wheelbase': 99.0}, 'wheelbase'),
    ({'undistort': True, 'camera_info_topic': 'the lens'}, "'the lens'"),
    ({'odom_type': 'twst'}, "parameter odom_type is 'twst'; it must be one of: odometry"),
    ({'image_transport': 'foo'}, "parameter image_transport is 'foo'; it must be one of: raw"),
    ({'outputs': 'foo'}, "parameter outputs names 'foo'"),
])
def test_an_impossible_override_ends_the_node_with_a_sentence(start, overrides, words):
    rig = start(**overrides)
    assert rig.process.wait(30) == 2
    assert words in rig.words() and 'Traceback' not in rig.words()


def test_overrides_without_a_parameter_are_named(start):
    rig = start(autostart=False, use_sim_time=True, start_type_description_service=True, **{
        'wheelbse': 2.0, 'limits.sped': 3.0, 'strange': 1, 'jerk': 1.0,
        'qos_overrides./odom.publisher.depth': 5})
    rig.wait(lambda: 'parameters that this node does not have' in rig.words(), 'a warning')
    assert ('parameters that this node does not have were set for it: jerk (do you mean '
            'limits.jerk?), limits.sped (do you mean limits.speed?), strange, '
            'wheelbse (do you mean wheelbase?)\n') in rig.words()
    assert rig.words().count('parameters that this node does not have') == 1


def test_overrides_that_all_have_a_parameter_are_not_spoken_of(start):
    rig = start(use_sim_time=True, **{'limits.speed': 3.0})
    rig.wait_until_heard()
    assert 'parameters that this node does not have' not in rig.words()


@pytest.mark.parametrize('autostart', [True, False])
def test_a_failed_configure_is_an_error_in_diagnostics_where_nobody_asked_for_it(start, autostart):
    rig = start(autostart=autostart, valid_for=0.3)
    if not autostart:
        assert not rig.change('configure')
    words = 'not configured: parameter deadline (4 s) is more than valid_for (0.3 s)'
    rig.wait(lambda: words in rig.words(), 'the failure')
    rig.diagnostics.clear()

    def levels():
        return {status.name.split()[-1]: (status.level, status.message)
                for array in rig.diagnostics for status in array.status}

    rig.wait(lambda: len(rig.diagnostics) > 2, 'diagnostics')
    level, message = levels().pop('model')
    if not autostart:
        assert (level, message) == (DiagnosticStatus.OK, 'not loaded')
        return
    assert level == DiagnosticStatus.ERROR and message.startswith(words)
    assert rig.set('valid_for', 9.0).successful and rig.change('configure')
    rig.diagnostics.clear()
    rig.wait(lambda: levels().get('model') == (DiagnosticStatus.OK, 'loaded'), 'its end')


def another(parameter):
    """Return a value that `parameter` may have, next to its default."""
    if isinstance(parameter.default, bool):
        return not parameter.default
    if isinstance(parameter.default, str):
        return parameter.choices[-1] if parameter.choices else 'other'
    if isinstance(parameter.default, int):
        return parameter.default + 1
    return parameter.default * 1.001


def test_every_parameter_changes_when_it_may_and_says_so_when_it_may_not(start):
    rig = start(**{name: BY_NAME[name].default for name in CALM if name in BY_NAME})
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    for parameter in PARAMETERS:
        if parameter.name in ('deadline', 'valid_for', 'image_width', 'image_height'):
            continue  # only together with others
        result = rig.set(parameter.name, another(parameter))
        assert result.successful == (parameter.changes == ANY_TIME), (parameter, result.reason)
        words = {START: 'read-only', CONFIGURE: 'while the node is unconfigured', ANY_TIME: ''}
        assert words[parameter.changes] in result.reason
    alone = rig.set('image_width', 32)
    assert not alone.successful and 'go together' in alone.reason
    assert rig.set_together(image_width=32, image_height=24).successful
    assert not rig.set_together(deadline=0.7, valid_for=0.65).successful
    assert rig.set_together(deadline=0.7, valid_for=0.95).successful
    assert rig.set_together(image_width=9, image_height=9).successful
    since = len(rig.actions)
    rig.drive(lambda: rig.heard(DrivingAction.INVALID_INPUT, since, 'instead of 9x9'), 'a refusal')
    assert rig.state() == 'active'
