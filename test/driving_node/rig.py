"""Another process's view of the driving node: starts it, feeds it, and hears what it says."""

import contextlib
import multiprocessing
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64

sys.path.insert(0, str(Path(__file__).parents[1]))

from owled_ros.bags.motion import twist_of  # noqa: E402, I100
from owled_ros.driver.pinhole import camera_info_beside  # noqa: E402
from owled_ros.msg import DrivingAction, DrivingCommand, Explanation, ModelInfo  # noqa: E402
from owled_ros.ros.messages import odometry_type  # noqa: E402
import processes  # noqa: E402

PROGRAM = Path(__file__).with_name('scripted_driver.py')
OWN_SEGMENT = re.compile(r'/dev/shm/fastdds_[0-9a-f]{16}_el')  # of one process, held open
PATIENCE = 90.0  # s; long, because other work may share the machine
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Generous limits: what a test is not about must not fail it on a busy machine.
CALM = {'max_frame_age': 3.0, 'max_ego_age': 2.0, 'deadline': 4.0, 'valid_for': 9.0,
        'horizon': 10.0, 'max_explanation_age': 60.0}


class ForkedNode:
    """A node process that need not import everything anew; like subprocess.Popen in its use."""

    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['pytest', 'owled_ros.driving_node', 'scripted_driver'])

    def __init__(self, command, log):
        self._process = self.context.Process(
            target=run_node, args=(command, str(log), dict(os.environ)))
        self._process.start()

    @property
    def pid(self):
        return self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired('driving_node', timeout)
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()


def run_node(command, log, environment):
    """Be the driving node, in a process that was forked for it."""
    from scripted_driver import main
    os.environ.update(environment)
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(command))


