"""The driving node: camera and odometry in, actions and explanations out.

The shell only: topics, parameters, lifecycle. What is published and when is decided by the small
classes in owled_ros/ros, what to do by owled_ros/driver.
"""

from array import array
import sys
import threading
import time
import traceback

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from owled_ros.driver.action import ActionLimiter, Status
from owled_ros.driver.memory import free_model, settle
from owled_ros.driver.pinhole import camera_info_beside, is_asked
from owled_ros.driver.process import DriverProcess, load_embedded_or_named
from owled_ros.errors import UserError
from owled_ros.film.overlay import draw_action, draw_refusal
from owled_ros.msg import DrivingAction, DrivingCommand, Explanation, ModelInfo
from owled_ros.ros import heartbeat, messages, parameters, qos
from owled_ros.ros.counters import Counters
from owled_ros.ros.decision_loop import DecisionLoop
from owled_ros.ros.diagnostics import Diagnosis, Situation
from owled_ros.ros.executor import CalmExecutor
from owled_ros.ros.inputs import Inputs
from owled_ros.ros.lifecycle import ManagedNode
from owled_ros.ros.machine import Machine
from owled_ros.ros.model_worker import ModelWorker
from owled_ros.ros.outlet import ActionOutlet
from owled_ros.ros.planner_outputs import PlannerOutputs
from owled_ros.ros.refused import one_line, Refused
from owled_ros.ros.shutdown import end_within, EndSignals, leave
from owled_ros.ros.standard_error import standard_error_that_never_blocks
from owled_ros.ros.starting import start
from owled_ros.ros.timekeeper import Timekeeper
from owled_ros.ros.topics import Topics
from owled_ros.ros.watchdog import Watchdog
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64

WATCHDOG_PERIOD = 0.05     # s; how late the watchdog may be
DIAGNOSTICS_PERIOD = 1.0   # s
TOPICS_PERIOD = 1.0        # s between two looks at who publishes
LOG_PERIOD = 10.0          # s between two lines that say the same status
FAILURE_PERIOD = 1.0       # s between two lines that say the same failure
WORKER_PATIENCE = 0.5      # s given to the model to finish before it is left behind
PROCESS_PATIENCE = 6.0     # s, likewise, when its process is killed: the kernel has much to free
KILL_PATIENCE = 5.0        # s for the end of a process that was killed to be noticed
EXECUTOR_PATIENCE = 0.3    # s given to callbacks to finish
DEBUG_PERIOD = 0.2         # s between two pictures of there being no action
GOODBYE_PATIENCE = 0.3     # s given to subscribers to take the last status
END_WITHIN = 1.8           # s from a signal to the end of the process, whatever hangs
# Images, odometry, watchdog, parameters and a transition that waits for the model each hold one
# thread at the most; the rest is for further lifecycle calls.
EXECUTOR_THREADS = 8
LOAD_AGAIN = 'clean the node up and configure it to load the model again'


