"""Answers: whatever the scores of the tokens are, what is decoded is an action or an error."""

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from owled_ros.driver.action import (
    Action,
    ActionLimiter,
    Command,
    EgoState,
    InvalidAction,
    Limits,
    Maneuver,
    Route,
)
from owled_ros.driver.decoding import decode_fields, TokenTree
from owled_ros.driver.prompt import DrivingFormat
from owled_ros.ros.outlet import ActionOutlet, TOLERANCE
import pytest
import torch

VOCABULARY = 256
FORMAT = DrivingFormat()
COMMANDS = st.builds(Command, st.sampled_from(Route), st.just(math.nan) | st.floats(0, 60))
NUMBERS = st.floats() | st.sampled_from((0.0, -0.0, 1e308, -1e308, 5e-324)) | st.floats(-9, 9)


class Scores:
    """A decoder of characters whose scores are drawn from a seed, some of them not finite."""

    def __init__(self, seed, odd):
        self.random, self.odd = torch.Generator().manual_seed(seed), odd

    def feed(self, tokens, row):
        pass

    def next_logits(self):
        scores = torch.randn(VOCABULARY, generator=self.random) * 100
        if self.odd is not None:
            places = torch.randint(VOCABULARY, (VOCABULARY // 2,), generator=self.random)
            scores[places] = self.odd
        return scores[None]


@given(seed=st.integers(0, 2**32), command=COMMANDS, name=st.sampled_from(
    ('acceleration', 'curvature', 'maneuver')), odd=st.sampled_from(
    (None, math.nan, math.inf, -math.inf)))
def test_every_field_parses_whatever_the_scores_are(bounded, seed, command, name, odd):
    choices = FORMAT.choices(name, command)
    tree = TokenTree([(list(text.encode()), value) for text, value in choices])
    with bounded():
        try:
            (value, probability), = decode_fields(Scores(seed, odd), [tree])
        except FloatingPointError:
            assert odd is not None
            return
    assert value in [allowed for _, allowed in choices] and 0 <= probability <= 1


LIMITS = st.builds(
    lambda **values: Limits(**values, emergency_deceleration=values['deceleration'] + 3),
    acceleration=st.floats(0.1, 20), deceleration=st.floats(0.1, 20), jerk=st.floats(0.1, 1000),
    emergency_jerk=st.floats(0.1, 1000), steering_angle=st.floats(0.01, 1.5),
    steering_rate=st.floats(0.01, 10), speed=st.floats(0.1, 100))


@given(limits=LIMITS, command=COMMANDS, answers=st.lists(st.tuples(
    NUMBERS, NUMBERS, st.sampled_from(Maneuver), st.floats(0, 2), st.floats(-5, 100),
    st.floats(-3, 3)), min_size=1, max_size=5))
def test_what_is_limited_is_within_the_limits(limits, command, answers):
    """Any answers in any order: each is refused, or within limits, also against the one before."""
    limiter = ActionLimiter(limits, 2.7, 1.0)
    now, before, then = 0.0, None, 0.0
    for acceleration, curvature, maneuver, wait, speed, yaw_rate in answers:
        now += wait
        try:
            limited = limiter.apply(Action(acceleration, curvature, maneuver, 0.5),
                                    EgoState(speed, yaw_rate), command, now, age=1.0)
        except InvalidAction:
            assert not (math.isfinite(acceleration) and math.isfinite(curvature)) \
                or maneuver not in command.allowed_maneuvers()
            continue
        emergency = maneuver is Maneuver.EMERGENCY_STOP
        floor = limits.emergency_deceleration if emergency else limits.deceleration
        assert -floor <= limited.acceleration <= limits.acceleration
        assert abs(limited.steering_angle) <= limits.steering_angle
        assert 0 <= limited.target_speed <= limits.speed
        if not math.isnan(command.speed_limit):
            assert limited.target_speed <= command.speed_limit
        if before is not None:
            check_change(limits, before, limited, min(now - then, 1.0) + 1e-9, emergency)
        before, then = limited, now


def check_change(limits, before, after, since, emergency):
    """Steering never changes faster than its rate, and acceleration never than its jerk."""
    turn = abs(after.steering_angle - before.steering_angle)
    assert turn <= limits.steering_rate * since + 1e-6
    change = after.acceleration - before.acceleration
    down = limits.emergency_jerk if emergency else limits.jerk
    released = before.acceleration < -limits.deceleration
    assert -down * since - 1e-6 <= change
    assert change <= limits.jerk * since + 1e-6 or released


@given(answer=st.none() | st.text() | st.integers() | st.builds(
    Action, NUMBERS | st.text() | st.none() | st.booleans(), NUMBERS | st.text() | st.none(),
    st.sampled_from(Maneuver) | st.integers() | st.text() | st.none(),
    NUMBERS | st.text() | st.none()))
def test_only_actions_within_limits_pass_the_outlet(answer):
    """Whatever a driver returns, nothing is published as OK that a planner must not follow."""
    from owled_ros.driver.action import Status
    from owled_ros.ros.counters import Counters
    from owled_ros.ros.parameters import PARAMETERS, Settings
    from owled_ros.ros.timekeeper import Timekeeper
    from owled_ros.ros.topics import Topics
    from owled_ros.ros.watchdog import Watchdog
    settings = Settings({parameter.name: parameter.default for parameter in PARAMETERS})
    reports = []
    outlet = ActionOutlet(reports.append, Timekeeper(lambda: 10**11, 0.1), Watchdog(Topics()),
                          Counters())
    outlet.configure(ActionLimiter(settings.limits, 2.7, 1.0), settings)
    outlet.open()
    frame = SimpleNamespace(stamp=10**11, arrived=0.0, wall_clock=False, ticket=outlet.ticket())
    outlet.offer(answer, frame, EgoState(5.0), Command(), 0.01)
    (report,) = reports
    if report.status is Status.OK:
        action = report.action
        assert -8 <= action.acceleration <= 2.5 and abs(action.steering_angle) <= 0.5
        assert 0 <= action.target_speed <= 16.7
        assert -TOLERANCE <= action.confidence <= 1 + TOLERANCE
        assert action.maneuver in Command().allowed_maneuvers()
    else:
        assert report.status is Status.INVALID_OUTPUT and report.reason


def test_two_texts_of_one_value_are_an_error():
    with pytest.raises(ValueError):
        TokenTree([([1, 2], 'a'), ([1, 2], 'b')])
