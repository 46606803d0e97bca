"""The rules of time and order, without a graph: clock, gate, ego history, watchdog, slot."""

import contextlib
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
from owled_ros.driver.action import Status
from owled_ros.errors import UserError
from owled_ros.ros import model_worker
from owled_ros.ros.counters import Counters, percentile
from owled_ros.ros.ego_history import EgoHistory, Motion
from owled_ros.ros.frame_gate import FrameGate
from owled_ros.ros.model_worker import AwakeTime, ModelWorker, Slot
from owled_ros.ros.parameters import PARAMETERS, Settings
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import Timekeeper
from owled_ros.ros.topics import Topics
from owled_ros.ros.watchdog import Watchdog
import pytest

SECOND = 10**9
SETTINGS = Settings({parameter.name: parameter.default for parameter in PARAMETERS})


@contextlib.contextmanager
def refused(status, words=None):
    with pytest.raises(Refused, match=words) as raised:
        yield
    assert raised.value.status == status


# Clock -----------------------------------------------------------------------------------------

def test_a_jump_back_is_counted_and_a_small_step_is_not():
    readings = iter([10 * SECOND, 11 * SECOND, 11 * SECOND - SECOND // 20, 3 * SECOND, 4 * SECOND])
    clock = Timekeeper(lambda: next(readings), tolerance=0.1)
    seen = [(clock.now() / SECOND, clock.jumps) for _ in range(5)]
    assert seen == [(10, 0), (11, 0), (10.95, 0), (3, 1), (4, 1)]


# Frames ----------------------------------------------------------------------------------------

def test_the_age_of_a_frame():
    gate = FrameGate()
    now = 100 * SECOND
    gate.check_time(now - int(0.39 * SECOND), now, SETTINGS)
    gate.check_time(now + int(0.09 * SECOND), now, SETTINGS)
    with refused(Status.STALE_INPUT, '0.410 s old'):
        gate.check_time(now - int(0.41 * SECOND), now, SETTINGS)
    with refused(Status.INVALID_INPUT, '0.110 s in the future'):
        gate.check_time(now + int(0.11 * SECOND), now, SETTINGS)
    with refused(Status.INVALID_INPUT, 'no stamp'):
        gate.check_time(0, now, SETTINGS)  # a message that nobody stamped
    with refused(Status.INVALID_INPUT, 'no stamp'):
        gate.check_time(0, SECOND // 10, SETTINGS)  # the same while a simulated clock starts


@pytest.mark.parametrize('hours, words', [
    (1.001, 's old; max_frame_age is 0.4 s; is use_sim_time right?'),
    (-1.001, 's in the future; max_clock_skew is 0.1 s; is use_sim_time right?'),
    (0.999, 's old; max_frame_age is 0.4 s'),
    (-0.999, 's in the future; max_clock_skew is 0.1 s'),
])
def test_an_age_of_more_than_an_hour_is_another_clock(hours, words):
    now = 10000 * SECOND
    with pytest.raises(Refused) as refusal:
        FrameGate().check_time(now - int(hours * 3600 * SECOND), now, SETTINGS)
    assert refusal.value.reason.endswith(words)


def test_odometry_of_another_clock():
    ego = EgoHistory(Topics())
    ego.add(Motion(9000 * SECOND, 5.0, 0.0), 1000 * SECOND, 0.1)
    with refused(Status.INVALID_INPUT, 'max_clock_skew is 0.1 s; is use_sim_time right'):
        ego.at(1000 * SECOND, 0.2)
    with refused(Status.STALE_INPUT, 'max_ego_age is 0.2 s; is use_sim_time right'):
        history((10.0, 5.0, 0.0)).at(9000 * SECOND, 0.2)


def test_the_order_of_frames():
    gate = FrameGate()
    gate.check_order(5)
    for late in (5, 4):
        with refused(Status.INVALID_INPUT, 'out of order'):
            gate.check_order(late)
    gate.check_order(6)


def test_pictures_that_show_nothing():
    gate = FrameGate()
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    for value, words in ((255, 'the value 255 255 255'), ((0, 135, 0), 'the value 0 135 0')):
        with refused(Status.INVALID_INPUT, words):
            gate.check_picture(np.full((4, 5, 3), value, np.uint8), SETTINGS)
    for _ in range(SETTINGS.max_frozen_frames):
        gate.check_picture(noise, SETTINGS)
    with refused(Status.INVALID_INPUT, 'frozen'):
        gate.check_picture(noise, SETTINGS)
    gate.check_picture(noise[::-1], SETTINGS)
    # One pixel that differs, wherever it is, makes a picture of it.
    nearly = np.full((40, 40, 3), 9, np.uint8)
    nearly[33, 21, 1] = 8
    FrameGate().check_picture(nearly, SETTINGS)


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def test_frames_of_another_size():
    gate = FrameGate()
    with refused(Status.INVALID_INPUT, 'the value'):
        gate.check_picture(np.zeros((9, 9, 3), np.uint8), SETTINGS)  # it sets no size
    gate.check_picture(noise(6, 8), SETTINGS)
    for height, width in ((8, 6), (12, 16), (6, 9)):
        with refused(Status.INVALID_INPUT, f'{width}x{height} pixels instead of 8x6.*activate'):
            gate.check_picture(noise(height, width), SETTINGS)
    gate.check_picture(noise(6, 8)[::-1], SETTINGS)


def test_a_configured_size_holds_from_the_first_frame_on():
    settings = Settings({parameter.name: parameter.default for parameter in PARAMETERS}
                        | {'image_width': 8, 'image_height': 6})
    gate = FrameGate()
    with refused(Status.INVALID_INPUT, 'set image_width and image_height'):
        gate.check_picture(noise(12, 16), settings)
    gate.check_picture(noise(6, 8), settings)
    # One side of 3 is taken for the channels by image processors, and one of 1 too.
    with refused(Status.INVALID_INPUT, 'shorter than 4'):
        FrameGate().check_picture(noise(3, 8), SETTINGS)


# Ego state -------------------------------------------------------------------------------------

def history(*motions):
    ego = EgoHistory(Topics())
    for seconds, speed, yaw_rate in motions:
        assert ego.add(Motion(int(seconds * SECOND), speed, yaw_rate), 1000 * SECOND, 0.1)
    return ego


def test_the_ego_state_between_two_measurements():
    ego = history((10.0, 5.0, 0.0), (10.1, 6.0, 0.2)).at(int(10.05 * SECOND), 0.2)
    assert math.isclose(ego.speed, 5.5) and math.isclose(ego.yaw_rate, 0.1)


def test_late_odometry_is_put_in_order():
    ego = history((10.0, 5.0, 0.0), (10.2, 7.0, 0.0), (10.1, 6.0, 0.5)).at(int(10.1 * SECOND), 0.2)
    assert ego.speed == 6.0 and ego.yaw_rate == 0.5


def test_odometry_that_was_sent_again_replaces_the_first():
    ego = history((10.0, 5.0, 0.0), (10.0, 5.5, 0.0)).at(10 * SECOND, 0.2)
    assert ego.speed == 5.5


def test_the_nearest_measurement_and_its_age():
    ego = history((10.0, 5.0, 0.0))
    assert ego.at(int(10.15 * SECOND), 0.2).speed == 5.0
    assert ego.at(int(9.85 * SECOND), 0.2).speed == 5.0
    for seconds in (9.7, 10.3):
        with refused(Status.STALE_INPUT, '0.300 s away'):
            ego.at(int(seconds * SECOND), 0.2)


def test_one_side_too_old_does_not_count():
    ego = history((10.0, 5.0, 0.0), (11.0, 9.0, 0.0))
    assert ego.at(int(10.9 * SECOND), 0.2).speed == 9.0


def test_acceleration_is_the_change_of_speed_before_the_frame():
    motions = [(10 + n * 0.02, 5 + 2 * n * 0.02, 0.0) for n in range(20)]
    assert math.isclose(history(*motions).at(int(10.35 * SECOND), 0.2).acceleration, 2.0,
                        rel_tol=1e-6)
    assert history(*motions[:5]).at(int(10.08 * SECOND), 0.2).acceleration == 0.0


def test_the_same_ego_state_as_in_samples_from_a_bag():
    from owled_ros.bags.motion import Motion as RecordedMotion
    motions = [(10 + n * 0.02, 5 + math.sin(n / 3), math.cos(n / 5) / 4) for n in range(40)]
    recorded = RecordedMotion()
    for seconds, speed, yaw_rate in motions:
        recorded.add(int(seconds * SECOND), speed, yaw_rate)
    for seconds in (10.31, 10.4, 10.555):
        stamp = int(seconds * SECOND)
        live, bag = history(*motions).at(stamp, 0.2), recorded.ego_at(stamp)
        assert math.isclose(live.speed, bag.speed, rel_tol=1e-9)
        assert math.isclose(live.yaw_rate, bag.yaw_rate, rel_tol=1e-9)
        assert math.isclose(live.acceleration, bag.acceleration, rel_tol=1e-6)


def test_odometry_that_cannot_be_true_holds_until_a_good_one():
    ego = history((10.0, 5.0, 0.0))
    for motion in (Motion(10 * SECOND + 1, math.nan, 0.0), Motion(10 * SECOND + 1, 5.0, 9.0),
                   Motion(10 * SECOND + 1, 101.0, 0.0), Motion(2000 * SECOND, 5.0, 0.0),
                   Motion(int(10.02 * SECOND), 9.0, 0.0), Motion(int(10.02 * SECOND), 5.0, 1.5),
                   Motion(11 * SECOND, 30.0, 1.0)):
        assert not ego.add(motion, 1000 * SECOND, 0.1)
        with refused(Status.INVALID_INPUT, 'odometry'):
            ego.at(10 * SECOND, 0.2)
    assert ego.add(Motion(int(10.04 * SECOND), 5.0, 0.0), 1000 * SECOND, 0.1)
    assert ego.at(10 * SECOND, 0.2).speed == 5.0


def test_a_jump_becomes_the_truth_after_a_while():
    ego = history((10.0, 5.0, 0.0))
    assert not ego.add(Motion(int(10.4 * SECOND), 30.0, 0.0), 1000 * SECOND, 0.1)
    assert ego.add(Motion(int(10.6 * SECOND), 30.0, 0.0), 1000 * SECOND, 0.1)


def test_history_is_bounded_and_can_be_cleared():
    ego = history(*((10 + n * 0.01, 5.0, 0.0) for n in range(1000)))
    assert len(ego._motions) <= 202
    assert not ego.add(Motion(1 * SECOND, 5.0, 0.0), 1000 * SECOND, 0.1)
    ego.clear()
    with refused(Status.NO_INPUT):
        ego.at(10 * SECOND, 0.2)


# Watchdog --------------------------------------------------------------------------------------

def verdict(watchdog, now, deadline=0.5):
    refusal = watchdog.check(now, deadline)
    return refusal and refusal.status


def test_the_watchdog_speaks_once_per_deadline():
    watchdog = Watchdog(Topics())
    watchdog.start(10.0)
    spoken = [now / 100 for now in range(1000, 1200)
              if verdict(watchdog, now / 100) is not None]
    assert spoken == [10.5, 11.0, 11.5]
    watchdog.good_came(11.7)
    assert verdict(watchdog, 12.1) is None


def test_what_the_watchdog_says():
    watchdog = Watchdog(Topics())
    watchdog.start(0.0)
    assert verdict(watchdog, 1.0) == Status.NO_INPUT
    watchdog.frame_came(1.9)
    assert verdict(watchdog, 2.0) == Status.NO_INPUT  # frames, but no odometry
    watchdog.odometry_came()
    watchdog.frame_came(2.9)
    assert verdict(watchdog, 3.0) == Status.DEADLINE_MISSED
    assert verdict(watchdog, 4.0) == Status.STALE_INPUT
    watchdog.model_begins(4.0)
    watchdog.frame_came(4.9)
    assert verdict(watchdog, 5.0) == Status.DEADLINE_MISSED
    watchdog.model_ends()
    watchdog.refused(5.9, Refused(Status.INVALID_INPUT, 'blank'))
    assert verdict(watchdog, 6.0) == Status.INVALID_INPUT
    assert verdict(watchdog, 7.0) == Status.STALE_INPUT


def test_a_clock_that_goes_back_again_and_again_does_not_silence_the_watchdog():
    watchdog = Watchdog(Topics())
    watchdog.start(0.0)
    spoken = []
    for tick in range(80):
        watchdog.forget()
        if verdict(watchdog, tick / 50) is not None:
            spoken.append(tick / 50)
    assert spoken == [0.5, 1.0, 1.5]


def test_a_restarting_model_is_not_forgotten_with_the_clock():
    watchdog = Watchdog(Topics())
    watchdog.start(0.0)
    watchdog.model_restarts(True)
    watchdog.forget()
    assert verdict(watchdog, 1.0) == Status.MODEL_ERROR


# Worker ----------------------------------------------------------------------------------------

def test_a_process_that_was_stopped_did_not_hang(monkeypatch):
    now = 100.0
    monkeypatch.setattr(model_worker, 'time', SimpleNamespace(monotonic=lambda: now))
    clock = AwakeTime(longest=0.5)
    for _ in range(20):
        now += 0.05
        clock.now()
    assert clock.now() == pytest.approx(1.0)
    now += 3600.0   # SIGSTOP, or the computer asleep
    assert clock.now() == pytest.approx(1.5)


def test_the_time_of_loading_is_not_held_against_the_work_after_it():
    go_on = threading.Event()
    work = Steps(go_on)
    work.loading = True
    worker = ModelWorker(lambda: work)
    worker.wait_until_loaded(threading.Event(), 5.0)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        assert not worker.hangs(0.2, 60.0)
        time.sleep(0.02)
    work.loading = False
    assert worker.busy() > 0.3 and not worker.hangs(0.2, 60.0)
    time.sleep(0.3)
    assert 'hang_limit is 0.2 s' in worker.hangs(0.2, 60.0)
    go_on.set()
    assert worker.stop(5.0)


def test_the_newest_wins_the_slot():
    slot = Slot()
    assert slot.take(0) is None and slot.take(0.01) is None
    assert [slot.put(item) for item in (1, 2, 3)] == [False, True, True]
    assert slot.take(1.0) == 3 and slot.take(0) is None
    slot.put(4)
    slot.clear()
    assert slot.take(0) is None


class Steps:
    """Work that counts its steps, and may hang in the first."""

    def __init__(self, hang=None):
        self.count = 0
        self.hang = hang
        self.loading = self.closed = False

    def close(self):
        self.closed = True

    def step(self, timeout):
        self.count += 1
        (self.hang or threading.Event()).wait(None if self.hang else 0.001)


def test_a_worker_works_until_it_is_stopped():
    worker = ModelWorker(Steps)
    steps = worker.wait_until_loaded(threading.Event(), 5.0)
    assert worker.stop(5.0)
    assert steps.count >= 1


def test_what_loading_raised_reaches_who_waits():
    def load():
        raise SystemExit('a model must not end the node')

    with pytest.raises(SystemExit):
        ModelWorker(load).wait_until_loaded(threading.Event(), 5.0)


def test_waiting_for_a_load_can_be_given_up():
    go_on, give_up = threading.Event(), threading.Event()

    def load():
        go_on.wait()
        return Steps()

    worker = ModelWorker(load, poll=0.01)
    give_up.set()
    with pytest.raises(InterruptedError):
        worker.wait_until_loaded(give_up, 5.0)
    go_on.set()
    assert worker.stop(5.0)


def test_loading_is_bounded_in_time():
    go_on = threading.Event()
    worker = ModelWorker(lambda: go_on.wait() and Steps(), poll=0.01)
    with pytest.raises(UserError, match='within 0.05 s.*load_limit'):
        worker.wait_until_loaded(threading.Event(), 0.05)
    go_on.set()
    assert worker.stop(5.0)


def test_a_hanging_worker_is_noticed_and_left_behind():
    hang = threading.Event()
    worker = ModelWorker(lambda: Steps(hang))
    steps = worker.wait_until_loaded(threading.Event(), 5.0)
    assert worker.hangs(60.0, 60.0) == '' and worker.busy() < 60.0
    time.sleep(0.1)
    assert 'hang_limit is 0.05' in worker.hangs(0.05, 60.0) and worker.busy() >= 0.1
    steps.loading = True
    assert worker.hangs(0.05, 0.06) == ''  # it hung before, and has just begun to load
    time.sleep(0.1)
    assert worker.hangs(0.05, 60.0) == '' and 'load_limit' in worker.hangs(0.05, 0.06)
    assert not worker.stop(0.05)
    hang.set()
    assert worker.stop(5.0)
    assert worker.hangs(0.05, 0.05) == '' and worker.busy() == 0.0
    assert worker.ended == '' and steps.closed


@pytest.mark.parametrize('error', [RuntimeError('no more\nand a trace'), SystemExit('no more')])
def test_what_ends_the_worker_is_kept_as_a_sentence(error):
    class Broken(Steps):

        def step(self, timeout):
            raise error

    worker = ModelWorker(Broken)
    worker.wait_until_loaded(threading.Event(), 5.0)
    assert worker.stop(5.0)
    assert worker.ended == 'no more' and worker.busy() == 0.0


def test_percentiles():
    assert percentile([], 0.5) is None
    assert percentile([3, 1, 2], 0.5) == 2 and percentile(range(100), 0.95) == 95
    counters = Counters()
    counters.measured(0.2, 0.1)
    counters.count('frames')
    assert counters.snapshot() == ({'frames': 1}, [0.2], [0.1])
