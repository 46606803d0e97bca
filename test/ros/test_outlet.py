"""What passes the outlet, what the worker does around it, and how it is worded as a message."""

from dataclasses import dataclass, replace
import math
import re
import time
import weakref

import numpy as np
from owled_ros.driver.action import (
    Action,
    ActionLimiter,
    Command,
    EgoState,
    InvalidAction,
    LimitsApplied,
    Maneuver,
    Status,
)
from owled_ros.driver.memory import OutOfMemory
from owled_ros.errors import UserError
from owled_ros.film.overlay import draw_action
from owled_ros.ros import messages
from owled_ros.ros.counters import Counters
from owled_ros.ros.decision_loop import DecisionLoop
from owled_ros.ros.inputs import Frame
from owled_ros.ros.outlet import ActionOutlet
from owled_ros.ros.parameters import PARAMETERS, Settings
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import Timekeeper
from owled_ros.ros.topics import Topics
from owled_ros.ros.watchdog import Watchdog
import pytest

SECOND = 10**9
DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}
EGO = EgoState(5.0)
KEEP = Action(0.5, 0.01, Maneuver.KEEP_LANE, 0.9)


class Bench:
    """An outlet on a clock that only moves when it is told to."""

    def __init__(self, **changed):
        self.settings = Settings(DEFAULTS | changed)
        self.time = 100 * SECOND
        self.reports, self.explanations, self.shown, self.logged = [], [], [], []
        self.clock = Timekeeper(lambda: self.time, 0.1)
        self.clock.now()
        self.counters = Counters()
        self.outlet = ActionOutlet(self.reports.append, self.clock, Watchdog(Topics()),
                                   self.counters)
        self.limiter = ActionLimiter(self.settings.limits, 2.7, 1.0)
        self.outlet.configure(self.limiter, self.settings)
        self.outlet.open()

    def frame(self, message=None, age=0.0, **changed):
        # A second ago: so far may the first action be from the measured motion.
        frame = Frame(message, self.time - int(age * SECOND), time.monotonic() - 1.0, False,
                      self.outlet.ticket())
        return replace(frame, **changed)

    def offer(self, action=KEEP, **frame):
        return self.outlet.offer(action, self.frame(**frame), EGO, Command(), 0.05)

    def last(self):
        return self.reports[-1].status, self.reports[-1].reason


def test_a_good_action_goes_out():
    bench = Bench()
    report = bench.offer(age=0.2)
    assert bench.reports == [report]
    assert (report.status, report.sequence, report.latency) == (Status.OK, 1, SECOND // 5)
    assert report.action.acceleration == 0.5


def test_a_late_one_does_not():
    bench = Bench()
    assert bench.offer(age=0.7) is None
    assert bench.last()[0] == Status.DEADLINE_MISSED and '0.700 s' in bench.last()[1]
    # The system clock was set back while the model worked: the steady clock knows better.
    assert bench.offer(arrived=time.monotonic() - 9.0, wall_clock=True) is None
    assert bench.last()[0] == Status.DEADLINE_MISSED


def test_one_that_grows_late_on_its_way_out_does_not():
    """Whatever holds the thread up: no message says OK and a time past the deadline."""
    bench = Bench(deadline=0.6)
    frame = bench.frame()

    def read():
        bench.time += SECOND // 4  # every look at the clock takes long
        return bench.time

    bench.clock._read = read
    for _ in range(4):
        bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05)
    assert [report.status for report in bench.reports][:2] == [Status.OK, Status.OK]
    assert bench.last()[0] == Status.DEADLINE_MISSED
    assert all(report.latency <= 0.6 * SECOND for report in bench.reports
               if report.status == Status.OK)


def test_one_from_before_a_jump_of_the_clock_does_not():
    bench = Bench()
    frame = bench.frame()
    bench.time -= 50 * SECOND
    bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05)
    assert [report.status for report in bench.reports] in ([], [Status.DEADLINE_MISSED])
    bench.clock.now()
    bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05)
    assert Status.OK not in [report.status for report in bench.reports]


