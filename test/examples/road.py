"""What a planner's process sees: actions and odometry. What comes of it: its commands."""

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from owled_ros.msg import DrivingAction
from owled_ros.ros import qos
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Bool

PATIENCE = 60.0     # s
SPEED = 5.0         # m/s, whatever is commanded


def action(sequence, *, stamp=100.0, status=DrivingAction.OK, speed=7.0, curvature=0.05,
           valid_for=1, acceleration=1.2, maneuver=DrivingAction.KEEP_LANE):
    message = DrivingAction(status=status, sequence=sequence, target_speed=speed,
                            acceleration=acceleration, maneuver=maneuver,
                            curvature=curvature, reason='' if status == DrivingAction.OK else 'no')
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int(stamp % 1 * 1e9)
    message.valid_for.sec = valid_for
    return message


class Road:
    """Publishes what a planner hears, and waits for what it answers."""

    def __init__(self):
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node('road', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._commands = []
        self._node.create_subscription(TwistStamped, 'cmd_vel', self._commands.append, 10)
        self._actions = self._node.create_publisher(DrivingAction, 'owled/action', qos.ACTION)
        self._odometry = self._node.create_publisher(Odometry, 'odom', 1)
        self._engage = self._node.create_publisher(Bool, 'engage', 1)
        self._sequence = 0

    def until(self, reached, *, acting, valid_for=1, engaging=False, speed=SPEED):
        """Return the first command that `reached` accepts; actions are said while `acting`.

        engaging: a person presses the button, again and again.
        """
        end = self._node.get_clock().now() + Duration(seconds=PATIENCE)
        self._commands.clear()
        while not (self._commands and reached(self._commands[-1])):
            now = self._node.get_clock().now()
            assert now < end, self._commands[-1:]
            measured = Odometry()
            measured.header.stamp = now.to_msg()
            measured.twist.twist.linear.x = speed
            self._odometry.publish(measured)
            if acting:
                self._sequence += 1
                self._actions.publish(action(
                    self._sequence, stamp=now.nanoseconds / 1e9, valid_for=valid_for))
            if engaging:
                self._engage.publish(Bool(data=True))
            self._executor.spin_once(timeout_sec=0.05)
        return self._commands[-1]

    def lose_the_driving_node(self):
        self._node.destroy_publisher(self._actions)

    def close(self):
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


def speeds_up(command):
    return command.twist.linear.x > SPEED


def stops(command):
    return command.twist.linear.x == 0.0


def brakes(command):
    return 0.0 < command.twist.linear.x < SPEED