def picture(seed=0, height=24, width=32):
    """Return an (H, W, 3) uint8 RGB picture of noise."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


class Rig:
    """The node's process, and a node beside it that speaks and listens."""

    def __init__(self, folder, script='scripted', program=None, remaps=(),
                 image_topic='image', namespace='', **parameters):
        """Start a forked node, or `program` in an interpreter of its own.

        namespace: of the node and of everything that is said to it.
        """
        self.log = folder / 'node.log'
        self.log.touch()
        values = CALM | {'model': script} | parameters
        if program is None:  # forked, to be there at once: the model in a thread is that too
            values = {'model_process': False} | values
        words = [f'{name}:={str(value).lower() if isinstance(value, bool) else value}'
                 for name, value in values.items()]
        command = ['--ros-args']
        command += [part for word in words for part in ('-p', word)]
        if namespace:
            remaps = [*remaps, f'__ns:=/{namespace}']
        command += [part for remap in remaps for part in ('-r', remap)]
        self._program, self._command_line = program, command
        self.start_process()
        self.actions, self.explanations, self.infos = [], [], []
        self.diagnostics, self.pictures = [], []
        self._frames = 0
        self._apart = parameters.get('odom_type') == 'speed_steering'
        self._odom_type = odometry_type(parameters.get('odom_type', 'odometry'))
        self._clients = {}
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node('tester', context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._connect(image_topic)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()

    def start_process(self):
        """Start the node's process, or another one when it has ended; the log goes on."""
        if self._program is None:
            self.process = ForkedNode([str(PROGRAM), *self._command_line], self.log)
            return
        with open(self.log, 'a') as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self._program), *self._command_line], stdout=log, stderr=log)

    def _spin(self):
        with contextlib.suppress(rclpy.executors.ExternalShutdownException):
            self._executor.spin()

    def _connect(self, image_topic):
        node = self.node
        self._image = node.create_publisher(Image, image_topic, 10)
        self._compressed = node.create_publisher(
            CompressedImage, f'{image_topic}/compressed', 10)
        self._odom = node.create_publisher(
            *(Float64, 'speed') if self._apart else (self._odom_type, 'odom'), 10)
        self._steering = node.create_publisher(Float64, 'steering', 10)
        self._camera_info = node.create_publisher(
            CameraInfo, camera_info_beside(image_topic), 10)
        self._command = node.create_publisher(DrivingCommand, 'command', 10)
        self._clock = node.create_publisher(Clock, '/clock', 10)
        for kind, topic, heard, profile in (
                (DrivingAction, 'owled/action', self.actions, 100),
                (Explanation, 'owled/explanation', self.explanations, 100),
                (ModelInfo, 'owled/info', self.infos, LATCHED),
                (DiagnosticArray, '/diagnostics', self.diagnostics, 100)):
            node.create_subscription(kind, topic, heard.append, profile)

    def watch(self):
        """Listen to the debug image too."""
        self.node.create_subscription(
            CompressedImage, 'owled/debug_image/compressed', self.pictures.append, SENSOR)

    # Asking ----------------------------------------------------------------------------------

    def call(self, kind, name, request):
        if name not in self._clients:
            client = self._clients[name] = self.node.create_client(kind, f'driving_node/{name}')
            assert client.wait_for_service(PATIENCE), f'no service {name}; see {self.words()}'
            # A service is seen before its answers have found their way: the first may get lost.
            time.sleep(0.5)
        client = self._clients[name]
        future = client.call_async(request)
        self.wait(future.done, f'an answer of {name}')
        return future.result()

    def state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def change(self, label):
        """Ask for a transition; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=label))
        return self.call(ChangeState, 'change_state', request).success

    def set(self, name, value):
        """Set a parameter; return the result (successful, reason)."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, 'set_parameters', request).results[0]

    def set_together(self, **values):
        """Set parameters at once; return the result (successful, reason)."""
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result

    # Feeding ---------------------------------------------------------------------------------

    def wait_until_heard(self):
        """Wait until the node is there and every topic has found its other end."""
        self.wait(lambda: self._image.get_subscription_count()
                  + self._compressed.get_subscription_count(), 'a subscription to images')
        self.wait(self._odom.get_subscription_count, 'a subscription to odometry')
        self.wait(lambda: self.node.count_publishers('owled/action'), 'a publisher of actions')
        self.wait(lambda: self.infos, 'the model info')

    def now(self):
        return self.node.get_clock().now().nanoseconds

    def odometry(self, speed=5.0, yaw_rate=0.0, age=0.0, stamp=None, frame='base_link'):
        if self._apart:
            self.steering()
            return self.speed(speed)
        message = self._odom.msg_type()
        if isinstance(message, Odometry):
            message.child_frame_id = frame
        else:
            message.header.frame_id = frame
        message.header.stamp = self._stamp(age, stamp)
        _, twist = twist_of(message)
        twist.linear.x, twist.angular.z = speed, yaw_rate
        self._odom.publish(message)

    def speed(self, speed):
        self._odom.publish(Float64(data=speed))

    def steering(self, angle=0.0):
        self._steering.publish(Float64(data=angle))

    def camera_info(self, focal=40.0, width=32, height=24, **changed):
        """Publish what an ideal camera would; `changed`: other fields."""
        matrix = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
        message = CameraInfo(**{'width': width, 'height': height, 'distortion_model': 'plumb_bob',
                                'd': [0.0] * 5, 'k': matrix} | changed)
        message.header.stamp = self._stamp(0.0, None)
        self._camera_info.publish(message)

    def image(self, pixels=None, age=0.0, stamp=None, encoding='rgb8', data=None):
        """Publish a raw image; return its stamp [ns]."""
        self._frames += 1
        pixels = picture(self._frames) if pixels is None else pixels
        message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                        step=pixels.shape[1] * 3)
        message.header.stamp = self._stamp(age, stamp)
        message.data = pixels.tobytes() if data is None else data
        self.publish_image(message)
        return nanoseconds(message.header.stamp)

    def publish_image(self, message):
        """Publish a whole message, or the bytes of one."""
        self._image.publish(message)

    def compressed(self, data, age=0.0, stamp=None):
        message = CompressedImage(format='jpeg', data=data)
        message.header.stamp = self._stamp(age, stamp)
        self._compressed.publish(message)
        return nanoseconds(message.header.stamp)

    def command(self, route, age=0.0, speed_limit=float('nan')):
        message = DrivingCommand(route=route, speed_limit=speed_limit)
        message.header.stamp = self._stamp(age, None)
        self._command.publish(message)

    def tick(self, stamp):
        """Publish /clock at `stamp` [ns]."""
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp, 10**9)
        self._clock.publish(message)

    def _stamp(self, age, stamp):
        stamp = self.now() - int(age * 1e9) if stamp is None else stamp
        return rclpy.time.Time(nanoseconds=stamp).to_msg()

    def drive(self, until, what, period=0.05, **frame):
        """Publish odometry and frames every `period` [s] until `until()` is true; return it."""
        def feed():
            self.odometry()
            self.image(**frame)
        return self.wait(until, what, period, feed)

    # Hearing ---------------------------------------------------------------------------------

    def wait(self, until, what, period=0.01, meanwhile=lambda: None):
        """Return `until()` once it is true; fail after PATIENCE."""
        end = time.monotonic() + PATIENCE
        while not (result := until()):
            assert time.monotonic() < end, f'waited in vain for {what}; log:\n{self.words()}'
            meanwhile()
            time.sleep(period)
        return result

    def statuses(self, since=0):
        return [action.status for action in self.actions[since:]]

    def heard(self, status, since=0, words=''):
        """Return the first action with `status`, and `words` in its reason, or None.

        since: how many actions were heard before and are passed over.
        """
        return next((action for action in self.actions[since:]
                     if action.status == status and words in action.reason), None)

    def words(self):
        return self.log.read_text()

    def model_process(self):
        """Return the id of the process that the model runs in, or None."""
        return processes.model_process(self.process.pid)

    def memory(self):
        """Return the resident memory of the node's process in bytes."""
        return processes.resident(self.process.pid)

    def threads(self):
        """Return how many threads the node's process has."""
        return processes.threads(self.process.pid)

    def shared_memory(self):
        """Return the files of shared memory that belong to the node's part in Fast DDS."""
        # The ports of a domain are everybody's; the segment with the data is that of the process
        # that holds its lock file open.
        folder = Path(f'/proc/{self.process.pid}/fd')
        held = [os.readlink(link) for link in folder.iterdir()]
        return [Path(path) for name in held for path in (name, name.removesuffix('_el'))
                if OWN_SEGMENT.fullmatch(name)]

    # Ending ----------------------------------------------------------------------------------

    def signal(self, number):
        """Send a signal; return (exit status, seconds until the end)."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        return status, time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._executor.shutdown()
        self._context.try_shutdown()
        self._spinner.join(PATIENCE)