def test_nothing_but_inactive_comes_out_of_a_closed_outlet():
    bench = Bench()
    frame = bench.frame()
    bench.outlet.close('closed')
    bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05)
    bench.outlet.refuse(Refused(Status.STALE_INPUT, 'old'), frame.ticket)
    bench.outlet.watch()
    assert [report.status for report in bench.reports] == [Status.INACTIVE]
    bench.outlet.open()
    assert bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05) is None
    bench.outlet.close('the process ends', for_good=True)
    bench.outlet.open()
    assert bench.outlet.ticket() is None


@pytest.mark.parametrize('action, words', [
    (Action(math.nan, 0.0, Maneuver.KEEP_LANE), 'not finite'),
    (Action(0.0, math.inf, Maneuver.KEEP_LANE), 'not finite'),
    (Action(0.0, 0.0, Maneuver.TURN_LEFT), 'TURN_LEFT'),
    (Action(0.0, 0.0, Maneuver.NONE), 'NONE'),
    (Action(0.0, 0.0, Maneuver.KEEP_LANE), 'not finite'),  # without a confidence
    (None, 'NoneType'),
    (Action('fast', 0.0, Maneuver.KEEP_LANE, 0.9), "acceleration .* 'fast', no number"),
    (Action(0.0, 0.0, 42, 0.9), 'maneuver 42'),
])
def test_an_answer_that_is_no_action(action, words):
    bench = Bench()
    assert bench.offer(action) is None
    assert bench.last()[0] == Status.INVALID_OUTPUT and re.search(words, bench.last()[1])


@pytest.mark.parametrize('broken', [
    {'acceleration': 3.0}, {'acceleration': -6.0}, {'steering_angle': 0.6}, {'target_speed': -1.0},
    {'target_speed': 17.0}, {'curvature': math.nan}, {'confidence': math.nan},
    {'confidence': 1.5}, {'curvature': 0.3}])
def test_the_last_look_does_not_trust_the_limiter(broken):
    bench = Bench()
    apply = bench.limiter.apply
    bench.limiter.apply = lambda *arguments: replace(apply(*arguments), **broken)
    assert bench.offer() is None
    assert bench.last()[0] == Status.INVALID_OUTPUT


def test_the_speed_limit_of_the_command_is_one_of_the_limits():
    bench = Bench()
    limited = bench.outlet.offer(Action(2.5, 0.0, Maneuver.KEEP_LANE, 0.9), bench.frame(), EGO,
                                 Command(speed_limit=6.0), 0.05).action
    assert (limited.acceleration, limited.target_speed) == (1.0, 6.0)
    assert LimitsApplied.SPEED in limited.limits_applied
    # Nor is the limiter trusted with it.
    apply = bench.limiter.apply
    bench.limiter.apply = lambda *arguments: replace(apply(*arguments), target_speed=7.0)
    assert bench.outlet.offer(KEEP, bench.frame(), EGO, Command(speed_limit=6.0), 0.05) is None
    assert bench.last()[0] == Status.INVALID_OUTPUT and 'target speed' in bench.last()[1]


def test_every_refusal_starts_the_limits_again():
    bench = Bench()
    bench.offer(Action(2.5, 0.0, Maneuver.KEEP_LANE, 0.9))
    assert bench.limiter._previous is not None
    bench.outlet.refuse(Refused(Status.STALE_INPUT, 'old'), bench.outlet.ticket())
    assert bench.limiter._previous is None


def test_a_change_of_settings_holds_for_the_next_action():
    bench = Bench()
    bench.outlet.change(Settings(DEFAULTS | {'limits.acceleration': 0.25}))
    report = bench.offer()
    assert report.action.acceleration == 0.25
    assert LimitsApplied.ACCELERATION in report.action.limits_applied


