"""Messages in: which are kept, which are refused, and what the worker is handed."""

import math

from nav_msgs.msg import Odometry
import numpy as np
from owled_ros.driver.action import ActionLimiter, Command, Route, Status
from owled_ros.msg import DrivingCommand
from owled_ros.ros.counters import Counters
from owled_ros.ros.inputs import Inputs
from owled_ros.ros.messages import time_message
from owled_ros.ros.outlet import ActionOutlet
from owled_ros.ros.parameters import PARAMETERS, Settings
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import Timekeeper
from owled_ros.ros.topics import Topics
from owled_ros.ros.watchdog import Watchdog
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64

SECOND = 10**9
DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}
SETTINGS = Settings(DEFAULTS)


class Logger:

    def warning(self, words, throttle_duration_sec=0.0):
        pass


class Bench:
    """Inputs in front of an open outlet, on a clock that only moves when it is told to."""

    def __init__(self):
        self.time = 100 * SECOND
        self.reports = []
        self.counters = Counters()
        clock, watchdog = Timekeeper(lambda: self.time, 0.1), Watchdog(Topics())
        self.outlet = ActionOutlet(self.reports.append, clock, watchdog, self.counters)
        self.outlet.configure(ActionLimiter(SETTINGS.limits, 2.7, 1.0), SETTINGS)
        self.outlet.open()
        self.inputs = Inputs(clock=clock, outlet=self.outlet, watchdog=watchdog,
                             counters=self.counters, topics=Topics(), logger=Logger(),
                             wall_clock=lambda: True)

    def change(self, **changed):
        self.outlet.change(Settings(DEFAULTS | changed))

    def image(self, age=0.0, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
        message = Image(height=6, width=8, step=24, encoding='rgb8', data=pixels.tobytes())
        message.header.stamp = time_message(self.time - int(age * SECOND))
        self.inputs.image(message)
        return pixels

    def odometry(self, speed=5.0, frame='base_link'):
        message = Odometry(child_frame_id=frame)
        message.header.stamp = time_message(self.time)
        message.twist.twist.linear.x = speed
        self.inputs.odometry(message)

    def speed(self, speed=5.0):
        self.inputs.speed(Float64(data=speed))

    def steering(self, angle=0.0):
        self.inputs.steering(Float64(data=angle))

    def camera_info(self, **changed):
        self.inputs.camera_info(CameraInfo(**{
            'height': 6, 'width': 8, 'distortion_model': 'plumb_bob', 'd': [0.0] * 5,
            'k': [8.0, 0.0, 3.5, 0.0, 8.0, 2.5, 0.0, 0.0, 1.0]} | changed))

    def command(self, age=0.0, **fields):
        message = DrivingCommand(**fields)
        message.header.stamp = time_message(self.time - int(age * SECOND))
        self.inputs.command(message)

    def given(self):
        """Return what the worker gets for the frame that waits."""
        return self.inputs.of(self.inputs.take(0))

    def counted(self):
        return self.counters.snapshot()[0]


def test_the_newest_frame_and_what_belongs_to_it():
    bench = Bench()
    bench.odometry(speed=7.0)
    bench.command(route=DrivingCommand.LEFT, speed_limit=8.0)
    bench.image(age=0.1, seed=1)
    newest = bench.image(age=0.05, seed=2)
    picture, ego, command = bench.given()
    np.testing.assert_array_equal(picture, newest)
    assert ego.speed == 7.0 and command == Command(Route.LEFT, 8.0)
    assert bench.inputs.take(0) is None
    assert (bench.counted()['frames'], bench.counted()['frames dropped']) == (2, 1)


def test_a_frame_is_refused_at_once():
    bench = Bench()
    bench.image(age=1.0)
    bench.image(age=-1.0)
    bench.image()
    bench.image()
    assert [report.status for report in bench.reports] == [
        Status.STALE_INPUT, Status.INVALID_INPUT, Status.INVALID_INPUT]
    assert all(report.stamp for report in bench.reports)


def test_a_frame_that_grew_old_while_it_waited_is_refused():
    bench = Bench()
    bench.odometry()
    bench.image()
    bench.time += SECOND
    with pytest.raises(Refused) as refusal:
        bench.given()
    assert refusal.value.status == Status.STALE_INPUT


def test_a_frame_that_cannot_be_read_is_refused():
    bench = Bench()
    message = Image(height=6, width=8, step=24, encoding='rgb8', data=b'short')
    message.header.stamp = time_message(bench.time)
    bench.inputs.image(message)
    with pytest.raises(Refused, match='cannot hold') as refusal:
        bench.given()
    assert refusal.value.status == Status.INVALID_INPUT


def test_odometry_of_another_frame_is_refused():
    bench = Bench()
    bench.odometry(frame='odom')
    bench.odometry(speed=math.inf)
    assert bench.counted()['odometry refused'] == 2
    bench.image()
    with pytest.raises(Refused):
        bench.given()


def test_commands_that_hold_no_longer_or_make_no_sense():
    bench = Bench()

    def command_of_next_frame():
        bench.time += SECOND // 10
        bench.odometry()
        bench.image(seed=bench.time)
        return bench.given()[2].route

    for age, route in ((0.0, Route.RIGHT), (3.0, Route.FOLLOW), (-1.0, Route.FOLLOW)):
        bench.command(age=age, route=DrivingCommand.RIGHT, speed_limit=math.nan)
        assert command_of_next_frame() == route
    bench.command(route=DrivingCommand.RIGHT)
    bench.command(route=99)
    assert command_of_next_frame() == Route.FOLLOW
    assert bench.counted()['commands refused'] == 2


def test_a_command_from_the_future_is_not_in_force_later():
    bench = Bench()
    bench.command(age=-1.0, route=DrivingCommand.RIGHT, speed_limit=math.nan)
    bench.time += SECOND
    bench.odometry()
    bench.image()
    assert bench.given()[2].route == Route.FOLLOW


def test_a_clock_that_goes_back_clears_everything():
    bench = Bench()
    bench.odometry()
    bench.image()
    bench.time -= 50 * SECOND
    bench.inputs.notice_clock_jump()
    assert bench.inputs.take(0) is None
    assert set(bench.inputs.ages(bench.time).values()) == {None}
    assert bench.counted()['clock jumps'] == 1
    bench.odometry()
    bench.image()
    assert bench.given()[1].speed == 5.0


def test_a_closed_node_keeps_nothing():
    bench = Bench()
    bench.outlet.close('closed')
    bench.odometry()
    bench.image()
    assert bench.inputs.take(0) is None and bench.inputs.ages(bench.time)['odometry'] is None


@pytest.mark.parametrize('changed, frame, words', [
    ({'max_frame_age': 0.05}, {'age': 0.1}, 'max_frame_age is 0.05'),
    ({'max_clock_skew': 0.0}, {'age': -0.05}, 'max_clock_skew is 0'),
    ({'max_ego_age': 0.05}, {'age': 0.1}, 'max_ego_age is 0.05'),
    ({'image_width': 9, 'image_height': 9}, {}, 'instead of 9x9'),
    ({'max_frozen_frames': 1}, {}, 'for the 2th time'),
])
def test_a_change_of_settings_holds_for_the_next_frame(changed, frame, words):
    bench = Bench()

    def outcome(**frame):
        """Return why a frame is refused, or ''."""
        bench.time += SECOND // 10
        if 'ego' not in words:
            bench.odometry()
        said = len(bench.reports)
        bench.image(**frame)
        if len(bench.reports) > said:
            return bench.reports[-1].reason
        try:
            bench.given()
        except Refused as refusal:
            return refusal.reason
        return ''

    bench.odometry()
    assert outcome(**frame, seed=1) == ''
    bench.change(**changed)
    assert words in outcome(**frame, seed=1)
    bench.change()
    assert outcome(**frame, seed=2) == ''


def test_a_smaller_picture_may_be_allowed_while_it_drives():
    bench = Bench()
    bench.odometry()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    message = Image(height=40, width=40, step=120, encoding='rgb8', data=pixels.tobytes())

    def refused():
        bench.time += SECOND // 100
        message.header.stamp = time_message(bench.time)
        bench.inputs.image(message)
        try:
            bench.given()
        except Refused as refusal:
            return '1024' in refusal.reason
        return False

    assert not refused()
    bench.change(max_image_pixels=1024)
    assert refused()


def test_the_age_of_a_command_may_change_while_it_drives():
    bench = Bench()
    bench.command(route=DrivingCommand.RIGHT, speed_limit=math.nan)
    bench.time += SECOND
    bench.odometry()
    for seed, (age, route) in enumerate(((2.0, Route.RIGHT), (0.5, Route.FOLLOW))):
        bench.change(max_command_age=age)
        bench.time += SECOND // 100
        bench.image(seed=seed)
        assert bench.given()[2].route == route


def test_a_picture_of_another_time_leaves_no_trace():
    """The node is activated anew, with another camera, while the last picture is being read."""
    bench = Bench()
    bench.odometry()
    bench.image()
    decode = bench.inputs._decode

    def slow(image):
        bench.inputs.clear()
        return decode(image)

    bench.inputs._decode = slow
    with pytest.raises(Refused):
        bench.given()  # there is no odometry of the new time yet
    bench.inputs._decode = decode
    bench.odometry()
    pixels = np.random.default_rng(1).integers(0, 255, (12, 16, 3), np.uint8)
    message = Image(height=12, width=16, step=48, encoding='rgb8', data=pixels.tobytes())
    message.header.stamp = time_message(bench.time)
    bench.inputs.image(message)
    assert bench.given()[0].shape == (12, 16, 3)


@pytest.mark.parametrize('error, raised', [
    (ValueError('cannot reshape\nand a trace'), Refused), (MemoryError(), MemoryError)])
def test_a_decoder_that_fails_in_its_own_way(error, raised):
    bench = Bench()
    bench.odometry()
    bench.image()

    def fail(image):
        raise error

    bench.inputs._decode = fail
    with pytest.raises(raised) as caught:
        bench.given()
    if raised is Refused:
        assert caught.value.status == Status.INVALID_INPUT
        assert caught.value.reason == 'the frame cannot be read: cannot reshape'


# Speed and steering -----------------------------------------------------------------------------

def outcome(bench):
    """Return the EgoState for a new frame, or the Refused."""
    bench.time += 1
    bench.image(seed=bench.time)
    try:
        return bench.given()[1]
    except Refused as refusal:
        return refusal


def test_speed_and_steering_make_the_motion():
    bench = Bench()
    for tick in range(20):
        bench.time += SECOND // 20
        bench.steering(0.2)
        bench.speed(4.0 + 0.05 * tick)
    ego = outcome(bench)
    assert math.isclose(ego.speed, 4.95) and math.isclose(ego.acceleration, 1.0)
    assert math.isclose(ego.yaw_rate, 4.95 * math.tan(0.2) / 2.7)   # 2.7 m of wheelbase


def test_the_wheelbase_is_that_of_the_vehicle():
    bench = Bench()
    bench.change(wheelbase=5.4)
    bench.steering(-0.3)
    bench.speed(2.0)
    assert math.isclose(outcome(bench).yaw_rate, -2.0 * math.tan(0.3) / 5.4)


def test_steering_that_is_missing_or_old():
    bench = Bench()
    bench.speed()
    refusal = outcome(bench)
    assert (refusal.status, refusal.reason) == (Status.NO_INPUT, 'no steering has arrived yet')
    bench.steering()
    bench.time += SECOND // 10
    bench.speed()
    assert outcome(bench).speed == 5.0
    for _ in range(3):      # speeds go on, the steering does not
        bench.time += SECOND // 10
        bench.speed()
    refusal = outcome(bench)
    assert refusal.status == Status.STALE_INPUT
    assert refusal.reason == ('the steering is 0.400 s older than the speed; max_ego_age is 0.2 s')
    assert bench.counted()['odometry refused'] == 4
    bench.steering()
    bench.speed()
    assert outcome(bench).speed == 5.0


def test_a_speed_that_went_silent():
    bench = Bench()
    bench.steering()
    bench.speed()
    for _ in range(3):
        bench.time += SECOND // 10
        bench.steering()
    refusal = outcome(bench)
    assert refusal.status == Status.STALE_INPUT and 'the nearest odometry' in refusal.reason


@pytest.mark.parametrize('speed, angle, words', [
    (math.nan, 0.0, 'cannot be true: speed nan'),
    (math.inf, 0.0, 'cannot be true: speed inf'),
    (120.0, 0.0, 'cannot be true: speed 120'),
    (0.0, math.nan, 'the steering cannot be true: nan rad'),
    (5.0, math.inf, 'the steering cannot be true: inf rad'),
    (0.0, -12.0, 'the steering cannot be true: -12 rad'),     # degrees
    (20.0, 0.5, 'across'),
    (14.0, 0.0, 'the speed of the odometry jumped by 9.0'),
    (5.0, 0.9, 'the yaw rate of the odometry jumped by'),
])
def test_speed_and_steering_that_cannot_be_true(speed, angle, words):
    bench = Bench()
    bench.steering()
    bench.speed()
    bench.time += SECOND // 50
    bench.steering(angle)
    bench.speed(speed)
    refusal = outcome(bench)
    assert refusal.status == Status.INVALID_INPUT and words in refusal.reason
    bench.time += SECOND // 50
    bench.steering()
    bench.speed()
    assert outcome(bench).speed == 5.0


def test_steering_of_another_time_is_forgotten():
    for jump in (lambda bench: setattr(bench, 'time', bench.time - 50 * SECOND),
                 lambda bench: bench.inputs.clear()):
        bench = Bench()
        bench.steering()
        jump(bench)
        bench.speed()
        assert outcome(bench).status == Status.NO_INPUT
    bench = Bench()
    bench.outlet.close('closed')
    bench.steering()
    bench.outlet.open()
    bench.speed()
    assert outcome(bench).reason == 'no steering has arrived yet'


# Camera info ------------------------------------------------------------------------------------

@pytest.mark.parametrize('asked', [{'undistort': True}, {'field_of_view': 0.6}])
def test_no_frame_before_the_camera_is_known(asked):
    bench = Bench()
    bench.change(**asked)
    bench.odometry()
    refusal = outcome(bench)
    assert (refusal.status, refusal.reason) == (
        Status.NO_INPUT, 'no camera info has arrived yet')
    bench.camera_info()
    assert outcome(bench).speed == 5.0


def test_frames_are_seen_as_the_camera_info_of_now_has_it():
    bench = Bench()
    bench.odometry()
    bench.camera_info()     # nobody has asked for it
    pixels = bench.image(seed=1)
    np.testing.assert_array_equal(bench.given()[0], pixels)
    bench.change(undistort=True, field_of_view=2 * math.atan(4 / 8))
    bench.time += 1
    pixels = bench.image(seed=2)
    np.testing.assert_array_equal(bench.given()[0], pixels)    # an ideal camera, all of it
    bench.change(field_of_view=2 * math.atan(4 / 16))
    bench.time += 1
    pixels = bench.image(seed=3)
    middle = bench.given()[0]
    assert middle.shape == pixels.shape and not np.array_equal(middle, pixels)
    # Half of the width is shown: what is at its edges is a quarter of the picture from them.
    np.testing.assert_allclose(middle[0, 0], np.tensordot(
        np.outer([0.75, 0.25], [0.25, 0.75]), pixels[1:3, 1:3].astype(float), 2), atol=1.5)
    bench.camera_info(k=[16.0, 0.0, 3.5, 0.0, 16.0, 2.5, 0.0, 0.0, 1.0])   # it zoomed
    bench.time += 1
    pixels = bench.image(seed=4)
    np.testing.assert_array_equal(bench.given()[0], pixels)


@pytest.mark.parametrize('changed, words', [
    ({'k': [0.0] * 9}, 'focal lengths 0 and 0'),
    ({'d': [math.nan] * 5}, 'D must be'),
    ({'distortion_model': 'of my own'}, "'of my own'"),
    ({'width': 16, 'height': 12}, 'has 8x6 pixels, and 16x12 by its camera info'),
    ({'k': [80.0, 0.0, 3.5, 0.0, 80.0, 2.5, 0.0, 0.0, 1.0]}, 'sees only 0.100 rad'),
])
def test_camera_info_that_makes_no_sense_until_it_does(changed, words):
    bench = Bench()
    bench.change(undistort=True, field_of_view=0.6)
    bench.odometry()
    for info, status in (({}, None), (changed, Status.INVALID_INPUT), ({}, None)):
        bench.camera_info(**info)
        found = outcome(bench)
        if status is None:
            assert found.speed == 5.0
        else:
            assert found.status == status and words in found.reason


def test_what_is_cropped_to_one_colour_shows_nothing():
    bench = Bench()
    bench.change(field_of_view=0.3)
    bench.odometry()
    bench.camera_info()
    pixels = np.full((6, 8, 3), 90, np.uint8)
    pixels[0, 0] = 0    # outside of what the model is shown
    message = Image(height=6, width=8, step=24, encoding='rgb8', data=pixels.tobytes())
    message.header.stamp = time_message(bench.time)
    bench.inputs.image(message)
    with pytest.raises(Refused, match='every pixel'):
        bench.given()


def test_a_camera_of_another_time_is_forgotten():
    bench = Bench()
    bench.change(undistort=True)
    bench.camera_info()
    bench.inputs.clear()
    bench.odometry()
    assert outcome(bench).status == Status.NO_INPUT
