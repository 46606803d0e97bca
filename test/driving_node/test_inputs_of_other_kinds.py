"""Cameras that tell how they see; speed and steering on topics of their own; other stacks."""

import math
import sys
from types import ModuleType, SimpleNamespace

from owled_ros.errors import UserError
from owled_ros.msg import DrivingAction
from owled_ros.ros.messages import motion, odometry_type
import pytest
from rig import picture


def feed(rig, **info):
    """Return what publishes odometry, camera info and a frame."""
    def publish():
        rig.odometry()
        rig.camera_info(**info)
        rig.image()
    return publish


def refused(rig, status, words, publish):
    """Wait for a status from now on; no action that is OK may come with it."""
    rig.wait(lambda: rig.actions and rig.actions[-1].status == status
             and words in rig.actions[-1].reason, words, 0.05, publish)
    since = len(rig.actions)
    rig.wait(lambda: len(rig.actions) > since + 3, 'more refusals', 0.05, publish)
    assert DrivingAction.OK not in rig.statuses(since)


def drives(rig, publish):
    since = len(rig.actions)
    return rig.wait(lambda: rig.heard(DrivingAction.OK, since), 'an action', 0.05, publish)


def test_the_camera_must_be_known_and_make_sense(start):
    rig = start(undistort=True, field_of_view=0.5)
    rig.wait_until_heard()
    refused(rig, DrivingAction.NO_INPUT, 'no camera info has arrived yet',
            lambda: (rig.odometry(), rig.image()))
    drives(rig, feed(rig))
    for info, words in (({'k': [0.0] * 9}, 'focal lengths'),
                        ({'d': [math.nan] * 5}, 'D must be'),
                        ({'distortion_model': 'mine'}, "distortion model 'mine'"),
                        ({'width': 64, 'height': 48}, 'and 64x48 by its camera info'),
                        ({'focal': 400.0}, 'the camera sees only 0.080 rad')):
        refused(rig, DrivingAction.INVALID_INPUT, words, feed(rig, **info))
        drives(rig, feed(rig))
    assert not rig.set('undistort', False).successful


def test_the_model_is_shown_what_was_asked_for(start):
    """The scripted driver answers with the red of the first pixel, as a curvature."""
    rig = start(field_of_view=2 * math.atan(16 / 80))
    rig.wait_until_heard()
    pixels = picture(0)
    pixels[:, :, 0] = 50
    pixels[4:20, 6:26, 0] = 200     # the middle, of which half the width is shown

    def show(**info):
        rig.odometry()
        rig.camera_info(**info)
        pixels[0, 0, 2] += 1        # else the camera seems frozen, where all of it is shown
        pixels[12, 16, 2] += 1
        rig.image(pixels)

    def shown(red, **info):
        rig.wait(lambda: rig.actions and rig.actions[-1].status == DrivingAction.OK
                 and math.isclose(rig.actions[-1].curvature, red / 1e4, rel_tol=1e-4),
                 f'red {red}', 0.05, lambda: show(**info))

    shown(200)
    shown(50, focal=80.0)     # the camera zooms in: taken over while it drives
    shown(200)


def test_camera_info_is_beside_the_images_unless_a_parameter_names_it(start):
    def listens(rig, topic):
        rig.wait(lambda: rig.node.count_subscribers(topic), f'a subscription to {topic}')

    rig = start(undistort=True, remaps=['image:=/eye/image_raw'], image_topic='/eye/image_raw')
    listens(rig, '/eye/camera_info')
    drives(rig, feed(rig))
    rig = start(undistort=True, remaps=['image:=/eye/image_raw'], namespace='second',
                camera_info_topic='info', image_transport='compressed')
    listens(rig, '/second/info')
    rig = start(namespace='third', image_transport='compressed', field_of_view=0.5)
    listens(rig, '/third/camera_info')


def test_speed_and_steering_on_topics_of_their_own(start):
    rig = start(odom_type='speed_steering', max_ego_age=0.5)
    rig.wait_until_heard()
    drives(rig, lambda: (rig.odometry(), rig.image()))
    refused(rig, DrivingAction.STALE_INPUT, 'the steering is',
            lambda: (rig.speed(5.0), rig.image()))
    refused(rig, DrivingAction.INVALID_INPUT, 'the steering cannot be true: nan rad',
            lambda: (rig.steering(math.nan), rig.speed(5.0), rig.image()))
    drives(rig, lambda: (rig.odometry(), rig.image()))
    refused(rig, DrivingAction.INVALID_INPUT, 'speed nan m/s',
            lambda: (rig.steering(), rig.speed(math.nan), rig.image()))
    drives(rig, lambda: (rig.odometry(), rig.image()))
    refused(rig, DrivingAction.STALE_INPUT, 'the nearest odometry is',
            lambda: (rig.steering(), rig.image()))


def test_no_steering_has_come(start):
    rig = start(odom_type='speed_steering')
    rig.wait_until_heard()
    refused(rig, DrivingAction.NO_INPUT, 'no steering has arrived yet',
            lambda: (rig.speed(5.0), rig.image()))


# Autoware: PyPI has none of its messages ---------------------------------------------------------

def velocity_report(frame='base_link', **values):
    stamp = SimpleNamespace(sec=7, nanosec=9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id=frame), **{
        'longitudinal_velocity': 5.0, 'lateral_velocity': 0.0, 'heading_rate': 0.25} | values)


def test_a_velocity_report_is_a_motion():
    found = motion(velocity_report(), 'base_link')
    assert (found.stamp, found.speed, found.yaw_rate) == (7 * 10**9 + 9, 5.0, 0.25)
    with pytest.raises(UserError, match=r"in 'wheel' \(header.frame_id\); it must be in"):
        motion(velocity_report('wheel'), 'base_link')


def test_autoware_needs_its_messages(monkeypatch):
    class VelocityReport:
        pass

    monkeypatch.setitem(sys.modules, 'autoware_vehicle_msgs', None)
    monkeypatch.setitem(sys.modules, 'autoware_vehicle_msgs.msg', None)
    with pytest.raises(UserError, match='odom_type names autoware, which needs the package '
                       'autoware_vehicle_msgs; install it'):
        odometry_type('autoware')
    module = ModuleType('autoware_vehicle_msgs.msg')
    module.VelocityReport = VelocityReport
    monkeypatch.setitem(sys.modules, 'autoware_vehicle_msgs', ModuleType('autoware_vehicle_msgs'))
    monkeypatch.setitem(sys.modules, 'autoware_vehicle_msgs.msg', module)
    assert odometry_type('autoware') is VelocityReport