@pytest.mark.parametrize('name, value, field, low, high', [
    ('limits.acceleration', 0.25, 'acceleration', -9, 0.25),
    ('limits.deceleration', 1.5, 'acceleration', -1.5, 9),
    ('limits.jerk', 0.5, 'acceleration', -0.5, 0.5),
    ('limits.steering_angle', 0.02, 'steering_angle', -0.02, 0.02),
    ('limits.steering_rate', 0.02, 'steering_angle', -0.02, 0.02),
    ('limits.speed', 4.5, 'target_speed', 0, 4.5),
])
@pytest.mark.parametrize('sign', [-1, 1])
def test_every_limit_may_change_while_it_drives(name, value, field, low, high, sign):
    bench = Bench()
    bench.outlet.change(Settings(DEFAULTS | {name: value}))
    action = bench.offer(Action(sign * 9.0, sign * 9.0, Maneuver.KEEP_LANE, 0.9)).action
    assert low - 1e-9 <= getattr(action, field) <= high + 1e-9


@pytest.mark.parametrize('name, value, acceleration', [
    ('limits.emergency_deceleration', 6.0, -6.0), ('limits.emergency_jerk', 3.0, -3.0)])
def test_those_of_an_emergency_may_too(name, value, acceleration):
    bench = Bench()
    bench.outlet.change(Settings(DEFAULTS | {name: value}))
    stop = Action(-9.0, 0.0, Maneuver.EMERGENCY_STOP, 0.9)
    assert bench.offer(stop).action.acceleration == acceleration


def test_the_deadline_may_change_while_the_model_works():
    bench = Bench()
    frame = bench.frame(age=0.3)
    bench.outlet.change(Settings(DEFAULTS | {'deadline': 0.25, 'max_frame_age': 0.2}))
    assert bench.outlet.offer(KEEP, frame, EGO, Command(), 0.05) is None
    assert bench.last()[0] == Status.DEADLINE_MISSED and '0.25 s' in bench.last()[1]


# The loop --------------------------------------------------------------------------------------

@dataclass
class Decision:
    action: Action


class Stream:
    confidence = 0.5

    def __init__(self, words):
        self.words, self.text = list(words), ''

    def advance(self, max_tokens):
        for _ in range(min(max_tokens, len(self.words))):
            self.text += self.words.pop(0)
        return not self.words


class Driver:
    """Raises `failures` one after another, then answers with `action`, or raises it."""

    def __init__(self, action=KEEP, words='abcdef', failures=()):
        self.action, self.words, self.failures = action, words, list(failures)
        self.decisions = 0

    def decide(self, frame, ego, command):
        self.decisions += 1
        if self.failures:
            raise self.failures.pop(0)
        if isinstance(self.action, BaseException):
            raise self.action
        return Decision(self.action)

    def explain(self, decision):
        if isinstance(self.words, Exception):
            raise self.words
        return Stream(self.words)


class GivenInputs:
    """Hands out the frame it was given, and raises `error` if it has one."""

    def __init__(self, error=None):
        self.frame, self.error = None, error

    def take(self, timeout):
        frame, self.frame = self.frame, None
        return frame

    def of(self, frame):
        if self.error:
            raise self.error
        return frame.message, EGO, Command()


def loop(bench, driver, error=None):
    bench.inputs = GivenInputs(error)
    return DecisionLoop(
        driver, inputs=bench.inputs, outlet=bench.outlet, clock=bench.clock,
        counters=bench.counters, publish_explanation=bench.explanations.append,
        show=lambda *shown: bench.shown.append(shown), log=bench.logged.append)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)


def feed(bench, work, seed=0, **frame):
    bench.time += SECOND // 10
    bench.inputs.frame = bench.frame(picture(seed), **frame)
    while bench.inputs.frame is not None:
        work.step(0)


def test_an_explanation_is_written_between_actions_and_newer_ones_get_none():
    bench = Bench(explanation_slice=2)
    work = loop(bench, Driver())
    for seed in range(4):  # a frame waits at every step, and yet there is an explanation
        assert not bench.explanations
        feed(bench, work, seed)
        assert len(bench.reports) == seed + 1
    (explanation,) = bench.explanations
    assert explanation.complete and explanation.text == 'abcdef'
    assert explanation.action_sequence == 1 and explanation.stamp == bench.reports[0].stamp
    for _ in range(3):
        work.step(0)
    assert [told.action_sequence for told in bench.explanations] == [1, 4]
    assert len(bench.shown) == 4


