"""The calibration node: a recorded drive, or the one that is happening, becomes a pruned model.

The shell only: parameters, lifecycle, progress. `configure` checks what was asked for, `activate`
works in a thread, and the process ends with the work. See owled_ros/calibration.py.
"""

from pathlib import Path
import queue
import signal as signals_of_the_system
import sys
import threading

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from owled_ros.bags.live import LiveDrive
from owled_ros.bags.samples import check_bag, Source
from owled_ros.driver.pinhole import camera_info_beside, is_asked
from owled_ros.errors import UserError
from owled_ros.msg import DrivingCommand
from owled_ros.ros import qos
from owled_ros.ros.executor import CalmExecutor
from owled_ros.ros.lifecycle import ManagedNode
from owled_ros.ros.messages import odometry_type, ODOMETRY_TYPES, time_message
from owled_ros.ros.parameters import SPEED_STEERING
from owled_ros.ros.shutdown import end_within, EndSignals, leave
from owled_ros.ros.standard_error import standard_error_that_never_blocks
from owled_ros.ros.starting import start, USER_ERROR
from rcl_interfaces.msg import ParameterDescriptor
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

AUTOSTART_DELAY = 0.1     # s
DIAGNOSTICS_PERIOD = 1.0  # s
PATIENCE = 20.0           # s for the work to notice that it is to stop
WAITING_PAIRS = 32        # of the live drive, at the most

# Name: (default, description); `config/calibration.yaml` lists the same, and a test keeps them
# together. What they must be is checked by the classes that they are handed to.
PARAMETERS = {
    'bag': ('', 'the rosbag2 directory, or several separated by commas; empty: collect from the '
                'live topics'),
    'model': ('embedded', "the model to prune: 'embedded', a directory, or a hub name"),
    'output': ('', 'the directory to make for the pruned model'),
    'image_topic': ('/camera/image_raw', 'the camera, in the bag (the raw name finds its '
                    'compressed topic too) or live'),
    'image_transport': ('raw', 'live only: raw, or compressed for <image_topic>/compressed'),
    'odom_topic': ('/odom', 'odometry, or a twist with a stamp, in base_frame'),
    'odom_type': ('odometry', 'live only: odometry (nav_msgs/Odometry), twist '
                  '(geometry_msgs/TwistStamped), twist_with_covariance or autoware '
                  '(autoware_vehicle_msgs/VelocityReport)'),
    'undistort': (False, 'undo the distortion that the camera info tells of'),
    'field_of_view': (0.0, 'rad across that the model is shown; 0: all that the camera sees'),
    'camera_info_topic': ('', 'sensor_msgs/CameraInfo, where undistort or field_of_view needs it; '
                          'empty: camera_info beside the images'),
    'base_frame': ('base_link', 'frame of the vehicle'),
    'command_topic': ('', 'owled_ros/DrivingCommand; empty: none'),
    'truth_topic': ('', 'owled_ros/DrivingAction to teach instead of the recorded motion; '
                    'empty: none'),
    'explanation_topic': ('', 'owled_ros/Explanation to teach with the action; empty: none'),
    'horizon': (1.0, 's of motion after a frame that make its action'),
    'max_ego_gap': (0.1, 's without odometry that are bridged'),
    'max_command_age': (2.0, 's that a command holds'),
    'sparsity': (0.5, 'share of the prunable weights to prune, from 0 to 0.99'),
    'method': ('admm', 'which weights go: admm, wanda, ...'),
    'allocation': ('fisher', 'how blocks share the budget: fisher, owl, uniform, ...'),
    'statistics': ('dense', 'of the inputs, dense: in the dense model; sequential: in the model '
                   'as it is pruned, two passes more'),
    'pattern': ('unstructured', 'unstructured, or n:m to keep n of m neighbours, as in 2:4'),
    'components': ('both', 'what is pruned: vision, projector, language, head, several of them '
                   'separated by commas, both (vision,language) or all (the projector too)'),
    'component_sparsity': ('', 'a budget of its own for a component, as in vision=0.3; several '
                           'separated by commas; empty: sparsity for each'),
    'joint': (False, 'whether the blocks of all components share one budget'),
    'include': ('', 'regular expression: prune only projections that it is found in the name of; '
                'empty: all'),
    'exclude': ('', 'regular expression: leave projections dense that it is found in the name '
                'of; empty: none'),
    'outlier_threshold': (5.0, "OWL's M: an outlier is above M times the mean score"),
    'outlier_width': (0.08, "OWL's lambda: block sparsities span at most 2 lambda"),
    'samples': (64, 'frames to calibrate on'),
    'minimum_samples': (4, 'fewer samples than this are refused'),
    'held_out': (16, 'other frames to measure the losses on'),
    'seed': (0, 'for the choice of frames; the same seed gives the same bytes'),
    'device': ('auto', "where it is computed: 'auto', 'cpu' or 'cuda'"),
    'activation_bytes': (1 << 28, 'activations beyond this size go to the disk'),
    'spacing': (0.5, 'live only: s between two frames that are collected'),
    'autostart': (True, 'configure and activate without a lifecycle manager'),
    'exit_when_done': (True, 'end the process with the work: status 0 when the model was written'),
}
# Subscriptions are made once, when the node starts.
READ_ONLY = ('bag', 'image_topic', 'image_transport', 'odom_topic', 'odom_type', 'undistort',
             'field_of_view', 'camera_info_topic', 'command_topic', 'autostart')


