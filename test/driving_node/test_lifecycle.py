"""Transitions, and ways in which they fail."""

import threading

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from owled_ros.msg import DrivingAction


def test_every_transition_by_service(start):
    rig = start(autostart=False)
    assert rig.state() == 'unconfigured'
    assert not rig.change('activate')
    assert rig.change('configure') and rig.state() == 'inactive'
    assert rig.change('activate') and rig.state() == 'active'
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    assert rig.change('deactivate') and rig.state() == 'inactive'
    assert rig.change('activate')
    since = len(rig.actions)
    rig.drive(lambda: rig.heard(DrivingAction.OK, since), 'an action of the second activation')
    assert rig.change('deactivate') and rig.change('cleanup')
    assert rig.state() == 'unconfigured'
    assert rig.change('shutdown') and rig.state() == 'finalized'
    rig.wait(lambda: rig.statuses().count(DrivingAction.INACTIVE) >= 3, 'INACTIVE')
    assert rig.statuses().count(DrivingAction.INACTIVE) == 3


def test_a_failed_configure_is_one_sentence_and_can_be_repeated(start):
    rig = start('nowhere')
    rig.wait(lambda: 'not configured' in rig.words(), 'the failure')
    assert 'not configured: the model nowhere is not there; name one that is' in rig.words()
    assert rig.state() == 'unconfigured'
    assert rig.set('model', 'scripted:broken_load=1').successful
    assert not rig.change('configure')
    assert 'not configured: RuntimeError: CUDA out of memory\n' in rig.words()
    assert 'Traceback' not in rig.words()
    assert rig.state() == 'unconfigured'
    assert rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')


def test_the_services_answer_during_a_long_configure(start):
    rig = start('scripted:load=4', autostart=False)
    rig.state()  # so that the services are found
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(rig.change('configure')))
    thread.start()
    rig.wait(lambda: rig.state() == 'configuring', 'the configuring state')
    assert not rig.change('configure')
    assert 'another one is still running' in rig.words()
    # Nor can a client end the transition in the worker's name.
    success = ChangeState.Request()
    success.transition.id = Transition.TRANSITION_ON_CONFIGURE_SUCCESS
    assert not rig.call(ChangeState, 'change_state', success).success
    refused = rig.set('model', 'other')
    assert not refused.successful and 'unconfigured' in refused.reason
    assert not outcome
    thread.join()
    assert outcome == [True] and rig.state() == 'inactive'


def test_two_cameras_in_one_graph(start):
    """Two nodes in namespaces of their own: neither hears, names or ends the other."""
    left, right = (start(namespace=name, deadline=1.0, max_frame_age=1.0)
                   for name in ('left', 'right'))
    for rig in (left, right):
        rig.wait_until_heard()
    left.drive(lambda: left.statuses().count(DrivingAction.OK) >= 3, 'actions on the left')
    right.wait(lambda: right.actions, 'the watchdog on the right')
    assert set(right.statuses()) == {DrivingAction.NO_INPUT}
    right.drive(lambda: right.statuses().count(DrivingAction.OK) >= 3, 'actions on the right')
    assert left.change('deactivate') and right.state() == 'active'
    second = {status.name for message in right.diagnostics for status in message.status}
    assert {'left/driving_node: model', 'right/driving_node: model'} <= second
    left.process.kill()
    since = len(right.actions)
    right.drive(lambda: right.statuses(since).count(DrivingAction.OK) >= 3, 'more of them')
    assert right.process.poll() is None
