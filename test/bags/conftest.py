"""Makes recordings whose motion is known exactly, in every storage and kind of image."""

from types import SimpleNamespace

import cv2
import numpy as np
from owled_ros.bags.types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    ODOMETRY,
    TWIST,
    TWIST_WITH_COVARIANCE,
    typestore,
    VELOCITY_REPORT,
)
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

START = 1_700_000_000 * 10**9
CURVATURE = 0.02
SPEED = 4.0
ACCELERATION = 1.25


def picture(number):
    """Return a 16x24 RGB picture that tells its number (below 50), three flat colours in all."""
    frame = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    frame[8:, :12] = 5 * number
    return frame


class Recorder:
    """Writes single messages with rosbags, apart from the DriveWriter that is tested."""

    def __init__(self, path, storage=StoragePlugin.MCAP, image='bgr8', pad=0):
        self.writer = Writer(path, version=8, storage_plugin=storage)
        self.store = typestore()
        self.image, self.pad = image, pad
        self.connections = {}

    def make(self, name, **values):
        return self.store.types[name](**values)

    def header(self, stamp, frame=''):
        time = self.make('builtin_interfaces/msg/Time', sec=stamp // 10**9,
                         nanosec=stamp % 10**9)
        return self.make('std_msgs/msg/Header', stamp=time, frame_id=frame)

    def write(self, topic, message, recorded):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, message.__msgtype__, typestore=self.store)
        data = self.store.serialize_cdr(message, message.__msgtype__)
        self.writer.write(self.connections[topic], recorded, data)

    def frame(self, stamp, rgb, topic='/camera/image_raw', recorded=None):
        header = self.header(stamp, 'camera')
        if self.image in ('jpeg', 'png'):
            data = cv2.imencode(f'.{self.image}', rgb[:, :, ::-1])[1].ravel()
            message = self.make(COMPRESSED_IMAGE, header=header, format=self.image, data=data)
            topic += '/compressed'
        else:
            order = {'bgr8': slice(None, None, -1), 'mono8': slice(0, 1)}.get(
                self.image, slice(None))
            pixels = rgb[:, :, order]
            rows = pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
            rows = np.pad(rows, ((0, 0), (0, self.pad)))
            message = self.make(
                IMAGE, header=header, height=rgb.shape[0], width=rgb.shape[1],
                encoding=self.image, is_bigendian=0, step=rows.shape[1], data=rows.ravel())
        self.write(topic, message, stamp if recorded is None else recorded)

    def odometry(self, stamp, speed, yaw_rate, frame='base_link', recorded=None):
        make = self.make
        zero = make('geometry_msgs/msg/Point', x=0.0, y=0.0, z=0.0)
        pose = make('geometry_msgs/msg/Pose', position=zero, orientation=make(
            'geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0))
        self.write('/odom', make(
            ODOMETRY, header=self.header(stamp, 'odom'), child_frame_id=frame,
            pose=make('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=np.zeros(36)),
            twist=make('geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                       twist=self._twist(speed, yaw_rate))),
                   stamp if recorded is None else recorded)

    def twist(self, stamp, speed, yaw_rate):
        self.write('/odom', self.make(
            TWIST, header=self.header(stamp, 'base_link'),
            twist=self._twist(speed, yaw_rate)), stamp)

    def twist_with_covariance(self, stamp, speed, yaw_rate):
        self.write('/odom', self.make(
            TWIST_WITH_COVARIANCE, header=self.header(stamp, 'base_link'), twist=self.make(
                'geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                twist=self._twist(speed, yaw_rate))), stamp)

    def velocity_report(self, stamp, speed, yaw_rate):
        self.write('/odom', self.make(
            VELOCITY_REPORT, header=self.header(stamp, 'base_link'), longitudinal_velocity=speed,
            lateral_velocity=0.0, heading_rate=yaw_rate), stamp)

    def camera_info(self, stamp, focal=30.0, topic='/camera/camera_info', distortion=(0.0,) * 5,
                    width=24, height=16):
        roi = self.make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                        width=0, do_rectify=False)
        matrix = [focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1]
        self.write(topic, self.make(
            CAMERA_INFO, header=self.header(stamp, 'camera'), height=height, width=width,
            distortion_model='plumb_bob', d=np.array(distortion), k=np.array(matrix, float),
            r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0, roi=roi), stamp)

    def _twist(self, speed, yaw_rate):
        return self.make(
            'geometry_msgs/msg/Twist',
            linear=self.make('geometry_msgs/msg/Vector3', x=speed, y=0.0, z=0.0),
            angular=self.make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=yaw_rate))


def record_circle(path, seconds=2.5, receive_delay=0, holes=(), odom='odometry', **options):
    """Constant acceleration on a circle: frames every 0.1 s, odometry every 20 ms.

    Frames are stamped 7 ms after an odometry message; `receive_delay` [ns] makes the time of
    recording differ from them; no odometry falls into the `holes` [(start, end) in s].
    """
    recorder = Recorder(path, **options)
    with recorder.writer:
        for tick in range(round(seconds * 50) + 1):
            time = tick / 50
            stamp = START + tick * 20_000_000
            speed = SPEED + ACCELERATION * time
            if not any(start < time < end for start, end in holes):
                getattr(recorder, odom)(stamp, speed, CURVATURE * speed)
            if tick % 5 == 0:
                recorder.frame(stamp + 7_000_000, picture(tick // 5),
                               recorded=stamp + 7_000_000 + receive_delay)
    return path


@pytest.fixture
def recording():
    return SimpleNamespace(
        Recorder=Recorder, circle=record_circle, picture=picture, start=START, speed=SPEED,
        curvature=CURVATURE, acceleration=ACCELERATION)
