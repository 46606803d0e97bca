"""A short campaign against the running node, and the campaign's own judgement."""

import json
import math
from pathlib import Path
from random import Random
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from broken_nodes import GUARDS, ROOT  # noqa: E402, I100
from campaign import excused, has_grown, plan, Run, SETUPS  # noqa: E402
from kinds import KINDS, kinds_of  # noqa: E402
from marks import Order, paint, read  # noqa: E402
import numpy as np  # noqa: E402
from owled_ros.driver.action import LimitedAction, LimitsApplied, Maneuver, Status  # noqa: E402
from owled_ros.ros import messages  # noqa: E402
from owled_ros.ros.outlet import ActionReport  # noqa: E402
from stream import Measurement, Shot  # noqa: E402
from summary import last_line, outcome, passed, summarise  # noqa: E402
from witness import Ledger, Witness  # noqa: E402

CAMPAIGN = Path(__file__).with_name('campaign.py')
FAULTS = 300
SECOND = 10**9


def test_three_hundred_faults(tmp_path):
    """The node itself, over DDS: every kind of fault, reported in time, mended, no harm done."""
    written = tmp_path / 'run.json'
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), '--faults', str(FAULTS), '--seed', '1',
         '--json', str(written)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    run = json.loads(written.read_text())
    assert len(run['records']) == FAULTS
    assert {record['kind'] for record in run['records']} == set(KINDS)
    assert re.match(r'passed: \d+ faults of \d+ kinds .*wrong actions 0',
                    done.stdout.splitlines()[-1])
    summed = subprocess.run([sys.executable, str(CAMPAIGN), '--sum', str(written)],
                            capture_output=True, text=True, timeout=60)
    assert summed.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


# The plan and the judgement ----------------------------------------------------------------------

def test_a_plan_is_its_seed_and_has_every_kind():
    faults = plan(5, 2000)
    assert faults == plan(5, 2000) != plan(6, 2000)
    assert [index for index, _, _ in faults] == list(range(2000))
    assert {kind for _, _, kind in faults} == set(KINDS)
    assert all(kind in kinds_of(setup) for _, setup, kind in faults)
    assert all(set(kind.setups) <= set(SETUPS) for kind in KINDS.values())


def run_of(*records):
    return {'seed': 3, 'actions': 5, 'nodes': [], 'planned': len(records),
            'records': list(records)}


def record(**changed):
    return {'kind': 'camera_stops', 'setup': 'raw', 'index': 0, 'attempts': 1, 'set_aside': False,
            'report': 0.2, 'limit': 0.3, 'patience': 3.3, 'recovery': 0.05,
            'recovery_limit': 0.5, 'silence': 0.2, 'silence_limit': 0.3, 'wrong': [],
            'problems': [], 'machine': 0.0} | changed


@pytest.mark.parametrize('changed, words', [
    ({}, ''),
    ({'report': 0.31}, 'reported after 0.310 s'),
    ({'report': None}, 'never reported'),
    ({'report': None, 'limit': None}, ''),
    ({'recovery': 0.6}, 'drove again after'),
    ({'recovery': None}, 'did not drive again'),
    ({'silence': 0.31}, 'said nothing for 0.310 s'),
    ({'silence': None}, ''),
    ({'wrong': ['OK from bad input']}, 'OK from bad input'),
    ({'problems': ['activate was refused']}, 'activate was refused'),
])
def test_what_fails_a_fault(changed, words):
    assert words in outcome(record(**changed))
    run = run_of(record(), record(**changed))
    assert passed(summarise([run])) == (not words)
    assert ('FAILED' in last_line(summarise([run]))) == bool(words)


def test_a_machine_that_is_late_itself_excuses_lateness_and_nothing_else():
    assert excused(record(report=0.4, machine=0.06))
    assert not excused(record(report=0.6, machine=0.06))
    assert excused(record(report=None, machine=2.0)) and not excused(record(report=None))
    assert not excused(record(wrong=['OK from bad input'], machine=9.0))
    assert not excused(record(recovery=None, recovery_limit=30.0, machine=9.0))
    busy = run_of(record(), record(report=0.4, machine=0.06, set_aside=True))
    assert not passed(summarise([busy]))  # half of it was set aside: that says nothing


