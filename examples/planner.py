"""
A planner that follows /owled/action by the rules of SAFETY.md, and brakes by itself otherwise.

    python3 examples/planner.py --ros-args -r odom:=/vehicle/odom -r cmd_vel:=/vehicle/cmd_vel

It takes an action only if it is OK, in order, within its time and within the planner's own limits.
Without one it brakes to a stop, with nothing but the vehicle's own odometry. It begins to follow,
and after a longer break goes on, only when a person says so; a press of a button is one message:

    ros2 topic pub --once /engage std_msgs/msg/Bool '{data: true}'

An example to read and to start from: a planner knows of lanes, of maps and of other road users,
this one does not.
"""

from dataclasses import dataclass
from math import isfinite
import re
import time
from typing import NamedTuple

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from owled_ros.msg import DrivingAction
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import LivelinessPolicy, qos_profile_sensor_data, QoSProfile
from std_msgs.msg import Bool

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:     # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PERIOD = 0.05           # s between two commands
FASTEST = 8.0           # m/s; the limits are the planner's own, whatever owled/info says
SPEEDING_UP = 1.5       # m/s^2
BRAKING = 3.0           # m/s^2, with an action and without
BRAKING_HARD = 6.0      # m/s^2, where an action is an emergency stop
SHARPEST = 0.15         # 1/m
MAX_ODOMETRY_AGE = 0.3  # s
LEASE = 1.0             # s; the node offers this liveliness
LONGEST_BREAK = 2.0     # s without an action after which a person has to let it follow again


def seconds(stamp):
    """Return a Time or a Duration in s."""
    return stamp.sec + stamp.nanosec / 1e9


class Moment(NamedTuple):
    """The same moment [s] on two clocks: the planner's own may stop or jump, `steady` does not."""

    clock: float
    steady: float


@dataclass
class Follower:
    """What to do now, from the actions so far."""

    action: DrivingAction | None = None
    sequence: int | None = None
    stamped: float | None = None        # on the steady clock: when the action's frame was taken
    why: str = 'no action has come'     # there is none
    engaged: bool = False   # a person lets it follow
    seen: float = 0.0       # on the steady clock: when there was an action

    def take(self, action):
        """Hear an action: keep it, or whatever else was kept is over."""
        gap = self.sequence is not None and action.sequence != self.sequence + 1
        self.sequence, self.action, self.stamped = action.sequence, None, None
        if action.status != DrivingAction.OK:
            self.why = action.reason or f'the status is {action.status}'
        elif gap:
            self.why = 'actions were lost on the way'
        elif not all(map(isfinite, (action.target_speed, action.acceleration, action.curvature))):
            self.why = 'the action is not finite'
        else:
            self.action = action

    def lose_publisher(self):
        """Hear that nobody publishes actions any more: the node's process is gone."""
        self.action, self.why = None, 'the driving node is gone'

    def usable(self, now):
        """Return the action to follow; None when there is none, and `why` tells."""
        if self.action is None:
            return None
        age = now.clock - seconds(self.action.header.stamp)
        if self.stamped is None:
            self.stamped = now.steady - age     # a clock that is set back makes it no younger
        valid_for = seconds(self.action.valid_for)
        if age < 0:
            self.action, self.why = None, 'the last action is from the future'
        elif age > valid_for or now.steady - self.stamped > valid_for:
            self.action, self.why = None, 'the last action is over'
        return self.action

    def engage(self, now, wanted):
        """Follow from now on, if a person wants it and there is something to follow."""
        self.engaged, self.seen = wanted and self.usable(now) is not None, now.steady

    def braking(self):
        """Return why it brakes; None while it follows."""
        if self.action is None:
            return self.why
        return None if self.engaged else 'nobody has let it follow (engage)'

    def followed(self, now):
        """Return the action to follow, None without one and while nobody lets it."""
        action = self.usable(now)
        if action is not None:
            self.seen = now.steady
        elif now.steady - self.seen > LONGEST_BREAK:
            self.engaged = False
        return action if self.engaged else None

    def command(self, now, speed, curvature):
        """
        Return speed [m/s] and curvature [1/m] to come to within PERIOD.

        speed: that is driven now. curvature: that was commanded last, and is held while braking.
        """
        action = self.followed(now)
        if action is None:
            return max(speed - BRAKING * PERIOD, 0.0), curvature
        # The target is for the end of the horizon: on the way to it the acceleration is followed.
        wanted = min(max(action.target_speed, 0.0), FASTEST)
        step = min(max(wanted - speed, -_braking(action) * PERIOD),
                   min(max(action.acceleration, 0.0), SPEEDING_UP) * PERIOD)
        return speed + step, min(max(action.curvature, -SHARPEST), SHARPEST)


