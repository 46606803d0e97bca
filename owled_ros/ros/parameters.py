"""The driving node's parameters: one table for types, ranges, descriptions and when they change.

`config/driving.yaml` lists the same names with the same values; a test keeps the two together.
"""

from dataclasses import dataclass, fields
import math
from types import SimpleNamespace
from typing import Any

from owled_ros.driver.action import Limits
from owled_ros.driver.pinhole import LARGEST_FIELD
from owled_ros.errors import UserError
from owled_ros.ros.messages import ODOMETRY_TYPES
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

START = 'start'          # read only: set when the node starts
CONFIGURE = 'configure'  # may change while the node is unconfigured
ANY_TIME = 'any time'    # may change while it drives; in force from the next frame on

SPEED_STEERING = 'speed_steering'  # an odom_type with topics of its own


@dataclass(frozen=True)
class Parameter:
    """One row of the table; low and high are inclusive."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    changes: str = ANY_TIME

    def descriptor(self):
        description = ParameterDescriptor(
            name=self.name, description=self.description, read_only=self.changes == START)
        if self.choices:
            description.additional_constraints = 'one of: ' + ', '.join(self.choices)
        elif self.changes == CONFIGURE:
            description.additional_constraints = 'can change only while the node is unconfigured'
        if isinstance(self.default, float):
            description.floating_point_range = [
                FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        elif isinstance(self.default, int) and not isinstance(self.default, bool):
            description.integer_range = [
                IntegerRange(from_value=self.low, to_value=self.high, step=1)]
        return description

    def check(self, value):
        """Raise UserError unless `value` is one this parameter may have."""
        if self.choices and value not in self.choices:
            raise UserError(f'parameter {self.name} is {value!r}; '
                            f'it must be one of: {", ".join(self.choices)}')
        if self.low is not None and not (
                math.isfinite(value) and self.low <= value <= self.high):
            raise UserError(f'parameter {self.name} is {value}; '
                            f'it must be between {self.low:g} and {self.high:g}')


def _judged(name, warn, error, description, low, high):
    """Two rows: at which value a diagnostic status becomes a warning, and an error."""
    return [Parameter(f'diagnostics.{level}.{name}', value, f'{description} is {words} in '
                      '/diagnostics', low, high)
            for level, value, words in (('warn', warn, 'a warning'), ('error', error, 'an error'))]


PARAMETERS = (
    Parameter('model', 'embedded', "the model: 'embedded', a directory, or a hub name",
              changes=CONFIGURE),
    Parameter('model_hash', '', 'refuse a model whose hash does not start with this; empty: any',
              changes=CONFIGURE),
    Parameter('device', 'auto', "where the model runs: 'auto', 'cpu', 'cuda', 'cuda:1', ...",
              changes=CONFIGURE),
    Parameter('dtype', 'auto', 'number format of the model',
              choices=('auto', 'float32', 'bfloat16', 'float16'), changes=CONFIGURE),
    Parameter('backend', 'auto', 'what computes: auto measures, and says on owled/info what it '
              'chose and why', choices=('auto', 'dense', 'sparse', 'transformers'),
              changes=CONFIGURE),
    Parameter('model_process', True, 'run the model in a process of its own, which is killed '
              'when it hangs and started again when it ends', changes=CONFIGURE),
    Parameter('autostart', True, 'configure and activate without a lifecycle manager',
              changes=START),
    Parameter('image_transport', 'raw', 'raw: sensor_msgs/Image on `image`; compressed: '
              'sensor_msgs/CompressedImage on `image`/compressed',
              choices=('raw', 'compressed'), changes=START),
    Parameter('undistort', False, 'undo the distortion that the camera info tells of',
              changes=START),
    Parameter('field_of_view', 0.0, 'rad across that the model is shown, cropped by what the '
              'camera info tells; 0: all', 0.0, LARGEST_FIELD, changes=START),
    Parameter('camera_info_topic', '', 'sensor_msgs/CameraInfo, where undistort or field_of_view '
              'needs it; empty: camera_info beside the images', changes=START),
    Parameter('odom_type', 'odometry', 'what comes on `odom`: nav_msgs/Odometry, '
              'geometry_msgs/TwistStamped or TwistWithCovarianceStamped, '
              'autoware_vehicle_msgs/VelocityReport; speed_steering: std_msgs/Float64 on `speed` '
              'and on `steering` instead', choices=(*ODOMETRY_TYPES, SPEED_STEERING),
              changes=START),
    Parameter('outputs', '', 'an OK action also as: twist (geometry_msgs/TwistStamped on '
              'owled/twist), ackermann (ackermann_msgs/AckermannDriveStamped on '
              'owled/ackermann), autoware (autoware_control_msgs/Control on '
              'owled/autoware_control); several separated by commas', changes=START),
    Parameter('base_frame', 'base_link', 'frame of the vehicle: that of the actions, and the one '
              "that the odometry's twist must be in", changes=CONFIGURE),
    Parameter('wheelbase', 2.7, 'm, axle to axle', 0.1, 20.0, changes=CONFIGURE),
    Parameter('horizon', 1.0, 's that an action is for', 0.1, 10.0, changes=CONFIGURE),
    Parameter('max_frame_age', 0.4, 's; an older frame is refused', 0.01, 60.0),
    Parameter('max_ego_age', 0.2, 's between a frame and its odometry', 0.01, 60.0),
    Parameter('max_command_age', 2.0, 's; an older command is as good as none', 0.01, 3600.0),
    Parameter('max_clock_skew', 0.1, 's that a stamp may be in the future', 0.0, 10.0),
    Parameter('deadline', 0.6, 's from the frame to its action; a later one is discarded, and '
              'the watchdog speaks when none came for so long', 0.05, 60.0),
    Parameter('valid_for', 1.0, 's from the frame on that its action may be used', 0.05, 60.0),
    Parameter('load_limit', 600.0, 's for the model to be loaded and warm', 0.1, 86400.0),
    Parameter('hang_limit', 10.0, 's at one piece of work after which the model is given up',
              0.05, 3600.0),
    Parameter('max_frozen_frames', 10, 'times that the same picture may repeat; 0: any',
              0, 100000),
    Parameter('image_width', 0, 'pixels that a frame must be wide; 0: as wide as the first good '
              'one since the node was activated', 0, 1 << 16),
    Parameter('image_height', 0, 'pixels that a frame must be high; 0 exactly if image_width is',
              0, 1 << 16),
    Parameter('max_image_pixels', 7680 * 4320, 'a larger picture is refused before it is decoded',
              1024, 1 << 28),
    Parameter('explain', True, 'write explanations'),
    Parameter('max_explanation_age', 5.0, 's after its frame that an explanation is given up',
              0.1, 600.0),
    Parameter('explanation_slice', 4, 'tokens written before the next frame gets its turn',
              1, 1000),
    *_judged('frame_rate', 5.0, 1.0, 'Hz; fewer frames', 0.0, 1000.0),
    *_judged('odometry_rate', 10.0, 5.0, 'Hz; less odometry', 0.0, 1000.0),
    *_judged('drop_share', 0.9, 0.98, '0 to 1; a larger share of frames dropped', 0.0, 1.0),
    *_judged('missed_share', 0.0, 0.5, '0 to 1; a larger share of deadlines missed', 0.0, 1.0),
    *_judged('latency', 0.45, 0.55, 's from the frame to its action (p95); more', 0.0, 60.0),
    *_judged('free_memory', 0.1, 0.05, '0 to 1; a smaller share of memory free', 0.0, 1.0),
    *_judged('temperature', 85.0, 95.0, 'degrees C; hotter', -50.0, 200.0),
    Parameter('limits.acceleration', 2.5, 'm/s^2, speeding up', 0.1, 20.0),
    Parameter('limits.deceleration', 5.0, 'm/s^2, braking', 0.1, 20.0),
    Parameter('limits.emergency_deceleration', 8.0, 'm/s^2, braking in an emergency stop',
              0.1, 20.0),
    Parameter('limits.jerk', 10.0, 'm/s^3', 0.1, 1000.0),
    Parameter('limits.emergency_jerk', 50.0, 'm/s^3, towards braking in an emergency stop',
              0.1, 1000.0),
    Parameter('limits.steering_angle', 0.5, 'rad at the front wheels', 0.01, 1.5),
    Parameter('limits.steering_rate', 0.6, 'rad/s at the front wheels', 0.01, 10.0),
    Parameter('limits.speed', 16.7, 'm/s', 0.1, 100.0),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
LIMITS = tuple(f'limits.{field.name}' for field in fields(Limits))
# Of these the smaller values are the worse ones.
SCARCE = ('frame_rate', 'odometry_rate', 'free_memory')


class Settings:
    """Every parameter as an attribute, checked as a whole; never changed, only replaced."""

    def __init__(self, values):
        """Take {name: value} of all PARAMETERS; raise UserError with one sentence."""
        for parameter in PARAMETERS:
            parameter.check(values[parameter.name])
            if '.' not in parameter.name:
                setattr(self, parameter.name, values[parameter.name])
        self.warn = _group(values, 'diagnostics.warn.')
        self.error = _group(values, 'diagnostics.error.')
        try:
            self.limits = Limits(**{
                name.removeprefix('limits.'): values[name] for name in LIMITS})
        except ValueError as error:
            raise UserError(f'parameter limits: {error}') from None
        self._check_together()

    def _check_together(self):
        for shorter, longer, why in (
                ('deadline', 'valid_for', 'an action must not be over before it is published'),
                ('valid_for', 'horizon', 'an action says nothing about the time after it'),
                ('max_frame_age', 'deadline', 'a frame that old could not be answered in time'),
                ('deadline', 'hang_limit', 'a model that is in time does not hang')):
            if getattr(self, shorter) > getattr(self, longer):
                raise UserError(
                    f'parameter {shorter} ({getattr(self, shorter):g} s) is more than {longer} '
                    f'({getattr(self, longer):g} s): {why}')
        for name, warn in vars(self.warn).items():
            error = getattr(self.error, name)
            if (warn < error) if name in SCARCE else (warn > error):
                raise UserError(
                    f'parameter diagnostics.error.{name} ({error:g}) is less bad than '
                    f'diagnostics.warn.{name} ({warn:g}); an error must be at least as bad')
        if bool(self.image_width) != bool(self.image_height):
            raise UserError(f'parameters image_width ({self.image_width}) and image_height '
                            f'({self.image_height}) go together; set both, or both to 0')
        if not self.model:
            raise UserError("parameter model is empty; name a directory, or 'embedded'")
        if not self.base_frame:
            raise UserError('parameter base_frame is empty; name the frame of the vehicle')


def _group(values, prefix):
    """Return the parameters whose names begin with `prefix` as attributes."""
    return SimpleNamespace(**{name.removeprefix(prefix): value for name, value in values.items()
                              if name.startswith(prefix)})


def declare(node):
    """Declare PARAMETERS on `node`.

    Raises what rclpy does for an override of a wrong type or range, and UserError for one that
    could never be mended because the parameter is read only.
    """
    for parameter in PARAMETERS:
        value = node.declare_parameter(
            parameter.name, parameter.default, parameter.descriptor()).value
        if parameter.changes == START:
            parameter.check(value)


def current(node):
    """Return {name: value} as they are set on `node`."""
    return {name: node.get_parameter(name).value for name in BY_NAME}


def check_change(changes, unconfigured):
    """Raise UserError when one of `changes`, {name: value}, cannot be set in this state."""
    for name, value in changes.items():
        parameter = BY_NAME[name]
        parameter.check(value)
        if parameter.changes == CONFIGURE and not unconfigured:
            raise UserError(f'parameter {name} can change only while the node is unconfigured; '
                            'deactivate it and clean it up first')
