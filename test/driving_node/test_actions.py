"""Frames in, actions and explanations out, over DDS."""

import math
import time

import cv2
import numpy as np
from owled_ros.msg import DrivingAction, DrivingCommand, ModelInfo
import pytest
from rclpy.qos import ReliabilityPolicy
from rig import LATCHED, nanoseconds, picture


def test_action_then_explanation(start):
    rig = start('scripted:words=6')
    rig.watch()
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK) and rig.explanations and rig.diagnostics
              and (24, 32, 3) in map(shape_of, rig.pictures),
              'an action, an explanation, diagnostics and a picture')
    action = rig.heard(DrivingAction.OK)
    assert action.reason == '' and action.header.frame_id == 'base_link'
    assert action.maneuver == DrivingAction.KEEP_LANE
    assert action.model == 'scripted 0123abcd'
    assert math.isclose(action.steering_angle, math.atan(2.7 * action.curvature), rel_tol=1e-4)
    assert nanoseconds(action.latency) == \
        nanoseconds(action.published) - nanoseconds(action.header.stamp)
    assert nanoseconds(action.valid_for) == 9 * 10**9
    assert nanoseconds(action.horizon) == 10 * 10**9

    explanation = rig.explanations[0]
    assert explanation.complete and explanation.text == 'word0 word1 word2 word3 word4 word5'
    explained = next(a for a in rig.actions if a.sequence == explanation.action_sequence)
    assert explained.header == explanation.header

    sequences = [action.sequence for action in rig.actions]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    (publisher,) = rig.node.get_publishers_info_by_topic('owled/action')
    assert publisher.qos_profile.liveliness_lease_duration.nanoseconds == 10**9
    assert publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    info = rig.infos[0]
    assert (info.name, info.hash, info.backend) == ('scripted', '0123abcd', 'script')
    assert math.isclose(info.limit_speed, 16.7, rel_tol=1e-6)
    names = {status.name for message in rig.diagnostics for status in message.status}
    assert names == {f'driving_node: {part}' for part in ('input', 'output', 'model', 'machine')}


def decoded(message):
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)


def shape_of(message):
    return decoded(message).shape


def test_the_debug_image_shows_that_there_is_no_action(start):
    rig = start()
    rig.watch()
    rig.wait_until_heard()
    frames = [picture(seed, 240, 320) for seed in range(5)]
    rig.wait(lambda: (240, 320, 3) in map(shape_of, rig.pictures), 'a picture', 0.05,
             lambda: (rig.odometry(), rig.image(frames[len(rig.actions) % 5])))
    told = len(rig.pictures)
    rig.wait(lambda: rig.actions[-1].status != DrivingAction.OK, 'the camera to be missed')
    missed = nanoseconds(rig.actions[-1].published)
    rig.wait(lambda: [1 for shown in rig.pictures[told:]
                      if nanoseconds(shown.header.stamp) >= missed], 'a picture of that')
    shown = decoded(rig.pictures[-1]).astype(int)
    assert shown.shape == (240, 320, 3)
    assert np.ptp(shown[120:], axis=2).max() < 16 < shown[120:].max()   # the last frame, in grey
    assert np.ptp(shown[:40], axis=2).max() > 60                        # in red: why


@pytest.mark.parametrize('odom_type', ['twist', 'twist_with_covariance'])
def test_a_twist_tells_the_motion_too(start, odom_type):
    rig = start(odom_type=odom_type)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    rig.wait(lambda: rig.heard(DrivingAction.INVALID_INPUT), 'a twist of another frame to be '
             'refused', 0.05, lambda: (rig.odometry(frame='wheel'), rig.image()))
    assert "in 'wheel' (header.frame_id); it must be in 'base_link'" in \
        rig.heard(DrivingAction.INVALID_INPUT).reason


def test_info_is_kept_for_late_subscribers(start):
    rig = start()
    rig.wait_until_heard()
    late = []
    rig.node.create_subscription(ModelInfo, 'owled/info', late.append, LATCHED)
    rig.wait(lambda: late, 'the model info that was published before')
    assert late[0].measured_sparsity == 0.5


