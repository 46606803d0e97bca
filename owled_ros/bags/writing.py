"""Writes a recorded drive: camera, odometry, and the truth that an expert would answer."""

import math
from pathlib import Path
import shutil
import tempfile

import cv2
import numpy as np
from owled_ros.bags.types import (
    ACTION,
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    EXPLANATION,
    ODOMETRY,
    typestore,
)
from owled_ros.driver.action import Status
from owled_ros.errors import UserError
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

IMAGE_TOPIC = '/camera/image_raw/compressed'
CAMERA_INFO_TOPIC = '/camera/camera_info'
ODOM_TOPIC = '/odom'
TRUTH_TOPIC = '/owled/truth'
TRUTH_EXPLANATION_TOPIC = '/owled/truth_explanation'
STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
METADATA_VERSION = 8  # notes QoS profiles as Humble does; newer ROS 2 reads them too
JPEG_QUALITY = 90


def qos(reliability, depth):
    """Return an offered QoS profile as a recorder would have noted it."""
    return Qos(QosHistory.KEEP_LAST, depth, reliability, QosDurability.VOLATILE, QosTime(0, 0),
               QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)


TOPICS = {
    IMAGE_TOPIC: (COMPRESSED_IMAGE, qos(QosReliability.BEST_EFFORT, 1)),
    CAMERA_INFO_TOPIC: (CAMERA_INFO, qos(QosReliability.BEST_EFFORT, 1)),
    ODOM_TOPIC: (ODOMETRY, qos(QosReliability.RELIABLE, 50)),
    TRUTH_TOPIC: (ACTION, qos(QosReliability.RELIABLE, 10)),
    TRUTH_EXPLANATION_TOPIC: (EXPLANATION, qos(QosReliability.RELIABLE, 10)),
}


class DriveWriter:
    """Writes a bag as a context manager; it appears at `path` only when it is whole.

    Times are nanoseconds, and serve as header stamp and as time of recording. Give messages in
    the order of their times.
    """

    def __init__(self, path, storage='mcap', *, wheelbase=2.7, horizon=1.0,
                 base_frame='base_link', camera_frame='camera'):
        """Take where to write, 'mcap' or 'sqlite3', wheelbase [m] and horizon [s] of the truth."""
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f'{self.path} is there already; remove it or choose another name')
        if storage not in STORAGES:
            raise UserError(f'storage is {storage!r}; it must be one of {", ".join(STORAGES)}')
        self.storage = STORAGES[storage]
        self.wheelbase, self.horizon = wheelbase, horizon
        self.base_frame, self.camera_frame = base_frame, camera_frame
        self.sequence = 0
        self.store = typestore()

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # rosbag2 names the file after its folder, so the folder has its final name in a
        # temporary one.
        self.folder = Path(tempfile.mkdtemp(prefix='.bag-', dir=self.path.parent))
        self.writer = Writer(self.folder / self.path.name, version=METADATA_VERSION,
                             storage_plugin=self.storage)
        self.writer.open()
        self.connections = {
            topic: self.writer.add_connection(topic, msgtype, typestore=self.store,
                                              offered_qos_profiles=[profile])
            for topic, (msgtype, profile) in TOPICS.items()}
        return self

    def __exit__(self, failure, *_):
        try:
            if failure:
                self.writer.abort()
            else:
                self.writer.close()
                (self.folder / self.path.name).rename(self.path)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def write_frame(self, stamp, frame):
        """Write a picture, (H, W, 3) uint8 RGB, as JPEG."""
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        self._write(IMAGE_TOPIC, stamp, header=self._header(stamp, self.camera_frame),
                    format='jpeg', data=data.ravel())

    def write_camera_info(self, stamp, size, focal, centre):
        """Write a camera without distortion: size (width, height), focal length, centre [pixels].

        centre: (x, y), the principal point.
        """
        (width, height), (x, y) = size, centre
        whole = self._make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                           width=0, do_rectify=False)
        projection = np.array([[focal, 0, x, 0], [0, focal, y, 0], [0, 0, 1, 0]], float)
        self._write(CAMERA_INFO_TOPIC, stamp, header=self._header(stamp, self.camera_frame),
                    height=height, width=width, distortion_model='plumb_bob', d=np.zeros(5),
                    k=projection[:, :3].ravel(), r=np.eye(3).ravel(), p=projection.ravel(),
                    binning_x=0, binning_y=0, roi=whole)

    def write_odometry(self, stamp, pose, ego):
        """Write the pose (x [m], y [m], heading [rad]) in `odom`, and the EgoState's motion."""
        x, y, heading = pose
        make = self._make
        position = make('geometry_msgs/msg/Point', x=x, y=y, z=0.0)
        orientation = make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0,
                           z=math.sin(heading / 2), w=math.cos(heading / 2))
        linear = make('geometry_msgs/msg/Vector3', x=ego.speed, y=0.0, z=0.0)
        angular = make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=ego.yaw_rate)
        self._write(
            ODOM_TOPIC, stamp, header=self._header(stamp, 'odom'), child_frame_id=self.base_frame,
            pose=make('geometry_msgs/msg/PoseWithCovariance', covariance=np.zeros(36),
                      pose=make('geometry_msgs/msg/Pose', position=position,
                                orientation=orientation)),
            twist=make('geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                       twist=make('geometry_msgs/msg/Twist', linear=linear, angular=angular)))

    def write_truth(self, stamp, ego, action, explanation):
        """Write the right Action for the frame at `stamp`, and the sentence that explains it."""
        self.sequence += 1
        horizon = self._time(round(self.horizon * 1e9), 'Duration')
        nothing = self._time(0, 'Duration')
        target_speed = max(0.0, ego.speed + action.acceleration * self.horizon)
        self._write(
            TRUTH_TOPIC, stamp, header=self._header(stamp, self.base_frame),
            published=self._time(stamp), sequence=self.sequence, status=int(Status.OK), reason='',
            acceleration=action.acceleration, curvature=action.curvature,
            steering_angle=math.atan(self.wheelbase * action.curvature),
            target_speed=target_speed, horizon=horizon, maneuver=int(action.maneuver),
            limits_applied=0, confidence=1.0, latency=nothing, compute_time=nothing,
            valid_for=horizon, model='truth')
        self._write(
            TRUTH_EXPLANATION_TOPIC, stamp, header=self._header(stamp, self.base_frame),
            action_sequence=self.sequence, text=explanation, complete=True, confidence=1.0,
            model='truth')

    def _write(self, topic, stamp, **values):
        msgtype = TOPICS[topic][0]
        data = self.store.serialize_cdr(self._make(msgtype, **values), msgtype)
        self.writer.write(self.connections[topic], stamp, data)

    def _make(self, msgtype, **values):
        return self.store.types[msgtype](**values)

    def _header(self, stamp, frame):
        return self._make('std_msgs/msg/Header', stamp=self._time(stamp), frame_id=frame)

    def _time(self, nanoseconds, kind='Time'):
        sec, nanosec = divmod(nanoseconds, 10**9)
        return self._make(f'builtin_interfaces/msg/{kind}', sec=sec, nanosec=nanosec)
