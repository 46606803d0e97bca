"""The maneuver rule, and the edges of a recorded motion."""

from owled_ros.bags.motion import maneuver_of, Motion
from owled_ros.driver.action import EgoState, Maneuver
import pytest

SECOND = 10**9


@pytest.mark.parametrize('speed, acceleration, maneuver', [
    (10, 0, Maneuver.KEEP_LANE),
    (10, 1.5, Maneuver.KEEP_LANE),
    (10, -0.2, Maneuver.KEEP_LANE),
    (10, -1, Maneuver.SLOW_DOWN),
    (10, -4, Maneuver.STOP),
    (10, -5.5, Maneuver.EMERGENCY_STOP),
    (2, -1, Maneuver.STOP),
    (0, 0, Maneuver.STOP),
    (0.1, 0.1, Maneuver.STOP),
    (0, 1, Maneuver.KEEP_LANE),
    (1, -0.1, Maneuver.KEEP_LANE),
])
def test_maneuver_rule(speed, acceleration, maneuver):
    assert maneuver_of(speed, acceleration, 1.0) == maneuver


def test_nothing_is_told_beyond_what_was_recorded():
    motion = Motion()
    assert motion.last_stamp is None and motion.ego_at(0) is None
    for tick in range(3):
        motion.add(SECOND + tick * 50_000_000, 5.0 + tick, 0.0)
    assert motion.ego_at(SECOND - 1) is None
    assert motion.ego_at(SECOND) == EgoState(5, 0, 0)
    assert motion.ego_at(SECOND + 100_000_000) == EgoState(7, 0, 0)
    assert motion.ego_at(SECOND + 100_000_001) is None
    assert motion.action_after(SECOND, 0.1).acceleration == pytest.approx(20)
    assert motion.action_after(SECOND, 0.101) is None


def test_older_messages_are_ignored_and_clear_forgets():
    motion = Motion()
    motion.add(SECOND, 5.0, 0.0)
    motion.add(SECOND, 9.0, 0.0)
    motion.add(SECOND - 5, 9.0, 0.0)
    assert motion.last_stamp == SECOND and motion.ego_at(SECOND).speed == 5
    motion.clear()
    assert motion.last_stamp is None


def test_reversing_keeps_the_curve():
    motion = Motion()
    for tick in range(60):
        motion.add(tick * 20_000_000, -2.0, 0.1)
    assert motion.action_after(0, 1.0).curvature == pytest.approx(-0.05)
