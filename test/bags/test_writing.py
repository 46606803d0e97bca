"""The demo bag: whole or not there, with the topics, types and QoS profiles that it promises."""

import math

import numpy as np
from owled_ros.bags.reading import Bag
from owled_ros.bags.samples import stamp_of
from owled_ros.bags.types import message_folder
from owled_ros.bags.writing import DriveWriter
from owled_ros.driver.action import Action, EgoState, Maneuver
from owled_ros.driver.pinhole import Camera, camera_of, Lens
from owled_ros.errors import UserError
import pytest
from rosbags.interfaces import QosReliability


def write(path, storage, fail=False):
    with DriveWriter(path, storage) as writer:
        ego = EgoState(4.0, 0.2)
        writer.write_odometry(10**9, (1.0, 2.0, math.pi / 2), ego)
        writer.write_camera_info(10**9, (64, 48), 50.0, (32.0, 24.0))
        writer.write_frame(10**9, np.zeros((48, 64, 3), np.uint8))
        writer.write_truth(10**9, ego, Action(-5.0, 0.1, Maneuver.STOP), 'A red light.')
        if fail:
            raise KeyboardInterrupt


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_topics_and_contents(tmp_path, storage):
    write(tmp_path / 'deep' / 'bag', storage)
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['bag']
    with Bag(tmp_path / 'deep' / 'bag') as bag:
        assert bag.topics == {
            '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
            '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
            '/odom': 'nav_msgs/msg/Odometry',
            '/owled/truth': 'owled_ros/msg/DrivingAction',
            '/owled/truth_explanation': 'owled_ros/msg/Explanation'}
        offered = {c.topic: c.ext.offered_qos_profiles for c in bag.connections}
        messages = dict(bag.messages())
    image, = offered['/camera/image_raw/compressed']
    assert image.reliability == QosReliability.BEST_EFFORT and image.depth == 1
    info = messages['/camera/camera_info']
    picture = messages['/camera/image_raw/compressed']
    assert stamp_of(info) == stamp_of(picture) and info.header.frame_id == 'camera'
    lens = Lens(50.0, 50.0, 32.0, 24.0)
    assert camera_of(info) == Camera(64, 48, raw=lens, rectified=lens)
    odometry = messages['/odom']
    assert (odometry.child_frame_id, odometry.header.frame_id) == ('base_link', 'odom')
    assert odometry.pose.pose.orientation.z == pytest.approx(math.sqrt(0.5))
    truth = messages['/owled/truth']
    assert truth.status == truth.OK and truth.maneuver == truth.STOP
    assert truth.target_speed == 0
    assert truth.steering_angle == pytest.approx(math.atan(0.27))
    assert messages['/owled/truth_explanation'].action_sequence == truth.sequence == 1
    assert picture.header.frame_id == 'camera'


def test_nothing_is_left_of_a_broken_off_bag(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / 'bag', 'mcap', fail=True)
    assert not list(tmp_path.iterdir())


def test_an_existing_bag_is_not_overwritten(tmp_path):
    write(tmp_path / 'bag', 'mcap')
    with pytest.raises(UserError, match='is there already'):
        DriveWriter(tmp_path / 'bag')
    with pytest.raises(UserError, match='must be one of mcap, sqlite3'):
        DriveWriter(tmp_path / 'other', 'bag')


def test_message_definitions_are_found():
    assert (message_folder() / 'Explanation.msg').is_file()