def _braking(action):
    """How hard [m/s^2] an action may brake; one that speeds up does where it is too fast for us."""
    hardest = BRAKING_HARD if action.maneuver == DrivingAction.EMERGENCY_STOP else BRAKING
    return min(-action.acceleration, hardest) if action.acceleration < 0 else BRAKING


class Planner(Node):
    """Hears actions and odometry, says what the vehicle is to do."""

    def __init__(self):
        super().__init__('planner')
        self.follower = Follower()
        self.odometry = None    # the last, and when it came, on the steady clock
        self.curvature = 0.0
        self.said = ''          # why it brakes, as it was logged
        # More than one in the queue: of lost actions none was dropped here.
        self.create_subscription(
            DrivingAction, 'owled/action', self.follower.take,
            QoSProfile(depth=10, liveliness=LivelinessPolicy.AUTOMATIC,
                       liveliness_lease_duration=Duration(seconds=LEASE)),
            event_callbacks=SubscriptionEventCallbacks(liveliness=self.hear_liveliness))
        self.create_subscription(Odometry, 'odom', self.hear_odometry, qos_profile_sensor_data)
        self.create_subscription(Bool, 'engage', self.hear_engage, 1)
        self.commands = self.create_publisher(TwistStamped, 'cmd_vel', 1)
        # On the steady clock: with a ROS timer no command would come while /clock stands still.
        self.create_timer(PERIOD, self.drive, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def now(self):
        return Moment(self.get_clock().now().nanoseconds / 1e9, time.monotonic())

    def hear_liveliness(self, changed):
        if changed.alive_count == 0:
            self.follower.lose_publisher()

    def hear_odometry(self, odometry):
        if isfinite(odometry.twist.twist.linear.x):
            self.odometry = odometry, time.monotonic()

    def hear_engage(self, wanted):
        self.follower.engage(self.now(), wanted.data)
        if wanted.data and not self.follower.engaged:
            self.get_logger().warning(f'not engaged: {self.follower.why}')

    def measured_speed(self, now):
        """Return the speed [m/s] of now, None where it is not known."""
        if self.odometry is None:
            return None
        odometry, arrival = self.odometry
        known = (abs(now.clock - seconds(odometry.header.stamp)) <= MAX_ODOMETRY_AGE
                 and now.steady - arrival <= MAX_ODOMETRY_AGE)
        return odometry.twist.twist.linear.x if known else None

    def drive(self):
        now = self.now()
        measured = self.measured_speed(now)
        if measured is None:
            self.follower.followed(now)     # its actions end nevertheless
            self.say('there is no odometry of now')
            speed = 0.0     # whoever carries this out brakes as it can; the curve is held
        else:
            speed, self.curvature = self.follower.command(now, measured, self.curvature)
            self.say(self.follower.braking())
        command = TwistStamped()
        command.header.stamp = self.get_clock().now().to_msg()
        command.header.frame_id = 'base_link'
        command.twist.linear.x = speed
        command.twist.angular.z = speed * self.curvature
        self.commands.publish(command)

    def say(self, why):
        """Log when braking begins, has another reason but for its numbers, and ends."""
        reason = why and re.sub(r'[\d.]+', '', why)
        if reason != self.said:
            self.get_logger().warning(f'braking: {why}' if why else 'following owled')
        self.said = reason


def main():
    rclpy.init()
    try:
        rclpy.spin(Planner())
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass


if __name__ == '__main__':
    main()