def test_what_fails_a_sum():
    run = run_of(record())
    assert passed(summarise([run])) and passed(summarise([run, run | {'seed': 4}]))
    assert not passed(summarise([run, run]))                       # the same twice
    assert not passed(summarise([run | {'planned': 2}]))           # stopped halfway
    assert not passed(summarise([run_of()]))                       # nothing was injected
    assert not passed(summarise([run | {'nodes': [{'fine': False, 'wrong': []}]}]))
    last = {'fine': False, 'wrong': ['OK from bad input']}
    assert 'wrong actions 1' in last_line(summarise([run | {'nodes': [last]}]))
    aside = [record() for _ in range(9)] + [record(kind='frozen_camera', set_aside=True)]
    assert not passed(summarise([run_of(*aside)]))                 # nothing is known of a kind


def test_what_grows():
    before = {'memory_mb': 100.0, 'files': 20, 'threads': 20}
    assert not has_grown(before, {'memory_mb': 125.0, 'files': 22, 'threads': 28})
    assert has_grown(before, before | {'files': 24})
    assert has_grown(before, before | {'memory_mb': 140.0})
    assert not has_grown(None, before) and not has_grown(before, None)


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    written = tmp_path / 'run.json'
    assert Run.read(written, 5, 20, []).records == []
    Run(5, 20, [], [record(index=0), record(index=7)], actions=11).write(written)
    run = Run.read(written, 5, 20, [])
    assert (len(run.records), run.actions) == (2, 11)
    left = run.left()
    assert [index for index, _, _ in left] == [n for n in range(20) if n not in (0, 7)]
    assert left[0] == plan(5, 20)[1]
    with pytest.raises(SystemExit, match='holds a run of 20 faults with seed 5'):
        Run.read(written, 6, 20, [])
    assert [path.name for path in tmp_path.iterdir()] == ['run.json']


# The witness -------------------------------------------------------------------------------------

class Court:
    """A witness with two frames and their odometry in its ledger."""

    def __init__(self):
        self.settings = SETUPS['raw'].settings
        self.ledger = Ledger()
        self.witness = Witness(self.ledger, self.settings, sim=True, numbered=True)
        for number, good in ((1, True), (2, True), (3, False)):
            stamp = number * SECOND // 10
            self.ledger.frame(Shot(number, stamp, number, np.zeros((4, 4, 3)), 0, good=good,
                                   sent=-math.inf))
            self.ledger.odometry(Measurement(stamp, 5.0, 0))
        self.sequence = 0

    def hear(self, number=1, status=Status.OK, late=0.01, reason='', speed=5.0, **changed):
        """Return what the witness finds wrong with an action."""
        self.sequence += 1
        stamp = number * SECOND // 10
        action = LimitedAction(**{
            'acceleration': 0.5, 'curvature': (number - 4) * 5e-4,
            'steering_angle': math.atan(2.7 * (number - 4) * 5e-4),
            'target_speed': speed + 0.5, 'maneuver': Maneuver.KEEP_LANE,
            'limits_applied': LimitsApplied.NONE, 'confidence': 0.5} | changed)
        report = ActionReport(self.sequence, status, reason, stamp,
                              stamp + int(late * SECOND), action)
        message = messages.action_message(report, base_frame='base_link', horizon=1.0,
                                          valid_for=self.settings.valid_for, model='')
        self.witness.append(message)
        return '; '.join(self.witness.take_wrong())


def test_the_witness_finds_nothing_wrong_with_a_good_action():
    court = Court()
    assert court.hear() == '' and court.hear(2) == ''
    assert court.hear(3, Status.INVALID_INPUT, reason='blank') == ''


@pytest.mark.parametrize('changed, words', [
    ({'number': 3}, 'OK from bad input'),
    ({'number': 7}, 'OK from bad input'),
    ({'late': 0.2}, '0.200 s after its frame'),
    ({'speed': 30.0}, 'outside'),
    ({'speed': 8.0}, 'the odometry said 5.00'),
    ({'confidence': 0.6}, 'a yaw rate that no odometry said'),
    ({'late': -0.2}, 'before its frame'),
    ({'curvature': 0.0}, 'of another frame'),
    ({'acceleration': 2.6}, 'acceleration 2.6 is outside'),
    ({'acceleration': math.nan}, 'not finite'),
    ({'steering_angle': 0.51}, 'outside'),
    ({'target_speed': -0.1}, 'outside'),
    ({'confidence': 1.5}, 'outside'),
    ({'maneuver': Maneuver.TURN_LEFT}, 'not asked for'),
    ({'maneuver': Maneuver.NONE}, 'not asked for'),
    ({'status': Status.STALE_INPUT}, 'without a reason'),
    ({'status': Status.UNKNOWN, 'reason': 'why'}, 'UNKNOWN'),
])
def test_the_witness_finds_what_is_wrong(changed, words):
    assert words in Court().hear(**changed)


