"""SIGINT and SIGTERM end the process soon, whatever the model does, and INACTIVE is said."""

import signal
import time

import pytest
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from rig import PROGRAM

from owled_ros.msg import DrivingAction

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


def test_while_the_model_hangs(start):
    rig = start('scripted:hang_at=1', deadline=0.5, max_frame_age=0.5, program=PROGRAM)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.DEADLINE_MISSED), 'the watchdog')
    status, seconds = rig.signal(signal.SIGTERM)
    assert status == 0 and seconds < SOON
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')


def test_while_the_model_loads(start):
    rig = start('scripted:load=60', program=PROGRAM)
    assert rig.wait(lambda: rig.state() == 'configuring', 'the configuring state')
    rig.wait(lambda: rig.node.count_publishers('owled/action'), 'a publisher of actions')
    status, seconds = rig.signal(signal.SIGINT)
    assert status == 0 and seconds < SOON
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')


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
