"""A driving node in a process of its own, and the campaign's end of its topics."""

import os
from pathlib import Path
import sys
import time

from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
import rclpy
from sensor_msgs.msg import CompressedImage, Image

sys.path.insert(0, str(Path(__file__).parents[1] / 'driving_node'))

from owled_ros.msg import DrivingCommand  # noqa: E402, I100
from owled_ros.ros import messages  # noqa: E402
import processes  # noqa: E402
from rig import Rig  # noqa: E402

CAMERA_DEPTH = 10


class Bench(Rig):
    """The rig of the node's tests, with a witness in place of its list of actions."""

    def __init__(self, folder, witness, *, program, compressed, **parameters):
        """Take the folder for the log; see Rig for the rest."""
        self._witness = witness
        self._kind = CompressedImage if compressed else Image
        super().__init__(
            folder, program=program,
            image_transport='compressed' if compressed else 'raw', **parameters)

    def _connect(self, image_topic):
        self._camera_topic = f'{image_topic}/compressed' if self._kind is CompressedImage \
            else image_topic
        self.actions = self._witness
        self.second = None
        super()._connect(image_topic)
        # Cameras come and go, in the stream's thread. No executor has their node: in one, rclpy
        # would be about to wait for what is just being destroyed, raise, and hear nothing more.
        self._cameras = rclpy.create_node('cameras', context=self.node.context)
        self._camera = self._new_camera()

    def _new_camera(self):
        return self._cameras.create_publisher(self._kind, self._camera_topic, CAMERA_DEPTH)

    # Publishing: from the stream's thread --------------------------------------------------------

    def publish_frame(self, message, second):
        camera = self.second if second else self._camera
        if camera is not None:
            camera.publish(message)

    def publish_odometry(self, message):
        assert isinstance(message, Odometry)
        self._odom.publish(message)

    def publish_command(self, route, stamp, speed_limit):
        message = DrivingCommand(route=route, speed_limit=speed_limit)
        message.header.stamp = messages.time_message(stamp)
        self._command.publish(message)

    def stop_camera(self):
        camera, self._camera = self._camera, None
        self._cameras.destroy_publisher(camera)

    def start_camera(self):
        self._camera = self._new_camera()

    def start_second(self):
        self.second = self._new_camera()

    def stop_second(self):
        second, self.second = self.second, None
        self._cameras.destroy_publisher(second)

    # The node's process --------------------------------------------------------------------------

    def is_up(self):
        return self.process.poll() is None

    def hears(self):
        return self._spinner.is_alive()

    def waited(self):
        """Seconds for which threads of node, model and campaign were ready and had to wait.

        {thread: s}; empty where the kernel does not tell.
        """
        waits = {}
        watched = [os.getpid(), self.process.pid, *filter(None, [self.model_process()])]
        for path in (path for process in watched
                     for path in Path(f'/proc/{process}/task').glob('*/schedstat')):
            try:
                waits[path.parent.name] = int(path.read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                continue  # the thread has ended, or the kernel keeps no such statistics
        return waits

    def parameter(self, name):
        """Return the value of a parameter of the node, as a message."""
        return self.call(GetParameters, 'get_parameters',
                         GetParameters.Request(names=[name])).values[0]

    def resources(self):
        """Return what may leak: resident memory [MB], open files, threads."""
        return {'memory_mb': round(self.memory() / 1e6, 1), 'threads': self.threads(),
                'files': processes.open_files(self.process.pid)}

    def find_services(self):
        """Let discovery of the services be over before the first fault needs one."""
        self.state()
        self.change('activate')  # refused: it is active
        self.set('explain', True)
        self.parameter('explain')

    def change_patiently(self, label):
        """Ask for a transition again while another one is still running."""
        end = time.monotonic() + 2.0
        while not self.change(label):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def end(self, number):
        """Send a signal; return (exit status, s), None for a process that was gone before."""
        if not self.is_up():
            return None
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - began
