"""Core types to messages and back."""

import importlib
import math

from builtin_interfaces.msg import Duration, Time
import numpy as np
from owled_ros.bags.motion import motion_of
from owled_ros.driver.action import Command, Maneuver, Route, Status
from owled_ros.errors import UserError
from owled_ros.msg import DrivingAction, Explanation, ModelInfo
from owled_ros.ros.ego_history import Motion

NANOSECONDS = 1_000_000_000
# What may tell the vehicle's motion on `odom`, by the value of the parameter odom_type.
ODOMETRY_TYPES = {'odometry': ('nav_msgs', 'Odometry'),
                  'twist': ('geometry_msgs', 'TwistStamped'),
                  'twist_with_covariance': ('geometry_msgs', 'TwistWithCovarianceStamped'),
                  'autoware': ('autoware_vehicle_msgs', 'VelocityReport')}


def odometry_type(name):
    """Return the class of ODOMETRY_TYPES; the nodes refuse a name that is unknown."""
    return message_class(*ODOMETRY_TYPES.get(name, ODOMETRY_TYPES['odometry']),
                         f'odom_type names {name}')


def message_class(package, message, wish):
    """Return a message's class; raise UserError where its package is not installed.

    The error says of which parameter it was the `wish`.
    """
    try:
        return getattr(importlib.import_module(f'{package}.msg'), message)
    except (ImportError, AttributeError):
        raise UserError(f'parameter {wish}, which needs the package {package}; install it, or '
                        'choose another') from None


def nanoseconds(stamp):
    """Return a builtin_interfaces Time as nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def time_message(stamp):
    """Return nanoseconds as a builtin_interfaces Time, clipped to what it can hold."""
    seconds, rest = divmod(stamp, NANOSECONDS)
    return Time(sec=_int32(seconds), nanosec=rest)


def duration_message(duration):
    """Return nanoseconds as a builtin_interfaces Duration, clipped to what it can hold."""
    seconds, rest = divmod(duration, NANOSECONDS)
    return Duration(sec=_int32(seconds), nanosec=rest)


def _int32(value):
    return min(max(value, -2**31), 2**31 - 1)


def towards_zero(value):
    """Return `value` as the nearest float32 that is no larger: rounding must not pass a limit."""
    rounded = np.float32(value)
    if abs(float(rounded)) > abs(value):
        rounded = np.nextafter(rounded, np.float32(0))
    return float(rounded)


def action_message(report, *, base_frame, horizon, valid_for, model):
    """Return the DrivingAction of an ActionReport; horizon and valid_for in s."""
    message = DrivingAction()
    message.header.stamp = time_message(report.stamp)
    message.header.frame_id = base_frame
    message.published = time_message(report.published)
    message.sequence = report.sequence
    message.status = int(report.status)
    message.reason = report.reason
    message.horizon = duration_message(int(horizon * NANOSECONDS))
    message.latency = duration_message(report.latency)
    message.compute_time = duration_message(int(report.compute_time * NANOSECONDS))
    message.model = model
    if report.status == Status.OK:
        _fill_action(message, report.action)
        message.valid_for = duration_message(int(valid_for * NANOSECONDS))
    else:
        message.acceleration = message.curvature = message.steering_angle = math.nan
        message.target_speed = message.confidence = math.nan
        message.maneuver = int(Maneuver.NONE)
    return message


def _fill_action(message, action):
    message.acceleration = towards_zero(action.acceleration)
    message.curvature = towards_zero(action.curvature)
    message.steering_angle = towards_zero(action.steering_angle)
    message.target_speed = towards_zero(action.target_speed)
    message.maneuver = int(action.maneuver)
    message.limits_applied = int(action.limits_applied)
    message.confidence = float(action.confidence)


def explanation_message(report, *, base_frame, model):
    """Return the Explanation of an ExplanationReport."""
    message = Explanation()
    message.header.stamp = time_message(report.stamp)
    message.header.frame_id = base_frame
    message.action_sequence = report.action_sequence
    message.text = report.text
    message.complete = report.complete
    message.confidence = float(report.confidence)
    message.model = model
    return message


def info_message(driver, settings, stamp):
    """Return the ModelInfo of a loaded driver."""
    message = ModelInfo()
    message.header.stamp = time_message(stamp)
    message.name = driver.name
    message.hash = driver.hash
    message.requested_sparsity = float(driver.requested_sparsity)
    message.measured_sparsity = float(driver.measured_sparsity)
    message.backend = driver.backend
    message.backend_reason = driver.backend_reason
    message.wheelbase = settings.wheelbase
    for name, limit in vars(settings.limits).items():
        setattr(message, f'limit_{name}', limit)
    return message


def motion(message, base_frame):
    """Return the Motion that one of ODOMETRY_TYPES measures; raise UserError if it cannot."""
    frame, speed, yaw_rate = motion_of(message)
    if frame.lstrip('/') != base_frame.lstrip('/'):
        told = hasattr(message, 'child_frame_id')
        field = 'child_frame_id' if told else 'header.frame_id'
        raise UserError(f'the twist of the odometry is in {frame!r} ({field}); it must be in '
                        f'{base_frame!r} (base_frame)')
    return Motion(nanoseconds(message.header.stamp), speed, yaw_rate)


def command(message):
    """Return the Command of a DrivingCommand; raise UserError if it makes no sense."""
    if nanoseconds(message.header.stamp) == 0:
        # A blank message; simulated time starts near zero, so its age alone would not tell.
        raise UserError('the command has no stamp; fill in header.stamp')
    try:
        route = Route(message.route)
    except ValueError:
        raise UserError(f'the command has the route {message.route}, which does not exist; '
                        f'the largest is {max(Route)}') from None
    if message.speed_limit < 0 or math.isinf(message.speed_limit):
        raise UserError(f'the command has a speed limit of {message.speed_limit:g} m/s; '
                        'it must not be negative; NaN where it is not known')
    return Command(route, message.speed_limit)
