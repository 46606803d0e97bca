"""Messages in: which are kept, which are refused, and what the worker is handed."""

import math

from nav_msgs.msg import Odometry
import numpy as np
import pytest
from sensor_msgs.msg import Image

from owled_ros.driver.action import ActionLimiter, Command, Route, Status
from owled_ros.msg import DrivingCommand
from owled_ros.ros.counters import Counters
from owled_ros.ros.inputs import Inputs
from owled_ros.ros.messages import time_message
from owled_ros.ros.outlet import ActionOutlet
from owled_ros.ros.parameters import PARAMETERS, Settings
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import Timekeeper
from owled_ros.ros.watchdog import Watchdog

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
        clock, watchdog = Timekeeper(lambda: self.time, 0.1), Watchdog()
        self.outlet = ActionOutlet(self.reports.append, clock, watchdog, self.counters)
        self.outlet.configure(ActionLimiter(SETTINGS.limits, 2.7, 1.0), SETTINGS)
        self.outlet.open()
        self.inputs = Inputs(clock=clock, outlet=self.outlet, watchdog=watchdog,
                             counters=self.counters, logger=Logger(), wall_clock=lambda: True)

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

    def command(self, age=0.0, **fields):
        message = DrivingCommand(**fields)
        message.header.stamp = time_message(self.time - int(age * SECOND))
        self.inputs.command(message)

    def given(self):
        """What the worker gets for the frame that waits."""
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