def test_an_old_explanation_is_given_up():
    bench = Bench(explanation_slice=1)
    work = loop(bench, Driver())
    feed(bench, work)
    work.step(0)
    bench.time += 6 * SECOND
    work.step(0)
    (explanation,) = bench.explanations
    assert not explanation.complete and explanation.text == 'ab'


def test_how_explanations_are_written_may_change_while_it_drives():
    bench = Bench(explanation_slice=1)
    work = loop(bench, Driver())
    feed(bench, work)
    work.step(0)
    bench.outlet.change(Settings(DEFAULTS | {'explanation_slice': 4}))
    work.step(0)
    assert work._explaining[2].text == 'abcde'
    bench.time += 2 * SECOND
    bench.outlet.change(Settings(DEFAULTS | {'max_explanation_age': 1.0, 'explain': False}))
    work._explaining[2].words = list('xyzxyz')
    work.step(0)
    assert not bench.explanations[0].complete
    feed(bench, work, 1)
    assert not work._explaining


def test_an_explanation_of_a_time_that_is_gone_is_dropped():
    bench = Bench(explanation_slice=1)
    work = loop(bench, Driver())
    feed(bench, work)
    bench.outlet.close('closed')
    bench.outlet.open()
    for _ in range(9):
        work.step(0)
    assert not bench.explanations


def test_no_explanations_where_none_are_wanted_and_broken_ones_do_no_harm():
    bench = Bench(explain=False)
    work = loop(bench, Driver())
    feed(bench, work)
    assert bench.reports and not work._explaining
    bench = Bench()
    work = loop(bench, Driver(words=RuntimeError('no more memory')))
    feed(bench, work)
    assert bench.reports[-1].status == Status.OK and 'no more memory' in bench.logged[0]


def raiser(error):
    def raise_it(_):
        raise error
    return raise_it


@pytest.mark.parametrize('driver, error, status, words', [
    (Driver(RuntimeError('shape\ntrace')), None, Status.MODEL_ERROR, 'failed: shape'),
    (Driver(SystemExit('no more')), None, Status.MODEL_ERROR, 'failed: no more'),
    (Driver(InvalidAction('no action')), None, Status.INVALID_OUTPUT, 'no action'),
    (Driver(), Refused(Status.NO_INPUT, 'none yet'), Status.NO_INPUT, 'none yet'),
])
def test_what_can_go_wrong_is_said(driver, error, status, words):
    bench = Bench()
    feed(bench, loop(bench, driver, error))
    assert bench.last()[0] == status and words in bench.last()[1]
    assert '\n' not in bench.last()[1]
    assert bench.reports[-1].action is None


