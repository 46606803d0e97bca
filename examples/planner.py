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

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from owled_ros.msg import DrivingAction
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Bool

PERIOD = 0.05           # s between two commands
FASTEST = 8.0           # m/s; the limits are the planner's own, whatever owled/info says
SPEEDING_UP = 1.5       # m/s^2
BRAKING = 3.0           # m/s^2, with an action and without
BRAKING_HARD = 6.0      # m/s^2, where an action is an emergency stop
SHARPEST = 0.15         # 1/m
MAX_ODOMETRY_AGE = 0.3  # s
LONGEST_BREAK = 2.0     # s without an action after which a person has to let it follow again


def seconds(stamp):
    """Return a Time or a Duration in s."""
    return stamp.sec + stamp.nanosec / 1e9


@dataclass
class Follower:
    """What to do now, from the actions so far; times in s of the planner's own clock."""

    action: DrivingAction | None = None
    sequence: int | None = None
    why: str = 'no action has come'     # there is none
    engaged: bool = False   # a person lets it follow
    seen: float = 0.0       # when there was one, while it was engaged

    def take(self, action):
        """Hear an action: keep it, or whatever else was kept is over."""
        gap = self.sequence is not None and action.sequence != self.sequence + 1
        self.sequence, self.action = action.sequence, None
        if action.status != DrivingAction.OK:
            self.why = action.reason or f'the status is {action.status}'
        elif gap:
            self.why = 'actions were lost on the way'
        else:
            self.action = action

    def usable(self, now):
        """Return the action to follow; None when there is none, and `why` tells."""
        if self.action is None:
            return None
        age = now - seconds(self.action.header.stamp)
        if not 0 <= age <= seconds(self.action.valid_for):
            self.action, self.why = None, f'the last action is {age:.2f} s old'
        return self.action

    def engage(self, now, wanted):
        """Follow from now on, if a person wants it and there is something to follow."""
        self.engaged, self.seen = wanted and self.usable(now) is not None, now

    def braking(self):
        """Return why it brakes; None while it follows."""
        if self.action is None:
            return self.why
        return None if self.engaged else 'nobody has let it follow (engage)'

    def command(self, now, speed, curvature):
        """
        Return speed [m/s] and curvature [1/m] to come to within PERIOD.

        speed: that is driven now. curvature: that was commanded last, and is held while braking.
        """
        action = self.usable(now)
        if action is not None:
            self.seen = now
        elif not 0 <= now - self.seen <= LONGEST_BREAK:
            self.engaged = False
        if action is None or not self.engaged:
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
        self.odometry = None
        self.curvature = 0.0
        self.braking = None     # why, as it was logged
        # More than one in the queue: of lost actions none was dropped here.
        self.create_subscription(DrivingAction, 'owled/action', self.follower.take, 10)
        self.create_subscription(Odometry, 'odom', self.hear_odometry, qos_profile_sensor_data)
        self.create_subscription(Bool, 'engage', self.hear_engage, 1)
        self.commands = self.create_publisher(TwistStamped, 'cmd_vel', 1)
        self.create_timer(PERIOD, self.drive)

    def hear_odometry(self, odometry):
        self.odometry = odometry

    def hear_engage(self, wanted):
        self.follower.engage(self.get_clock().now().nanoseconds / 1e9, wanted.data)

    def drive(self):
        now = self.get_clock().now()
        if self.odometry is None or now.nanoseconds / 1e9 - seconds(
                self.odometry.header.stamp) > MAX_ODOMETRY_AGE:
            self.say('there is no odometry')
            speed = 0.0     # whoever carries this out brakes as it can; the curve is held
        else:
            speed, self.curvature = self.follower.command(
                now.nanoseconds / 1e9, self.odometry.twist.twist.linear.x, self.curvature)
            self.say(self.follower.braking())
        command = TwistStamped()
        command.header.stamp = now.to_msg()
        command.header.frame_id = 'base_link'
        command.twist.linear.x = speed
        command.twist.angular.z = speed * self.curvature
        self.commands.publish(command)

    def say(self, why):
        """Log when braking begins and when it ends."""
        if (why is None) != (self.braking is None):
            self.get_logger().warning(f'braking: {why}' if why else 'following owled')
        self.braking = why


def main():
    rclpy.init()
    try:
        rclpy.spin(Planner())
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass


if __name__ == '__main__':
    main()
