import math
import random

from owled_ros.driver.action import (
    Action,
    ActionLimiter,
    Command,
    EgoState,
    InvalidAction,
    Limits,
    LimitsApplied,
    Maneuver,
    Route,
)
import pytest

LIMITS = Limits(acceleration=2.0, deceleration=4.0, emergency_deceleration=8.0, jerk=5.0,
                emergency_jerk=50.0, steering_angle=0.4, steering_rate=0.5, speed=15.0)
WHEELBASE = 2.7


class Limiter(ActionLimiter):
    """Takes the ego state for a second old unless told otherwise: nothing is held back by jerk."""

    def apply(self, action, ego, command, time, age=1.0):
        return super().apply(action, ego, command, time, age)


def limiter(horizon=1.0):
    return Limiter(LIMITS, WHEELBASE, horizon)


def action(acceleration=0.0, curvature=0.0, maneuver=Maneuver.KEEP_LANE):
    return Action(acceleration, curvature, maneuver, 0.5)


def test_an_action_within_limits_is_left_alone():
    limited = limiter().apply(action(1.0, 0.01), EgoState(10.0), Command(), 0.0)
    assert limited.acceleration == 1.0
    assert limited.curvature == pytest.approx(0.01)
    assert limited.steering_angle == pytest.approx(math.atan(WHEELBASE * 0.01))
    assert limited.target_speed == pytest.approx(11.0)
    assert limited.limits_applied == LimitsApplied.NONE


def test_braking_is_bounded_and_harder_only_in_an_emergency():
    ordinary = limiter().apply(action(-7.0), EgoState(10.0), Command(), 0.0)
    assert ordinary.acceleration == -4.0
    assert LimitsApplied.ACCELERATION in ordinary.limits_applied
    emergency = limiter().apply(
        action(-9.0, maneuver=Maneuver.EMERGENCY_STOP), EgoState(10.0), Command(), 0.0)
    assert emergency.acceleration == -8.0


def test_jerk_is_counted_from_the_last_action():
    bounded = limiter()
    bounded.apply(action(0.0), EgoState(5.0), Command(), 0.0)
    after = bounded.apply(action(2.0), EgoState(5.0), Command(), 0.1)
    assert after.acceleration == pytest.approx(0.5)
    assert after.limits_applied == LimitsApplied.JERK
    assert bounded.clamps['jerk'] == 1


def test_jerk_is_counted_from_the_measured_motion_after_a_restart():
    bounded = limiter(horizon=0.2)
    bounded.apply(action(2.0), EgoState(5.0), Command(), 0.0)
    bounded.restart()
    after = bounded.apply(action(2.0), EgoState(5.0, acceleration=-3.0), Command(), 0.1)
    assert after.acceleration == pytest.approx(-3.0 + 5.0 * 0.2)


def test_after_a_restart_there_is_no_more_freedom_than_since_the_measurement():
    for _ in range(3):      # as when every second frame is refused
        bounded = limiter()
        ego = EgoState(5.0, yaw_rate=5.0 * math.tan(0.1) / WHEELBASE, acceleration=0.5)
        after = bounded.apply(action(-4.0, -1.0), ego, Command(), 0.0, age=0.06)
        assert after.acceleration == pytest.approx(0.5 - 5.0 * 0.06)
        assert after.steering_angle == pytest.approx(0.1 - 0.5 * 0.06)
        assert LimitsApplied.JERK in after.limits_applied
        assert LimitsApplied.RATE in after.limits_applied


def test_a_lowered_angle_limit_holds_at_once():
    bounded = limiter()
    bounded.apply(action(0.0, 0.1), EgoState(5.0), Command(), 0.0)
    bounded.limits = Limits(**{**vars(LIMITS), 'steering_angle': 0.1})
    after = bounded.apply(action(0.0, 0.1), EgoState(5.0), Command(), 0.05)
    assert after.steering_angle == pytest.approx(0.1)


def test_a_long_pause_allows_no_jump():
    bounded = limiter(horizon=0.2)
    bounded.apply(action(-4.0), EgoState(5.0, acceleration=-4.0), Command(), 0.0)
    after = bounded.apply(action(2.0), EgoState(5.0), Command(), 100.0)
    assert after.acceleration == pytest.approx(-4.0 + 5.0 * 0.2)


