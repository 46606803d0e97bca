"""SIGINT and SIGTERM end the process soon, whatever the model does, and INACTIVE is said."""

import signal
import time

from owled_ros.msg import DrivingAction
import pytest
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from rig import PROGRAM

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

SOON = 2.0  # s


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_while_driving(start, number):
    rig = start('scripted:delay=0.1', program=PROGRAM)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    status, seconds = rig.signal(number)
    assert status == 0 and seconds < SOON
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
    assert rig.statuses()[-1] == DrivingAction.INACTIVE
    assert f'ends on {number.name}' in rig.words() and 'Traceback' not in rig.words()


def up(rig):
    """Wait for the node's publisher of actions and its services, so that somebody is told."""
    rig.wait(lambda: rig.node.count_publishers('owled/action'), 'a publisher of actions')
    rig.wait(lambda: rig.state(), 'its services')


def configuring(rig):
    up(rig)
    rig.wait(lambda: rig.state() == 'configuring', 'the configuring state')


def hanging(rig):
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.DEADLINE_MISSED), 'the watchdog')


def explaining(rig):
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action, and the long words after it')


def given_up(rig):
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.INACTIVE), 'the end of patience')


def deactivated(rig):
    rig.wait_until_heard()
    rig.wait(lambda: rig.state() == 'active', 'the active state')
    assert rig.change('deactivate')


def cleaned_up(rig):
    deactivated(rig)
    assert rig.change('cleanup')


def left_behind(rig):
    """Leave a worker to hang that the node does not even know any more."""
    hanging(rig)
    assert rig.change('deactivate') and rig.change('cleanup')
    assert rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')


FAST = {'deadline': 0.5, 'max_frame_age': 0.5}


@pytest.mark.parametrize('moment, number, script, parameters', [
    (configuring, signal.SIGINT, 'scripted:load=60', {}),
    (configuring, signal.SIGTERM, 'scripted:warm=60', {}),
    (hanging, signal.SIGTERM, 'scripted:hang_at=1', FAST),
    (explaining, signal.SIGINT, 'scripted:words=9,pause=30', {}),
    (given_up, signal.SIGTERM, 'scripted:hang_at=1', FAST | {'hang_limit': 1.0}),
    (left_behind, signal.SIGINT, 'scripted:hang_at=1', FAST),
    (deactivated, signal.SIGINT, 'scripted', {}),
    (cleaned_up, signal.SIGTERM, 'scripted', {}),
    (up, signal.SIGINT, 'scripted', {'autostart': False}),
    (up, signal.SIGTERM, 'nowhere', {}),
])
def test_at_any_moment(start, moment, number, script, parameters):
    rig = start(script, program=PROGRAM, **parameters)
    moment(rig)
    memory, since = rig.shared_memory(), len(rig.actions)
    status, seconds = rig.signal(number)
    assert status == 0 and seconds < SOON, rig.words()
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE, since), 'INACTIVE')
    assert rig.actions[-1].reason == 'the node is shutting down'
    assert 'Traceback' not in rig.words()
    assert not [path for path in memory if path.exists()]


def test_before_anything_is_up(start):
    rig = start(program=PROGRAM)
    status, seconds = rig.signal(signal.SIGTERM)
    assert seconds < SOON


def test_a_killed_process_is_noticed_by_its_subscribers(start):
    rig = start()
    rig.wait_until_heard()
    alive = []
    rig.node.create_subscription(
        DrivingAction, 'owled/action', lambda action: None,
        QoSProfile(depth=1, liveliness_lease_duration=Duration(seconds=1)),
        event_callbacks=SubscriptionEventCallbacks(
            liveliness=lambda event: alive.append(event.alive_count)))
    rig.wait(lambda: alive and alive[-1] == 1, 'a publisher that is alive')
    rig.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    rig.wait(lambda: alive[-1] == 0, 'the loss of liveliness')
    # Without the lease it takes DDS 20 s to give a participant up.
    assert time.monotonic() - killed < 10


@pytest.mark.parametrize('model_process', [False, True])
def test_with_a_standard_error_that_is_closed(start, tmp_path, model_process):
    program = tmp_path / 'program.py'
    program.write_text(
        'import os, sys\n'
        "if 'closed' not in sys.argv:\n"
        '    os.close(2)\n'
        "    os.execv(sys.executable, [sys.executable, *sys.argv, 'closed'])\n"
        "sys.argv.remove('closed')\n"
        f'sys.path.insert(0, {str(PROGRAM.parent)!r})\n'
        'import scripted_driver\nsys.exit(scripted_driver.main())\n')
    rig = start(program=program, model_process=model_process)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    status, seconds = rig.signal(signal.SIGTERM)
    assert status == 0 and seconds < SOON
