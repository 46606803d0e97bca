"""An action as the messages of other stacks, for planners and vehicles that take no other.

They carry no status and no time until which they hold. So they are published only with an action
whose status is OK, and whoever takes them has to stop when they stop coming.
"""

from collections.abc import Callable
from dataclasses import dataclass

from owled_ros.errors import UserError
from owled_ros.msg import DrivingAction
from owled_ros.ros import qos
from owled_ros.ros.messages import message_class

# m/s^2. To AckermannDrive a zero means: as quickly as possible.
SLOWEST_CHANGE = 0.01


@dataclass(frozen=True)
class Output:
    """A message of another package: which, on which topic, and how an action fills it in."""

    package: str
    message: str
    topic: str
    fill: Callable


def fill_twist(message, action, limits):
    """Fill in geometry_msgs/TwistStamped: speed [m/s] and yaw rate [rad/s] to come to."""
    message.header = action.header
    message.twist.linear.x = action.target_speed
    message.twist.angular.z = action.target_speed * action.curvature


def fill_ackermann(message, action, limits):
    """Fill in ackermann_msgs/AckermannDriveStamped, whose rates are without a sign."""
    emergency = action.maneuver == DrivingAction.EMERGENCY_STOP
    message.header = action.header
    message.drive.steering_angle = action.steering_angle
    message.drive.steering_angle_velocity = limits.steering_rate
    message.drive.speed = action.target_speed
    message.drive.acceleration = max(abs(action.acceleration), SLOWEST_CHANGE)
    message.drive.jerk = limits.emergency_jerk if emergency else limits.jerk


def fill_autoware(message, action, limits):
    """Fill in autoware_control_msgs/Control: to be carried out when it was published."""
    for part in (message, message.lateral, message.longitudinal):
        part.stamp = part.control_time = action.published
    message.lateral.steering_tire_angle = action.steering_angle
    message.longitudinal.velocity = action.target_speed
    message.longitudinal.acceleration = action.acceleration
    message.longitudinal.is_defined_acceleration = True


OUTPUTS = {
    'twist': Output('geometry_msgs', 'TwistStamped', 'owled/twist', fill_twist),
    'ackermann': Output('ackermann_msgs', 'AckermannDriveStamped', 'owled/ackermann',
                        fill_ackermann),
    'autoware': Output('autoware_control_msgs', 'Control', 'owled/autoware_control',
                       fill_autoware),
}


class PlannerOutputs:
    """
    The publishers of the outputs that are asked for.

    names: of OUTPUTS, separated by commas. create_publisher: (message class, topic, QoS) -> one.
    Raises UserError for a name that is unknown, or whose package is not installed.
    """

    def __init__(self, names, create_publisher):
        self._publishers = []
        for name in filter(None, (name.strip() for name in names.split(','))):
            if name not in OUTPUTS:
                raise UserError(f'parameter outputs names {name!r}; '
                                f'it may name: {", ".join(OUTPUTS)}')
            output = OUTPUTS[name]
            kind = message_class(output.package, output.message, f'outputs names {name}')
            self._publishers.append(
                (create_publisher(kind, output.topic, qos.PLANNER_OUTPUT), kind, output.fill))

    def publish(self, action, limits):
        """Publish a DrivingAction, held to Limits, as each of them; nothing unless it is OK."""
        if action.status != DrivingAction.OK:
            return
        for publisher, kind, fill in self._publishers:
            message = kind()
            fill(message, action, limits)
            publisher.publish(message)
