"""An OK action as the messages of other stacks; nothing with any other status."""

import math
import sys
from types import ModuleType, SimpleNamespace

from geometry_msgs.msg import TwistStamped
from owled_ros.driver.action import Limits
from owled_ros.errors import UserError
from owled_ros.msg import DrivingAction
from owled_ros.ros.planner_outputs import OUTPUTS, PlannerOutputs
import pytest

LIMITS = Limits()


class Publisher:
    """Keeps what is published."""

    def __init__(self, kind, topic, profile):
        self.kind, self.topic, self.messages = kind, topic, []

    def publish(self, message):
        self.messages.append(message)


def opened(names):
    publishers = []

    def create(*arguments):
        publishers.append(Publisher(*arguments))
        return publishers[-1]
    return PlannerOutputs(names, create), publishers


def action(status=DrivingAction.OK, **values):
    message = DrivingAction(status=status, acceleration=-1.5, curvature=0.02,
                            steering_angle=0.054, target_speed=8.0, **values)
    message.header.frame_id = 'base_link'
    message.header.stamp.sec, message.published.sec = 7, 8
    return message


@pytest.fixture
def other_stacks(monkeypatch):
    """Stand in for packages that PyPI has not, with the fields of their messages."""
    class AckermannDriveStamped:

        def __init__(self):
            self.header = None
            self.drive = SimpleNamespace(
                steering_angle=0.0, steering_angle_velocity=0.0, speed=0.0, acceleration=0.0,
                jerk=0.0)

    class Control:

        def __init__(self):
            self.stamp = self.control_time = None
            self.lateral = SimpleNamespace(
                stamp=None, control_time=None, steering_tire_angle=0.0,
                steering_tire_rotation_rate=0.0, is_defined_steering_tire_rotation_rate=False)
            self.longitudinal = SimpleNamespace(
                stamp=None, control_time=None, velocity=0.0, acceleration=0.0, jerk=0.0,
                is_defined_acceleration=False, is_defined_jerk=False)

    for package, kind in (('ackermann_msgs', AckermannDriveStamped),
                          ('autoware_control_msgs', Control)):
        module = ModuleType(f'{package}.msg')
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, f'{package}.msg', module)


def test_each_says_what_the_action_says(other_stacks):
    outputs, publishers = opened('twist, ackermann,autoware')
    assert [publisher.topic for publisher in publishers] == [o.topic for o in OUTPUTS.values()]
    outputs.publish(action(), LIMITS)
    (twist,), (ackermann,), (autoware,) = (publisher.messages for publisher in publishers)
    assert twist.header == ackermann.header == action().header
    assert (twist.twist.linear.x, twist.twist.angular.z) == pytest.approx((8.0, 0.16))
    drive = ackermann.drive
    assert (drive.speed, drive.steering_angle) == pytest.approx((8.0, 0.054))
    assert (drive.acceleration, drive.jerk, drive.steering_angle_velocity) == pytest.approx(
        (1.5, LIMITS.jerk, LIMITS.steering_rate))
    along, across = autoware.longitudinal, autoware.lateral
    assert (along.velocity, along.acceleration) == pytest.approx((8.0, -1.5))
    assert across.steering_tire_angle == pytest.approx(0.054)
    assert along.is_defined_acceleration and not along.is_defined_jerk
    assert not across.is_defined_steering_tire_rotation_rate
    assert along.stamp.sec == across.control_time.sec == autoware.stamp.sec == 8


def test_no_change_of_speed_is_not_the_quickest(other_stacks):
    outputs, (publisher,) = opened('ackermann')
    steady, stopping = action(), action(maneuver=DrivingAction.EMERGENCY_STOP)
    steady.acceleration = 0.0
    for message in (steady, stopping):
        outputs.publish(message, LIMITS)
    assert publisher.messages[0].drive.acceleration > 0     # 0: as quickly as possible
    assert publisher.messages[1].drive.jerk == LIMITS.emergency_jerk


@pytest.mark.parametrize('status', range(9))
def test_only_an_ok_action_is_told(status):
    outputs, (publisher,) = opened('twist')
    outputs.publish(action(status), LIMITS if status == DrivingAction.OK else None)
    assert len(publisher.messages) == (status == DrivingAction.OK)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(UserError, match="names 'wheels'; it may name: twist, ackermann"):
        opened('twist,wheels')
    with pytest.raises(UserError, match='needs the package autoware_control_msgs; install it'):
        opened('autoware')


def test_a_twist_comes_with_each_ok_action_and_with_no_other(start):
    rig = start('scripted:raise_at=3', outputs='twist')
    twists = []
    rig.node.create_subscription(TwistStamped, 'owled/twist', twists.append, 100)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR) and len(twists) > 5,
              'a failure and some twists')
    told = {(t.header.stamp.sec, t.header.stamp.nanosec): t for t in twists}
    for message in rig.actions:
        twist = told.get((message.header.stamp.sec, message.header.stamp.nanosec))
        if message.status != DrivingAction.OK:
            assert twist is None
        elif twist is not None:
            assert math.isclose(twist.twist.linear.x, message.target_speed, rel_tol=1e-6)