def test_a_backlog_is_dropped_and_lag_stays_flat(start):
    """Many more frames than the model can take: the newest wins, no queue grows."""
    rig = start('scripted:delay=0.2,words=0')
    rig.wait_until_heard()
    pictures = [picture(seed, 480, 640) for seed in range(5)]
    published = []

    def feed():
        rig.odometry()
        published.append(rig.image(pictures[len(published) % 5]))

    rig.wait(lambda: rig.heard(DrivingAction.OK), 'an action', 0.02, feed)
    memory = rig.memory()
    rig.wait(lambda: rig.statuses().count(DrivingAction.OK) >= 12, 'twelve actions', 0.02, feed)
    good = [action for action in rig.actions if action.status == DrivingAction.OK]
    stamps = [nanoseconds(action.header.stamp) for action in good]
    assert stamps == sorted(set(stamps))
    assert len(good) < len(published) / 2
    assert rig.memory() < memory + len(published) * pictures[0].nbytes / 4
    # In a queue the twelfth action would lag behind by nearly all the time it took.
    took = (nanoseconds(good[-1].published) - nanoseconds(good[0].published)) / 1e9
    lags = [nanoseconds(action.latency) / 1e9 for action in good]
    assert took > 2.0 and min(lags[-4:]) < took / 3

    def diagnosed():
        values = {value.key: value.value for value in rig.diagnostics[-1].status[0].values}
        return int(values['frames dropped']) > 10 and 0 < float(values['drop share']) < 1

    rig.wait(lambda: rig.diagnostics and diagnosed(), 'the dropped frames', 0.02, feed)


def test_explanations_wait_for_actions(start):
    """A long explanation is written between actions, which go on; they get none meanwhile."""
    rig = start('scripted:words=60,pause=0.02', explanation_slice=2)
    rig.wait_until_heard()
    rig.drive(lambda: rig.explanations, 'an explanation', period=0.1)
    explanation = rig.explanations[0]
    assert explanation.complete and len(explanation.text.split()) == 60
    later = [action for action in rig.actions if action.status == DrivingAction.OK
             and action.sequence > explanation.action_sequence]
    assert len(later) >= 3  # 60 words take 1.2 s, frames come every 0.1 s
    assert len(rig.explanations) == 1


def test_an_explanation_that_grows_old_is_given_up(start):
    rig = start('scripted:words=1000,pause=0.02', explanation_slice=2, max_explanation_age=0.5)
    rig.wait_until_heard()
    rig.drive(lambda: rig.explanations, 'an explanation')
    explanation = rig.explanations[0]
    assert not explanation.complete
    assert explanation.text.startswith('word0 word1') and len(explanation.text.split()) < 900


def test_limits_hold_whatever_the_model_answers(start):
    rig = start('scripted:wild_at=1')
    rig.wait_until_heard()
    action = rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    assert action.acceleration <= 2.5 and abs(action.steering_angle) <= 0.5
    assert action.target_speed <= 16.7
    assert action.limits_applied & DrivingAction.LIMIT_SPEED
    assert action.limits_applied & DrivingAction.LIMIT_ANGLE


def test_compressed_images_and_remapping(start):
    rig = start(image_transport='compressed', remaps=['image:=/camera/front'],
                image_topic='/camera/front')
    rig.wait_until_heard()
    jpeg = cv2.imencode('.jpg', picture())[1].tobytes()

    def feed():
        rig.odometry()
        rig.compressed(jpeg)

    rig.wait(lambda: rig.heard(DrivingAction.OK), 'an action', 0.05, feed)
    since = len(rig.actions)

    def feed_cut():
        rig.odometry()
        rig.compressed(jpeg[:len(jpeg) // 2])

    action = rig.wait(lambda: rig.heard(DrivingAction.INVALID_INPUT, since), 'a refusal', 0.05,
                      feed_cut)
    assert 'cut' in action.reason


def test_turns_are_only_taken_when_commanded(start):
    rig = start('scripted:turn=1')
    rig.wait_until_heard()
    action = rig.drive(lambda: rig.heard(DrivingAction.INVALID_OUTPUT), 'a refused turn')
    assert 'TURN_LEFT' in action.reason

    def feed():
        rig.command(DrivingCommand.LEFT)
        time.sleep(0.02)
        rig.odometry()
        rig.image()

    action = rig.wait(lambda: rig.heard(DrivingAction.OK), 'a turn', 0.05, feed)
    assert action.maneuver == DrivingAction.TURN_LEFT


def test_the_speed_limit_of_a_command_is_kept(start):
    rig = start('scripted:wild=1')
    rig.wait_until_heard()

    def newest():
        good = [action for action in rig.actions if action.status == DrivingAction.OK]
        return good[-1] if good else DrivingAction()

    def feed():
        rig.command(DrivingCommand.FOLLOW, speed_limit=4.0)
        rig.odometry(speed=5.0)
        rig.image()

    rig.drive(lambda: newest().target_speed > 16, 'an action without a command')
    # The jerk limit lets it brake only gradually.
    rig.wait(lambda: 0 < newest().target_speed <= 4.0 and newest().acceleration < 0,
             'an action that keeps it', 0.05, feed)
    assert newest().limits_applied & DrivingAction.LIMIT_SPEED
    assert rig.set('max_command_age', 0.05).successful
    rig.drive(lambda: newest().target_speed > 16, 'an action after the command grew old')