class Stopped(Exception):
    """The work was asked to end."""


class CalibrationNode(ManagedNode):
    """Configured: what was asked for can be done. Active: it is being done."""

    def __init__(self, **arguments):
        super().__init__('calibration_node', **arguments)
        for name, (default, description) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(
                name=name, description=description, read_only=name in READ_ONLY))
        self.ended = threading.Event()
        self.status = 0
        self._request = None
        self._worker = None
        self._stopping = threading.Event()
        self._live = None
        self._live_fault = None
        self._pairs = queue.Queue()
        self._level, self._line = DiagnosticStatus.OK, 'not configured'
        if not self._value('bag'):
            self._subscribe()
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._publish_diagnostics,
                          MutuallyExclusiveCallbackGroup(), steady)
        if self._value('autostart'):
            self._autostart = self.create_timer(
                AUTOSTART_DELAY, self._on_autostart, MutuallyExclusiveCallbackGroup(), steady)

    def _value(self, name):
        return self.get_parameter(name).value

    def _subscribe(self):
        """Listen to the live drive. One callback group, so that its messages come in turn."""
        kind, topic = Image, self._value('image_topic')
        if self._value('image_transport') == 'compressed':
            kind, topic = CompressedImage, f'{topic}/compressed'
        turn = MutuallyExclusiveCallbackGroup()
        subscriptions = [(kind, topic, self._on_frame, qos.IMAGE),
                         (odometry_type(self._value('odom_type')), self._value('odom_topic'),
                          self._on_odometry, qos.ODOMETRY)]
        if is_asked(self._value('undistort'), self._value('field_of_view')):
            subscriptions.append((
                CameraInfo, self._value('camera_info_topic') or camera_info_beside(
                    self._value('image_topic')), self._on_camera_info, qos.CAMERA_INFO))
        if self._value('command_topic'):
            subscriptions.append((DrivingCommand, self._value('command_topic'),
                                  self._on_command, qos.COMMAND))
        for kind, topic, callback, profile in subscriptions:
            self.create_subscription(kind, topic, callback, profile, callback_group=turn)

    # Lifecycle -------------------------------------------------------------------------------

    def _on_autostart(self):
        self._autostart.cancel()
        begun = self.transition('configure') and self.transition('activate')
        if not begun and self._value('exit_when_done'):
            self.status = USER_ERROR
            self.ended.set()

    def on_configure(self, state):
        """Check everything that can be wrong before the work begins."""
        try:
            source, bags = self._read_source()
            for bag in bags:
                check_bag(bag, source)
            self._request = self._read_request(source, bags)
            calibration().check(self._request)
        except UserError as error:
            self._tell(f'not configured: {error}', DiagnosticStatus.ERROR)
            return TransitionCallbackReturn.FAILURE
        self._tell('configured')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        """Begin the work."""
        if self._worker is not None and self._worker.is_alive():
            self._tell('not activated: the work before is still ending', DiagnosticStatus.WARN)
            return TransitionCallbackReturn.FAILURE
        self._stopping.clear()
        self._pairs = queue.Queue(WAITING_PAIRS)
        self._live_fault = None
        self._live = LiveDrive(self._request.source, self._value('spacing'), self._left_out)
        self._worker = threading.Thread(target=self._work, name='calibration', daemon=True)
        self._worker.start()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state):
        """Ask the work to stop, unless it is over; activating again goes on with it."""
        self._stopping.set()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state):
        """Forget what was asked for."""
        self._request = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Ask the work to stop."""
        self._stopping.set()
        return TransitionCallbackReturn.SUCCESS

    def _read_source(self):
        """Return the Source and the bags; empty when the drive is live."""
        bags = [Path(bag.strip()) for bag in self._value('bag').split(',') if bag.strip()]
        source = _fill(Source, self._values())
        if not bags and (source.truth_topic or source.explanation_topic):
            raise UserError('truth_topic and explanation_topic need a bag; a live drive is '
                            'taught by its motion')
        if self._value('odom_type') == SPEED_STEERING:
            raise UserError(f'odom_type is {SPEED_STEERING!r}, whose messages bear no stamps to '
                            'pair them with frames by; calibrate on another kind of odometry')
        if self._value('odom_type') not in ODOMETRY_TYPES:
            raise UserError(f'odom_type is {self._value("odom_type")!r}; it must be one of '
                            f'{", ".join(ODOMETRY_TYPES)}')
        if self._value('image_transport') not in ('raw', 'compressed'):
            raise UserError(f'image_transport is {self._value("image_transport")!r}; it must be '
                            'raw or compressed')
        return source, bags

    def _read_request(self, source, bags):
        if not self._value('output'):
            raise UserError('parameter output is empty; name the directory to make')
        values = self._values()
        return calibration().Request(
            output=Path(values['output']), model=values['model'], bags=tuple(bags), source=source,
            pruning=settings_of(values), samples=values['samples'],
            held_out=values['held_out'])

    def _values(self):
        return {name: self._value(name) for name in PARAMETERS}

    # Work ------------------------------------------------------------------------------------

    def _work(self):
        """Calibrate; runs in the worker's thread."""
        try:
            if self._request.bags:
                report = calibration().calibrate(self._request, self._progress)
            else:
                report = calibration().calibrate_live(
                    self._request, self._live_pairs(), self._progress)
        except Stopped:
            self._tell('stopped before it was done', DiagnosticStatus.WARN)
            return
        except UserError as error:
            self._tell(f'failed: {error}', DiagnosticStatus.ERROR)
            self._end(USER_ERROR)
        except Exception as error:  # a foreign model may fail in any way
            self._tell(f'failed: {type(error).__name__}: {error}', DiagnosticStatus.ERROR)
            self._end(1)
        else:
            self._tell(f'done: {report["sparsity"]["measured"]:.2%} of the prunable weights are '
                       f'zero; the model is in {self._request.output}')
            self._end(0)

    def _progress(self, line):
        if self._stopping.is_set():
            raise Stopped
        self._tell(line)

    def _live_pairs(self):
        while not self._stopping.is_set():
            if self._live_fault is not None:
                raise self._live_fault
            try:
                yield self._pairs.get(timeout=0.2)
            except queue.Empty:
                continue
        raise Stopped

    def _end(self, status):
        """Leave when the work is over, or stay inactive for the next."""
        self.status = status
        if self._value('exit_when_done'):
            self.ended.set()
        else:
            self.transition('deactivate')

    def stop(self):
        """Ask the work to end and wait for that, from the main thread."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.join(PATIENCE)

    # Live drive ------------------------------------------------------------------------------

    def _on_frame(self, message):
        if self._is_collecting():
            self._live.add_frame(message)

    def _on_odometry(self, message):
        if not self._is_collecting():
            return
        try:
            for pair in self._live.add_odometry(message):
                if not self._pairs.full():  # else enough have been collected
                    self._pairs.put(pair)
        except UserError as error:
            self._live, self._live_fault = None, error

    def _left_out(self, reason):
        self.get_logger().warning(f'left out frames {reason}', throttle_duration_sec=5.0)

    def _on_camera_info(self, message):
        if self._is_collecting():
            self._live.add_camera_info(message)

    def _on_command(self, message):
        if self._is_collecting():
            self._live.add_command(message)

    def _is_collecting(self):
        return self._live is not None and not self._stopping.is_set()

    # Telling ---------------------------------------------------------------------------------

    def _tell(self, line, level=DiagnosticStatus.OK):
        self._level, self._line = level, line
        # One line of code for each severity: rclpy refuses two from the same place.
        if level == DiagnosticStatus.OK:
            self.get_logger().info(line)
        elif level == DiagnosticStatus.WARN:
            self.get_logger().warning(line)
        else:
            self.get_logger().error(line)

    def _publish_diagnostics(self):
        status = DiagnosticStatus(
            level=self._level, message=self._line,
            name=f'{self.get_fully_qualified_name().lstrip("/")}: calibration',
            hardware_id=self._value('model'),
            values=[KeyValue(key='output', value=self._value('output'))])
        message = DiagnosticArray(status=[status])
        message.header.stamp = time_message(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(message)


def calibration():
    """Import what calibrates: torch takes seconds, and a missing bag can be told of before."""
    from owled_ros import calibration
    return calibration


def settings_of(values):
    """Return the PruningSettings that the parameters say."""
    from owled_ros.pruning.settings import parse_shares, PruningSettings
    shares = [share for share in values['component_sparsity'].split(',') if share.strip()]
    expressions = {name: (values[name],) if values[name] else ()
                   for name in ('include', 'exclude')}
    return _fill(PruningSettings, {
        **values, **expressions, 'component_sparsity': parse_shares(shares)})


def _fill(kind, values):
    """Make a dataclass from those of `values` that are fields of it."""
    return kind(**{name: value for name, value in values.items()
                   if name in kind.__dataclass_fields__})


@standard_error_that_never_blocks()
def main(args=None):
    """Run until the work is done; end with 0 when it succeeded, 2 when the request was wrong."""
    signals = EndSignals()
    node = start('calibration_node', CalibrationNode, args)
    executor = CalmExecutor(4)
    executor.add_node(node)
    spinner = executor.spin_in_thread(signals)
    threading.Thread(target=_end_with, args=(node, signals), name='end', daemon=True).start()
    signal = signals.wait()
    end_within(PATIENCE + 10)
    status = 128 + signals_of_the_system.Signals[signal] if signal else node.status
    node.stop()
    executor.shutdown(timeout_sec=1.0)
    spinner.join(1.0)
    node.destroy_node()
    rclpy.try_shutdown()
    # The status is the result, and a thread that is still in compiled code (of the executor, of
    # torch) could abort the interpreter at its end.
    leave(status)


def _end_with(node, signals):
    node.ended.wait()
    signals.end()


if __name__ == '__main__':
    sys.exit(main())