class DrivingNode(ManagedNode):
    """A managed node; see the README for its topics and config/driving.yaml for parameters."""

    def __init__(self, load_driver=load_embedded_or_named, **arguments):
        """Declare, publish, subscribe; nothing is loaded before `configure`.

        load_driver(model, *, device, dtype, backend, expected_hash) -> a Driver, called in the
        thread that will own it; with the parameter model_process in a process of its own, which
        imports it. Raises rclpy's ParameterException, or UserError, for a parameter that cannot
        be.
        """
        super().__init__('driving_node', **arguments)
        self._load_driver = load_driver
        parameters.declare(self)
        self._settings = None
        self._driver = None
        self._worker = None
        self._model = ''
        self._logged = (Status.UNKNOWN, 0.0)  # the status in the log, and when it was put there
        self._unconfigured_why = ''  # with autostart: why the last `configure` failed
        self._failed = ('', 0.0)  # what failed last, and when that was put in the log
        self._diagnosed = 0.0  # s, steady
        self._killed = None  # s, steady: when the process of a lost model was killed
        self._ending = threading.Event()
        self._seen = np.zeros((360, 640, 3), np.uint8)  # the last frame that was driven by
        self._refused = None   # the last ActionReport, unless it is OK
        self._drawn = (None, b'')  # the one that was drawn last, and its JPEG
        self._counters = Counters()
        self._time = Timekeeper(
            lambda: self.get_clock().now().nanoseconds,
            self.get_parameter('max_clock_skew').value)
        self._topics = Topics()
        watchdog = Watchdog(self._topics)
        self._outlet = ActionOutlet(
            self._publish_action, self._time, watchdog, self._counters)
        self._inputs = Inputs(
            clock=self._time, outlet=self._outlet, watchdog=watchdog, counters=self._counters,
            topics=self._topics, logger=self.get_logger(),
            wall_clock=lambda: not self.get_parameter('use_sim_time').value)
        self._diagnosis = Diagnosis(self.get_fully_qualified_name(), self._counters)
        self._machine = Machine()
        self._heartbeat = heartbeat.Heartbeat(self)
        self._create_publishers()
        self._create_subscriptions()
        self._create_timers()
        self.add_on_set_parameters_callback(self._on_parameters)

    # Wiring ----------------------------------------------------------------------------------

    def _create_publishers(self):
        def publisher(kind, topic, profile):
            return self.create_publisher(
                kind, topic, profile, qos_overriding_options=qos.overridable())

        # Not lifecycle publishers: those are mute when inactive, and then nobody could be told.
        self._actions = publisher(DrivingAction, 'owled/action', qos.ACTION)
        self._planner_outputs = PlannerOutputs(self.get_parameter('outputs').value, publisher)
        self._explanations = publisher(Explanation, 'owled/explanation', qos.EXPLANATION)
        self._info = publisher(ModelInfo, 'owled/info', qos.INFO)
        self._debug = publisher(
            CompressedImage, 'owled/debug_image/compressed', qos.DEBUG_IMAGE)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)

    def _create_subscriptions(self):
        def subscribe(what, kind, topic, callback, profile):
            subscription = self.create_subscription(
                kind, topic, self._unharmed(callback), profile,
                callback_group=MutuallyExclusiveCallbackGroup(),
                qos_overriding_options=qos.overridable())
            self._topics.add(what, topic, subscription.topic_name, kind)

        # They live as long as the node, gated by the outlet: Humble crashes when a subscription
        # is destroyed while its executor spins.
        kind, topic = Image, 'image'
        if self.get_parameter('image_transport').value == 'compressed':
            kind, topic = CompressedImage, self.resolve_topic_name('image') + '/compressed'
        subscribe('frame', kind, topic, self._inputs.image, qos.IMAGE)
        odom_type = self.get_parameter('odom_type').value
        if odom_type == parameters.SPEED_STEERING:
            subscribe('odometry', Float64, 'speed', self._inputs.speed, qos.UNSTAMPED)
            subscribe('steering', Float64, 'steering', self._inputs.steering, qos.UNSTAMPED)
        else:
            subscribe('odometry', messages.odometry_type(odom_type), 'odom',
                      self._inputs.odometry, qos.ODOMETRY)
        if is_asked(self.get_parameter('undistort').value,
                    self.get_parameter('field_of_view').value):
            subscribe('camera info', CameraInfo, self._camera_info_topic(),
                      self._inputs.camera_info, qos.CAMERA_INFO)
        subscribe('command', DrivingCommand, 'command', self._inputs.command, qos.COMMAND)

    def _camera_info_topic(self):
        return (self.get_parameter('camera_info_topic').value
                or camera_info_beside(self.resolve_topic_name('image')))

    def _create_timers(self):
        # ROS timers stop with /clock; a watchdog must not.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, callback in ((WATCHDOG_PERIOD, self._on_watchdog),
                                 (heartbeat.PERIOD, self._heartbeat.beat),
                                 (DEBUG_PERIOD, self._on_debug_image),
                                 (TOPICS_PERIOD, self._on_topics),
                                 (DIAGNOSTICS_PERIOD, self._on_diagnostics)):
            self.create_timer(period, self._unharmed(callback), MutuallyExclusiveCallbackGroup(),
                              steady)
        if self.get_parameter('autostart').value:
            self._autostart = self.create_timer(
                WATCHDOG_PERIOD, self._unharmed(self._on_autostart),
                MutuallyExclusiveCallbackGroup(), steady)

    def _on_autostart(self):
        self._autostart.cancel()
        if self.transition('configure'):
            self.transition('activate')

    def _unharmed(self, callback):
        """Wrap a callback: rclpy ends its executor, and so the node, when one raises.

        What was on its way is lost with it, and the watchdog says that nothing came of it.
        """
        def call(*arguments):
            try:
                callback(*arguments)
            except Exception as error:
                if not self._ending.is_set():  # then the graph goes away under it
                    self._counters.count('callbacks failed')
                    self._log_failure(f'a callback failed: {type(error).__name__}: {error}')
        return call

    # Lifecycle -------------------------------------------------------------------------------

    def on_configure(self, state):
        """Check the parameters, load and warm up the model in the worker's thread."""
        self._unconfigured_why = ''
        try:
            self._settings = parameters.Settings(parameters.current(self))
            self._time.tolerance = self._settings.max_clock_skew
            stopping = threading.Event()
            self._worker = ModelWorker(lambda: self._load(stopping), stopping)
            self._driver = self._worker.wait_until_loaded(
                self._ending, self._settings.load_limit).driver
        except (UserError, InterruptedError) as error:
            return self._not_configured(str(error))
        except BaseException as error:
            self.get_logger().debug(''.join(traceback.format_exception(error)))
            return self._not_configured(f'{type(error).__name__}: {one_line(error)}')
        self._take_over()
        self.get_logger().info(
            f'configured: model {self._model} on {self._driver.backend} '
            f'({self._driver.backend_reason}), images by {self._inputs.decoder_name}')
        return TransitionCallbackReturn.SUCCESS

    def _take_over(self):
        """Say which model is there, and hold its actions to the limits."""
        settings, driver = self._settings, self._driver
        self._model = f'{driver.name} {driver.hash}'
        self._outlet.configure(
            ActionLimiter(settings.limits, settings.wheelbase, settings.horizon), settings)
        self._info.publish(messages.info_message(driver, settings, self._time.now()))

    def _not_configured(self, why):
        words = f'not configured: {why}'
        self.get_logger().error(words)
        if self.get_parameter('autostart').value:  # else who asked for it is told
            self._unconfigured_why = words
        self._release()
        return TransitionCallbackReturn.FAILURE

    def _load(self, stopping):
        """Load the model; return the DecisionLoop around it. Runs in the worker's thread."""
        settings = self._settings
        how = {'device': settings.device, 'dtype': settings.dtype,
               'backend': settings.backend, 'expected_hash': settings.model_hash}
        if settings.model_process:
            driver = DriverProcess(self._load_driver, stopping, settings.model, **how)
        else:
            driver = self._load_driver(settings.model, **how)
        try:
            driver.warm_up()
        except BaseException:
            if settings.model_process:
                driver.close()
            raise
        settle()
        return DecisionLoop(
            driver, inputs=self._inputs, outlet=self._outlet, clock=self._time,
            counters=self._counters, publish_explanation=self._publish_explanation,
            show=self._show_action, log=self._log_failure)

    def on_activate(self, state):
        """Open the gates, unless the model was given up meanwhile."""
        lost = self._lost()
        if lost:
            self.get_logger().error(f'not activated: {lost}; {LOAD_AGAIN}')
            return TransitionCallbackReturn.FAILURE
        self._inputs.clear()
        self._outlet.open()
        self._heartbeat.start()
        self.get_logger().info('active')
        self.get_logger().info(f'listens to {self._topics}')
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state):
        """Close the gates and say so, once."""
        lost = self._lost()
        self._outlet.close(f'{lost}; {LOAD_AGAIN}' if lost else 'the node was deactivated')
        self._heartbeat.stop()
        self.get_logger().info('inactive')
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state):
        """Let the model go."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Say INACTIVE for the last time and let the model go."""
        self._outlet.close('the node is shutting down')
        self._heartbeat.stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state):
        """Fall back to unconfigured."""
        self._outlet.close('the node failed in a transition')
        self._heartbeat.stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _release(self):
        """Stop the worker and forget the model."""
        worker, self._worker = self._worker, None
        self._driver, self._model = None, ''
        if worker is None:
            return
        patience = PROCESS_PATIENCE if self._settings.model_process else WORKER_PATIENCE
        if self._ending.is_set():
            worker.stop(0.0)  # a process that ends takes its threads along
        elif worker.stop(patience):
            del worker
            free_model()
        else:
            self._counters.count('models left behind')
            self.get_logger().warning(
                'the model did not stop in time; its thread and its memory were left behind')

    def say_goodbye(self):
        """End from outside the executor: publish INACTIVE and wait until it was taken."""
        self._ending.set()
        if self.is_finalized() or not self.transition('shutdown'):
            # Another transition is running, or there is none from here: say it all the same.
            self._outlet.close('the node is shutting down', for_good=True)
        self._actions.wait_for_all_acked(Duration(seconds=GOODBYE_PATIENCE))

    # Outputs ---------------------------------------------------------------------------------

    def _on_watchdog(self):
        self._inputs.notice_clock_jump()
        self._outlet.watch()
        self._give_up_a_lost_model()

    def _give_up_a_lost_model(self):
        """Say MODEL_ERROR and become inactive when nothing can be expected of the worker."""
        worker, driver, process = self._worker, self._driver, self._model_process()
        lost = self._lost()
        if not lost:
            self._killed = None
            return
        if process is not None and not worker.ended and self._is_worth_killing():
            self._log_failure(f'{lost}; its process is killed')
            driver.kill(process)  # the worker notices, says so, and starts another one
            return
        ticket = self._outlet.ticket()
        if ticket is not None:
            self._outlet.refuse(Refused(Status.MODEL_ERROR, lost), ticket)
            self.transition('deactivate')

    def _is_worth_killing(self):
        """Return whether it was not killed in vain, as one that is held up in the kernel is."""
        now = time.monotonic()
        self._killed = self._killed or now
        return now - self._killed < KILL_PATIENCE

    def _model_process(self):
        """Return the id of the process that the model runs in, None without one."""
        driver = self._driver
        return driver.process_id() if isinstance(driver, DriverProcess) else None

    def _lost(self):
        """Why nothing can be expected of the model any more, or ''."""
        worker, settings = self._worker, self._settings
        if worker is None:
            return ''
        return worker.ended or worker.hangs(settings.hang_limit, settings.load_limit)

    def _publish_action(self, report):
        self._log_status(report)
        self._refused = None if report.status == Status.OK else report
        settings = self._outlet.settings  # those that it was checked by
        action = messages.action_message(
            report, model=self._model,
            base_frame=self.get_parameter('base_frame').value,
            horizon=settings.horizon if settings else 0.0,
            valid_for=settings.valid_for if settings else 0.0)
        self._actions.publish(action)
        self._planner_outputs.publish(action, settings and settings.limits)

    def _log_status(self, report):
        """Log a status when it changes, and now and then while it stays."""
        now = time.monotonic()
        status, since = self._logged
        if report.status == status and now - since < LOG_PERIOD:
            return
        self._logged = (report.status, now)
        if report.status not in (Status.OK, Status.INACTIVE):
            self.get_logger().warning(f'{report.status.name}: {report.reason}')

    def _log_failure(self, words):
        now = time.monotonic()
        last, at = self._failed
        if words != last or now - at > FAILURE_PERIOD:  # it may fail at every frame
            self._failed = (words, now)
            self.get_logger().error(words)

    def _publish_explanation(self, report):
        self._explanations.publish(messages.explanation_message(
            report, base_frame=self._settings.base_frame, model=self._model))

    def _show_action(self, frame, report, text):
        self._seen = frame
        if self._debug.get_subscription_count():
            self._publish_debug_image(report.stamp, _jpeg(draw_action(
                frame, report.action, text, f'{report.status.name}   {report.latency / 1e6:.0f} '
                                            'ms after the frame')))

    def _on_debug_image(self):
        """Show that there is no action: a picture that stands still would look like the last one.

        Here and not where it is said: that must not wait for a drawing.
        """
        report = self._refused
        if report is None or not self._debug.get_subscription_count():
            return
        if report is not self._drawn[0]:
            self._drawn = (report, _jpeg(draw_refusal(self._seen, report.status, report.reason)))
        if report is self._refused:     # an action may have come out meanwhile
            self._publish_debug_image(report.published, self._drawn[1])

    def _publish_debug_image(self, stamp, jpeg):
        message = CompressedImage(format='jpeg')
        message.header.stamp = messages.time_message(stamp)
        message.data = array('B', jpeg)
        self._debug.publish(message)

    def _on_diagnostics(self):
        steady = time.monotonic()
        if steady - self._diagnosed < DIAGNOSTICS_PERIOD / 2:
            return  # the last one was late, and rates over so little time say nothing
        self._diagnosed = steady
        now, worker = self._time.now(), self._worker
        self._diagnostics.publish(self._diagnosis.array(Situation(
            stamp=now, steady=steady, active=self._outlet.ticket() is not None,
            model=self._model, clamps=self._outlet.clamps(), ages=self._inputs.ages(now),
            health=self._machine.health(self._model_process()), lost=self._lost(),
            not_configured=self._unconfigured_why,
            busy=worker.busy() if worker is not None else 0.0, settings=self._settings)))

    def _on_topics(self):
        self._topics.look(lambda topic: [
            publisher.topic_type for publisher in self.get_publishers_info_by_topic(topic)])

    def _on_parameters(self, changed):
        """Check a change, once configured as a whole: then it holds from the next frame on."""
        changes = {parameter.name: parameter.value for parameter in changed
                   if parameter.name in parameters.BY_NAME}
        try:
            unconfigured = self.is_unconfigured()
            parameters.check_change(changes, unconfigured)
            if changes and not unconfigured:
                self._apply(parameters.current(self) | changes)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, values):
        settings = parameters.Settings(values)
        self._settings = settings
        self._time.tolerance = settings.max_clock_skew
        self._outlet.change(settings)
        if self._driver is not None:
            self._info.publish(messages.info_message(self._driver, settings, self._time.now()))


def _jpeg(picture):
    return cv2.imencode('.jpg', picture[:, :, ::-1])[1].tobytes()


@standard_error_that_never_blocks()
def main(args=None, load_driver=load_embedded_or_named):
    """Run the node until SIGINT or SIGTERM, then end the process with status 0.

    Raises SystemExit when it cannot start, with 2 where that is for what it was given.
    """
    signals = EndSignals()
    node = start('driving_node', lambda: DrivingNode(load_driver), args)
    executor = CalmExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    spinner = executor.spin_in_thread(signals)
    signal = signals.wait()
    end_within(END_WITHIN)
    node.get_logger().info(f'ends on {signal}' if signal else 'ends: its executor has ended')
    node.say_goodbye()
    executor.shutdown(timeout_sec=EXECUTOR_PATIENCE)
    spinner.join(EXECUTOR_PATIENCE)
    node.destroy_node()
    rclpy.try_shutdown()
    # Everything of ours is closed. The interpreter's own end takes long with torch in it, waits
    # for threads that hang, and aborts when one of them still runs compiled code.
    leave(0 if signal else 1)


if __name__ == '__main__':
    sys.exit(main())
