"""The example planner follows what may be followed, and brakes for everything else."""

import importlib.util
import math
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

from owled_ros.msg import DrivingAction
import pytest
from road import action, brakes, Road, speeds_up, stops

PROGRAM = Path(__file__).parents[2] / 'examples' / 'planner.py'


@pytest.fixture(scope='module')
def planner():
    spec = importlib.util.spec_from_file_location('example_planner', PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module     # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def at(seconds):
    """Return a moment, on a clock that goes right."""
    return SimpleNamespace(clock=seconds, steady=seconds + 7.0)


@pytest.fixture
def follower(planner):
    """One that a person lets follow, with action 1."""
    follower = planner.Follower()
    follower.take(action(1))
    follower.engage(at(100.0), True)
    return follower


def test_an_ok_action_is_followed_within_the_planners_own_limits(follower):
    assert follower.command(at(100.3), 5.0, 0.0) == pytest.approx((5.06, 0.05))
    follower.take(action(2, speed=2.0, acceleration=-9.0, curvature=-4.0))
    assert follower.command(at(100.3), 5.0, 0.0) == pytest.approx((4.85, -0.15))
    follower.take(action(3, speed=60.0, acceleration=9.0))
    assert follower.command(at(100.3), 5.0, 0.0)[0] == pytest.approx(5.075)
    assert follower.command(at(100.3), 7.99, 0.0)[0] == pytest.approx(8.0)
    assert follower.command(at(100.3), 9.0, 0.0)[0] == pytest.approx(8.85)


def test_it_speeds_up_and_brakes_as_it_is_asked(follower):
    for number, (acceleration, maneuver, speed) in enumerate((
            (0.3, DrivingAction.KEEP_LANE, 5.015), (0.0, DrivingAction.KEEP_LANE, 5.0),
            (-0.5, DrivingAction.SLOW_DOWN, 4.975),
            (-8.0, DrivingAction.EMERGENCY_STOP, 4.7)), 2):
        follower.take(action(number, acceleration=acceleration, maneuver=maneuver,
                             speed=max(5.0 + 2 * acceleration, 0.0)))
        assert follower.command(at(100.3), 5.0, 0.0)[0] == pytest.approx(speed)


@pytest.mark.parametrize('spoil, why', [
    (lambda f: f.take(action(2, status=DrivingAction.STALE_INPUT)), 'no'),
    (lambda f: f.take(DrivingAction()), 'the status is 0'),
    (lambda f: f.take(action(3)), 'actions were lost'),
    (lambda f: f.take(action(2, stamp=98.0)), 'the last action is over'),
    (lambda f: f.take(action(2, stamp=103.0)), 'the last action is from the future'),
    (lambda f: f.take(action(2, speed=math.nan)), 'the action is not finite'),
    (lambda f: f.take(action(2, curvature=math.inf)), 'the action is not finite'),
    (lambda f: f.lose_publisher(), 'the driving node is gone'),
], ids=['not ok', 'blank', 'gap', 'over', 'from the future', 'NaN', 'infinite', 'gone'])
def test_without_one_it_brakes_and_holds_the_curve(follower, spoil, why):
    spoil(follower)
    assert follower.command(at(100.0), 5.0, 0.04) == pytest.approx((4.85, 0.04))
    assert follower.command(at(100.0), 0.1, 0.04) == pytest.approx((0.0, 0.04))
    assert why in follower.braking()
    follower.take(action(follower.sequence + 1))
    assert follower.command(at(100.1), 5.0, 0.0)[0] > 5.0


def test_it_follows_when_a_person_lets_it(planner):
    follower = planner.Follower()
    braked = pytest.approx((4.85, 0.04))
    follower.engage(at(100.0), True)    # nothing to follow
    follower.take(action(1))
    assert follower.command(at(100.1), 5.0, 0.04) == braked and 'nobody' in follower.braking()
    follower.engage(at(100.1), True)
    assert follower.command(at(100.2), 5.0, 0.04)[0] > 5.0 and follower.braking() is None
    follower.engage(at(100.2), False)
    assert follower.command(at(100.2), 5.0, 0.04) == braked and 'nobody' in follower.braking()


@pytest.mark.parametrize('silence, follows', [(1.9, True), (2.1, False)])
def test_after_a_longer_break_a_person_has_to_let_it_again(follower, silence, follows):
    assert follower.command(at(100.5), 5.0, 0.0)[0] > 5.0
    follower.take(action(2, status=DrivingAction.MODEL_ERROR))
    assert follower.command(at(100.5 + silence), 5.0, 0.0)[0] < 5.0
    for number in (3, 4):
        follower.take(action(number, stamp=102.0))
    assert (follower.command(at(102.1), 5.0, 0.0)[0] > 5.0) is follows
    follower.engage(at(102.2), True)
    assert follower.command(at(102.3), 5.0, 0.0)[0] > 5.0


def test_a_clock_that_stands_still_makes_no_action_younger(follower):
    stopped = SimpleNamespace(clock=100.0, steady=107.9)
    assert follower.command(stopped, 5.0, 0.0)[0] > 5.0
    stopped.steady += 0.2
    assert follower.command(stopped, 5.0, 0.0)[0] < 5.0
    assert follower.braking() == 'the last action is over'


def test_it_brakes_when_actions_stop_coming(ros_domain):
    road = Road()
    process = subprocess.Popen([sys.executable, PROGRAM])
    try:
        command = road.until(speeds_up, acting=True, engaging=True)
        assert command.twist.angular.z == pytest.approx(0.05 * command.twist.linear.x)
        road.until(brakes, acting=False)
        road.until(speeds_up, acting=True, engaging=True)
        road.until(stops, acting=True, speed=math.nan)
        road.until(speeds_up, acting=True, engaging=True, valid_for=120)
        road.lose_the_driving_node()
        road.until(brakes, acting=False)
    finally:
        process.terminate()
        process.wait(10)
        road.close()
