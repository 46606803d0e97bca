"""What is said when nothing good comes out, and that nothing late does."""

import itertools
import time

from rig import nanoseconds

from owled_ros.msg import DrivingAction


def gaps(times):
    return [after - before for before, after in itertools.pairwise(times)]


def test_the_watchdog_speaks_every_deadline_without_input(start):
    rig = start(deadline=0.5, max_frame_age=0.2)
    rig.wait_until_heard()
    rig.wait(lambda: len(rig.actions) >= 6, 'six words of the watchdog')
    assert set(rig.statuses()) == {DrivingAction.NO_INPUT}
    spoken = [nanoseconds(action.published) / 1e9 for action in rig.actions]
    assert all(0.4 < gap < 1.5 for gap in gaps(spoken))


def test_the_watchdog_names_a_camera_that_went_silent(start):
    rig = start(deadline=0.5, max_frame_age=0.5)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    since = len(rig.actions)
    action = rig.wait(lambda: rig.heard(DrivingAction.STALE_INPUT, since), 'the watchdog', 0.02,
                      rig.odometry)
    assert 'the last frame came' in action.reason


def test_a_hanging_model_is_reported_and_can_be_left_behind(start):
    rig = start('scripted:hang_at=3', deadline=0.5, max_frame_age=0.5)
    rig.wait_until_heard()
    rig.drive(lambda: rig.statuses().count(DrivingAction.DEADLINE_MISSED) >= 3, 'the watchdog')
    missed = [a for a in rig.actions if a.status == DrivingAction.DEADLINE_MISSED]
    assert any('the model has been at one frame' in action.reason for action in missed)
    # The lifecycle still answers; a new configuration gets a new worker.
    assert rig.state() == 'active'
    assert rig.change('deactivate') and rig.change('cleanup')
    assert rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')
    since = len(rig.actions)
    rig.drive(lambda: rig.heard(DrivingAction.OK, since), 'an action of the new worker')


def test_a_late_result_is_discarded(start):
    rig = start('scripted:delay=0.8', deadline=0.4, max_frame_age=0.4)
    rig.wait_until_heard()
    rig.drive(lambda: [a for a in rig.actions if 'was ready' in a.reason], 'a late result')
    late = next(action for action in rig.actions if 'was ready' in action.reason)
    assert late.status == DrivingAction.DEADLINE_MISSED
    assert nanoseconds(late.compute_time) > 0.7e9
    assert nanoseconds(late.header.stamp) > 0
    assert DrivingAction.OK not in rig.statuses()


def test_nothing_comes_out_after_deactivation(start):
    """A result that was on its way when the gates closed is dropped."""
    rig = start('scripted:delay=0.6')
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    rig.drive(lambda: True, 'one more frame')
    assert rig.change('deactivate')
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
    end = time.monotonic() + 1.5
    rig.drive(lambda: time.monotonic() > end, 'frames to an inactive node')
    closed = rig.statuses().index(DrivingAction.INACTIVE)
    assert rig.statuses()[closed:] == [DrivingAction.INACTIVE]