OUT_OF_MEMORY = [
    MemoryError(), RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate')]


@pytest.mark.parametrize('error', OUT_OF_MEMORY)
def test_out_of_memory_is_tried_once_more(error):
    bench = Bench(explanation_slice=1)
    driver = Driver(failures=())
    work = loop(bench, driver)
    feed(bench, work)
    assert work._explaining
    driver.failures = [error]
    feed(bench, work, 1)
    assert (bench.last()[0], driver.decisions) == (Status.OK, 3)
    assert bench.counters.snapshot()[0]['out of memory'] == 1


@pytest.mark.parametrize('error', OUT_OF_MEMORY)
def test_out_of_memory_twice_ends_the_work(error):
    bench = Bench()
    driver = Driver(error)
    with pytest.raises(OutOfMemory, match='also with freed caches') as raised:
        feed(bench, loop(bench, driver))
    assert bench.last() == (Status.MODEL_ERROR, str(raised.value))
    assert driver.decisions == 2
    bench = Bench()
    driver = Driver(failures=[error, RuntimeError('the shape is wrong')])
    feed(bench, loop(bench, driver))  # another error the second time: said, and life goes on
    assert bench.last()[0] == Status.MODEL_ERROR and 'shape' in bench.last()[1]


def test_the_tensors_of_the_first_try_are_gone_before_the_second():
    class Tensor:
        pass

    alive = []

    class Hungry(Driver):

        def decide(self, frame, ego, command):
            if self.decisions:
                alive.append(tensor() is not None)
                return super().decide(frame, ego, command)
            self.decisions += 1
            return self._use_up()

        def _use_up(self):
            nonlocal tensor
            large = Tensor()
            large.itself = large  # only the collector finds it
            tensor = weakref.ref(large)
            raise MemoryError

    tensor = None
    bench = Bench()
    feed(bench, loop(bench, Hungry()))
    assert bench.last()[0] == Status.OK and alive == [False]


def test_a_word_that_comes_out_of_a_hang_into_another_time_is_dropped():
    bench = Bench(explanation_slice=9)
    work = loop(bench, Driver())
    feed(bench, work)
    advance = work._explaining[2].advance

    def hang(tokens):
        bench.outlet.close('given up')
        bench.outlet.open()
        return advance(tokens)

    work._explaining[2].advance = hang
    work.step(0)
    assert not bench.explanations and not work._explaining


def test_a_picture_that_cannot_be_drawn_does_no_harm():
    bench = Bench()
    work = loop(bench, Driver())
    bench.shown = None
    feed(bench, work)
    assert bench.last()[0] == Status.OK and 'could not be drawn' in bench.logged[0]


# Messages --------------------------------------------------------------------------------------

def test_a_blank_message_orders_nothing():
    bench = Bench()
    bench.outlet.refuse(Refused(Status.STALE_INPUT, 'old'), bench.outlet.ticket())
    message = messages.action_message(bench.reports[0], base_frame='base_link', horizon=1.0,
                                      valid_for=1.0, model='m')
    assert message.status == Status.STALE_INPUT and message.reason == 'old'
    assert math.isnan(message.acceleration) and math.isnan(message.target_speed)
    assert message.valid_for.sec == message.valid_for.nanosec == 0
    assert message.latency.sec == message.latency.nanosec == 0
    assert message.header.stamp.sec == 0


def test_rounding_never_passes_a_limit():
    for value in (16.7, -16.7, 0.1, -8.0, 0.0, 0.3):
        rounded = messages.towards_zero(value)
        assert abs(rounded) <= abs(value) and abs(rounded - value) < 1e-5


def test_times_survive_the_way():
    for stamp in (0, 1, 1_795_329_087_972_972_262):
        assert messages.nanoseconds(messages.time_message(stamp)) == stamp
    # The largest stamp that a message can carry, with as many nanoseconds as fit into it.
    assert messages.time_message((2**31 - 1) * SECOND + 2**32 - 1).sec == 2**31 - 1
    assert messages.time_message(-2**31 * SECOND - 1).sec == -2**31
    assert messages.nanoseconds(messages.duration_message(-5)) == -5
    assert messages.duration_message(10**20).sec == 2**31 - 1


def test_commands():
    from owled_ros.msg import DrivingCommand

    def command(stamp=1, **fields):
        message = DrivingCommand(**fields)
        message.header.stamp = messages.time_message(stamp)
        return messages.command(message)

    assert math.isnan(command(route=1, speed_limit=math.nan).speed_limit)
    for wrong in ({'route': 77}, {'speed_limit': -1.0}, {'speed_limit': math.inf}):
        with pytest.raises(UserError):
            command(**wrong)
    with pytest.raises(UserError, match='no stamp'):
        command(stamp=0)


def test_the_overlay_leaves_its_frame_alone():
    frame = np.zeros((120, 160, 3), np.uint8)
    action = Bench().offer(Action(-2.0, 0.05, Maneuver.SLOW_DOWN, 0.9)).action
    drawn = draw_action(frame, action, 'braking for the red light ahead ' * 9)
    assert drawn.shape == frame.shape and drawn.any() and not frame.any()


def test_the_first_action_after_a_refusal_starts_from_the_measured_motion():
    bench = Bench()
    for _ in range(3):  # every second frame is refused
        bench.outlet.refuse(Refused(Status.INVALID_INPUT, 'blank'), bench.outlet.ticket())
        action = bench.offer(Action(-5.0, 0.2, Maneuver.SLOW_DOWN, 0.9),
                             arrived=time.monotonic()).action
        assert -0.5 < action.acceleration <= EGO.acceleration
        assert abs(action.steering_angle - EGO.steering_angle(2.7)) < 0.03
