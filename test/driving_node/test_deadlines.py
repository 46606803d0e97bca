"""What is said when nothing good comes out, and that nothing late does."""

import itertools
import time

from diagnostic_msgs.msg import DiagnosticStatus
from owled_ros.msg import DrivingAction
from rig import nanoseconds


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


def diagnosis(rig, part):
    """Return the newest status of one concern."""
    return next(status for message in reversed(rig.diagnostics) for status in message.status
                if status.name.endswith(f': {part}'))


def drives_again(rig):
    """Check that the node can be configured anew, and drives."""
    assert not rig.change('activate')
    assert 'not activated' in rig.words()
    assert rig.change('cleanup') and rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')
    since = len(rig.actions)
    rig.drive(lambda: rig.heard(DrivingAction.OK, since), 'an action of the new worker')


def test_a_model_that_hangs_for_too_long_is_given_up(start):
    rig = start('scripted:hang_at=3,hang=6', deadline=0.5, max_frame_age=0.5, hang_limit=2.0)
    rig.wait_until_heard()
    given_up = rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR), 'the end of patience')
    assert 'the model hangs' in given_up.reason and 'hang_limit is 2 s' in given_up.reason
    before = rig.statuses()[:rig.actions.index(given_up)]
    assert before.count(DrivingAction.DEADLINE_MISSED) >= 2
    inactive = rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
    assert 'clean the node up' in inactive.reason
    assert rig.state() == 'inactive'
    rig.wait(lambda: 'the model hangs' in diagnosis(rig, 'model').message, 'the diagnosis')
    assert diagnosis(rig, 'model').level == DiagnosticStatus.ERROR
    drives_again(rig)
    assert 'left behind' in rig.words()
    # The old worker awakes, and neither what it decided nor its thread is ever seen again.
    threads = rig.threads()
    rig.drive(lambda: rig.threads() < threads, 'the end of the old thread')
    old = [action.header.stamp for action in rig.actions if action.status == DrivingAction.OK]
    assert len(old) == len({nanoseconds(stamp) for stamp in old})
    assert rig.state() == 'active'


def test_out_of_memory_once_is_survived_and_twice_is_the_end(start):
    rig = start('scripted:out_of_memory_at=2,out_of_memory_from=6')
    rig.wait_until_heard()
    lost = rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR), 'the end of memory')
    assert 'also with freed caches: no more memory' in lost.reason
    # Decisions 1, 3 (after 2 failed), 4 and 5 were good.
    assert rig.statuses().count(DrivingAction.OK) == 4
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
    assert rig.state() == 'inactive'
    drives_again(rig)


def test_loading_and_warming_up_are_bounded_in_time(start):
    rig = start('scripted:load=1,warm=60', autostart=False, load_limit=2.0)
    assert not rig.change('configure')
    assert 'not configured: the model was not loaded and warm within 2 s' in rig.words()
    assert rig.state() == 'unconfigured'
    assert rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