def test_the_witness_remembers():
    court = Court()
    court.hear(1)
    assert 'answered twice' in court.hear(1)
    court.hear(2)
    assert 'answered after the later' in court.hear(1)
    court.sequence += 1
    assert 'sequence' in court.hear(2)
    court = Court()
    court.hear(1)
    court.ledger.shot(SECOND // 10).sent = court.witness.heard[-1].at  # no time lies between
    assert 'the acceleration changed' in court.hear(2, acceleration=-4.0, target_speed=1.0)


def test_the_first_action_follows_the_measured_motion():
    court = Court()
    for number in (1, 2):
        court.ledger.shot(number * SECOND // 10).sent = time.monotonic() + 9.0  # no time at all
    assert 'the first acceleration -5.00' in court.hear(1, acceleration=-5.0, target_speed=0.0)
    assert court.hear(3, Status.INVALID_INPUT, reason='blank') == ''
    assert 'the first steering angle' in court.hear(
        2, curvature=0.2, steering_angle=math.atan(2.7 * 0.2), limits_applied=LimitsApplied.RATE)


def test_commands_of_another_time_are_no_excuse():
    court = Court()
    turn = {'maneuver': Maneuver.TURN_LEFT}
    court.ledger.turn(SECOND // 10, 0)
    court.ledger.turn(SECOND // 5, 0)  # went out while the action was on its way
    assert court.hear(1, **turn) == ''
    court = Court()
    court.ledger.turn(60 * SECOND, 0)  # the clock went back since
    court.ledger.turn(SECOND // 10, 1)
    assert 'not asked for' in court.hear(1, **turn)


def test_a_commanded_speed_is_kept_once_it_was_heard():
    court = Court()
    court.ledger.slow_until = SECOND
    slow = {'limits_applied': LimitsApplied.SPEED, 'acceleration': -2.0}
    assert court.hear(1, target_speed=3.0, **slow) == ''
    court.ledger.shot(2 * SECOND // 10).slow = 3.0
    assert 'after 3 m/s were commanded' in court.hear(2, target_speed=3.5, **slow)


def test_of_several_frames_with_one_stamp_any_may_be_answered_once():
    court = Court()
    stamp = SECOND // 10
    court.ledger.frame(Shot(6, stamp, 6, np.zeros((4, 4, 3)), 0, sent=-math.inf))
    court.ledger.frame(Shot(7, stamp, 7, np.zeros((4, 4, 3)), 0, good=False, sent=-math.inf))
    sixth = {'curvature': 2 * 5e-4, 'steering_angle': math.atan(2.7 * 2 * 5e-4)}
    assert court.hear(1, **sixth) == ''
    assert 'answered twice' in court.hear(1)
    court = Court()
    assert 'of another frame' in court.hear(
        1, curvature=3 * 5e-4, steering_angle=math.atan(2.7 * 3 * 5e-4))


def test_pictures_keep_their_marks_through_jpeg():
    import cv2
    random = np.random.default_rng(0)
    for order in Order:
        picture = paint(random, 5, order)
        jpeg = cv2.imdecode(cv2.imencode('.jpg', picture)[1], cv2.IMREAD_COLOR)
        assert read(picture) == read(jpeg) == (5, order)


def test_kinds_say_what_they_are():
    settings = SETUPS['raw'].settings
    for name, kind in KINDS.items():
        fault = kind(Random(name), settings)
        limit = fault.limit(SimpleNamespace(camera_period=0.03))
        assert kind.__doc__ and 0 < limit <= 2.0 and fault.duration <= 1.5, name


@pytest.mark.parametrize('guard', GUARDS, ids=lambda guard: guard.name)
def test_guards_are_where_they_are_looked_for(guard):
    assert (ROOT / guard.file).read_text().count(guard.code) == 1
    assert set(guard.kinds) <= set(KINDS)
