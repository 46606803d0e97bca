"""Inputs that must not be driven by: each is refused at once, with its status and a reason."""

import math

import numpy as np
from owled_ros.msg import DrivingAction
from rig import picture
from sensor_msgs.msg import Image


def refusal(rig, status, feed, words):
    """Feed until `status` is heard with `words` in its reason; check that it orders nothing."""
    since = len(rig.actions)
    action = rig.wait(lambda: rig.heard(status, since, words), words, 0.05, feed)
    for number in (action.acceleration, action.curvature, action.steering_angle,
                   action.target_speed, action.confidence):
        assert math.isnan(number)
    assert action.maneuver == DrivingAction.NONE
    assert (action.valid_for.sec, action.valid_for.nanosec) == (0, 0)


def recovers(rig):
    """Good inputs give good actions again, without anyone's help."""
    since = len(rig.actions)
    rig.drive(lambda: rig.heard(DrivingAction.OK, since), 'an action after the refusals')


def with_odometry(rig, *arguments, **frame):
    def feed():
        rig.odometry()
        rig.image(*arguments, **frame)
    return feed


def test_frames_that_are_old_or_from_the_future(start):
    rig = start(max_frame_age=0.5, max_clock_skew=0.2)
    rig.wait_until_heard()
    refusal(rig, DrivingAction.STALE_INPUT, with_odometry(rig, age=2.0), 's old')
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, age=-2.0), 'in the future')
    recovers(rig)
    stamp = rig.image()
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, stamp=stamp), 'out of order')
    assert DrivingAction.OK in rig.statuses()
    recovers(rig)


def test_frames_that_show_nothing(start):
    rig = start(max_frozen_frames=3, max_image_pixels=2048)
    rig.wait_until_heard()
    green = np.full((24, 32, 3), (0, 135, 0), np.uint8)
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, green), 'the value 0 135 0')
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, data=b'short'), 'cannot hold')
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, encoding='sixty_four'),
            'sixty_four')
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, picture(1, 64, 64)), '2048')
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, picture(1)), 'frozen')
    recovers(rig)
    refusal(rig, DrivingAction.INVALID_INPUT, with_odometry(rig, picture(1, 32, 24)),
            '24x32 pixels instead of 32x24')
    recovers(rig)


def test_stamps_at_the_ends_of_what_a_message_can_carry(start):
    rig = start()
    rig.wait_until_heard()

    def feed(seconds, rest):
        def publish():
            message = Image(height=24, width=32, encoding='rgb8', step=96,
                            data=picture().tobytes())
            message.header.stamp.sec, message.header.stamp.nanosec = seconds, rest
            rig.odometry()
            rig.publish_image(message)
        return publish

    refusal(rig, DrivingAction.INVALID_INPUT, feed(2**31 - 1, 2**32 - 1), 'in the future')
    refusal(rig, DrivingAction.INVALID_INPUT, feed(-2**31, 0), 'before 1970')
    recovers(rig)


def test_odometry_that_is_missing_old_or_wrong(start):
    rig = start(max_ego_age=0.3)
    rig.wait_until_heard()
    refusal(rig, DrivingAction.NO_INPUT, rig.image, 'no odometry')

    def odometry(**wrong):
        def feed():
            rig.odometry(**wrong)
            rig.image()
        return feed

    refusal(rig, DrivingAction.STALE_INPUT, odometry(age=1.0), 'max_ego_age')
    refusal(rig, DrivingAction.INVALID_INPUT, odometry(speed=math.nan), 'cannot be true')
    refusal(rig, DrivingAction.INVALID_INPUT, odometry(yaw_rate=math.inf), 'cannot be true')
    refusal(rig, DrivingAction.INVALID_INPUT, odometry(frame='odom'), 'child_frame_id')
    refusal(rig, DrivingAction.INVALID_INPUT, odometry(age=-5.0), 'in the future')
    recovers(rig)
    for wrong, words in (({'speed': 60.0}, 'the speed of the odometry jumped'),
                         ({'yaw_rate': 3.0}, 'the yaw rate of the odometry jumped')):
        refusal(rig, DrivingAction.INVALID_INPUT, odometry(**wrong), words)
        recovers(rig)


def test_answers_that_are_none(start):
    """The model raises, answers nonsense, and answers NaN; then it is well again."""
    rig = start('scripted:raise_at=1,nonsense_at=2,nan_at=3')
    rig.wait_until_heard()
    refusal(rig, DrivingAction.MODEL_ERROR, with_odometry(rig), 'wrong shape')
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    reasons = [a.reason for a in rig.actions if a.status == DrivingAction.INVALID_OUTPUT]
    assert any('no action' in reason for reason in reasons)
    assert any('not finite' in reason for reason in reasons)
    assert rig.state() == 'active'


def test_a_clock_that_goes_back_clears_what_was_measured(start):
    rig = start(use_sim_time=True, max_ego_age=0.5)
    rig.wait_until_heard()
    time = {'now': 1000 * 10**9}

    def feed():
        time['now'] += 50_000_000
        rig.tick(time['now'])
        rig.odometry(stamp=time['now'])
        rig.image(stamp=time['now'])

    rig.wait(lambda: rig.heard(DrivingAction.OK), 'an action', 0.05, feed)
    # A bag played once more: every stamp is before those seen so far.
    time['now'] = 500 * 10**9
    rig.wait(lambda: 'the clock went back' in rig.words(), 'the jump', 0.05, feed)
    since = len(rig.actions)
    action = rig.wait(lambda: rig.heard(DrivingAction.OK, since), 'an action', 0.05, feed)
    assert action.header.stamp.sec < 600


def test_a_clock_that_stands_still_does_not_stop_the_watchdog(start):
    rig = start(use_sim_time=True, deadline=0.3, max_frame_age=0.2)
    rig.wait_until_heard()
    rig.wait(lambda: rig.statuses().count(DrivingAction.NO_INPUT) >= 3, 'the watchdog')
    assert rig.actions[-1].published.sec == 0