def test_steering_angle_and_rate_are_bounded():
    bounded = limiter()
    first = bounded.apply(action(0.0, 0.0), EgoState(5.0), Command(), 0.0)
    second = bounded.apply(action(0.0, 1.0), EgoState(5.0), Command(), 0.1)
    assert first.steering_angle == 0.0
    assert second.steering_angle == pytest.approx(0.05)
    assert second.limits_applied == LimitsApplied.ANGLE | LimitsApplied.RATE


def test_above_the_speed_limit_it_may_only_slow_down():
    limited = limiter().apply(action(2.0), EgoState(14.9), Command(), 0.0)
    assert limited.acceleration == pytest.approx(0.1)
    assert limited.target_speed <= 15.0
    assert LimitsApplied.SPEED in limited.limits_applied


def test_the_target_speed_is_never_negative():
    assert limiter().apply(action(-4.0), EgoState(1.0), Command(), 0.0).target_speed == 0.0


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(InvalidAction, match='finite'):
        limiter().apply(action(bad), EgoState(5.0), Command(), 0.0)
    with pytest.raises(InvalidAction, match='finite'):
        limiter().apply(action(0.0, bad), EgoState(5.0), Command(), 0.0)


def test_turns_are_refused_unless_commanded():
    turn = action(maneuver=Maneuver.TURN_LEFT)
    with pytest.raises(InvalidAction, match='TURN_LEFT'):
        limiter().apply(turn, EgoState(5.0), Command(), 0.0)
    with pytest.raises(InvalidAction):
        limiter().apply(turn, EgoState(5.0), Command(Route.RIGHT), 0.0)
    assert limiter().apply(turn, EgoState(5.0), Command(Route.LEFT), 0.0)


def test_no_sequence_of_answers_leaves_the_limits():
    chance = random.Random(5)
    bounded = limiter(horizon=0.5)
    time, before = 0.0, None
    for _ in range(3000):
        time += chance.choice([0.0, 0.05, 0.1, 3.0])
        ego = EgoState(chance.uniform(0, 20), chance.uniform(-1, 1), chance.uniform(-12, 12))
        wanted = action(chance.uniform(-20, 20), chance.uniform(-2, 2),
                        chance.choice([Maneuver.KEEP_LANE, Maneuver.EMERGENCY_STOP]))
        limited = bounded.apply(wanted, ego, Command(), time)
        floor = -8.0 if wanted.maneuver == Maneuver.EMERGENCY_STOP else -4.0
        assert floor <= limited.acceleration <= 2.0
        assert abs(limited.steering_angle) <= 0.4
        assert 0.0 <= limited.target_speed <= 15.0
        if before:
            passed = min(time - before[0], 0.5)
            assert abs(limited.steering_angle - before[1].steering_angle) <= 0.5 * passed + 1e-9
            if limited.acceleration > before[1].acceleration and before[1].acceleration >= floor:
                rise = limited.acceleration - before[1].acceleration
                assert rise <= 5.0 * passed + 1e-9
        before = (time, limited)


@pytest.mark.parametrize('wrong', [{'jerk': 0.0}, {'speed': math.nan}, {'acceleration': -1.0},
                                   {'deceleration': 9.0}])
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)


def test_steering_of_the_measured_motion():
    assert EgoState(10.0, 0.2).steering_angle(2.7) == pytest.approx(math.atan(2.7 * 0.02))
    assert EgoState(0.5, 0.2).steering_angle(2.7) == 0.0


@pytest.mark.parametrize('commanded, expected', [
    (math.nan, 15.0), (10.5, 10.5), (30.0, 15.0), (0.0, 0.0)])
def test_the_lower_of_both_speed_limits_holds(commanded, expected):
    command = Command(speed_limit=commanded)
    limited = limiter().apply(action(2.0), EgoState(min(expected, 14.5)), command, 0.0)
    assert limited.target_speed <= expected
    assert limited.acceleration <= expected - min(expected, 14.5) + 1e-9
    assert LimitsApplied.SPEED in limited.limits_applied


def test_above_a_commanded_limit_it_brakes_within_the_ordinary_limit():
    limited = limiter().apply(action(1.0), EgoState(14.0), Command(speed_limit=8.0), 0.0)
    assert (limited.acceleration, limited.target_speed) == (-LIMITS.deceleration, 8.0)
