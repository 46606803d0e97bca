"""The model in a process of its own: killed, hanging, or dying again and again."""

import os
from pathlib import Path
import signal

from owled_ros.msg import DrivingAction
import pytest
from rig import PROGRAM


def alive(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def drives(rig, since=0):
    rig.drive(lambda: rig.heard(DrivingAction.OK, since), 'an action')


def test_it_is_killed_and_starts_again(start):
    rig = start('scripted:words=6', model_process=True)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK) and rig.explanations, 'action and explanation')
    assert rig.explanations[0].text == 'word0 word1 word2 word3 word4 word5'
    first = rig.model_process()
    os.kill(first, signal.SIGKILL)
    since = len(rig.actions)
    error = rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR, since), 'the end of it')
    assert 'has ended (SIGKILL)' in error.reason
    drives(rig, len(rig.actions))
    assert rig.state() == 'active' and rig.model_process() not in (first, None)
    # It ends with its configuration, and another configuration has another one.
    second = rig.model_process()
    assert rig.change('deactivate') and rig.change('cleanup') and not alive(second)
    assert rig.change('configure') and rig.change('activate')
    drives(rig, len(rig.actions))


def test_one_that_hangs_is_killed_and_starts_again(start):
    rig = start('scripted:hang_at=3', model_process=True, deadline=0.5, max_frame_age=0.5,
                hang_limit=1.5)
    rig.wait_until_heard()
    drives(rig)
    first = rig.model_process()
    error = rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR), 'the end of patience')
    assert 'SIGKILL' in error.reason and 'its process is killed' in rig.words()
    assert DrivingAction.DEADLINE_MISSED in rig.statuses()
    drives(rig, len(rig.actions))
    assert not alive(first) and rig.state() == 'active'


def test_one_that_dies_again_and_again_is_given_up(start):
    rig = start('scripted:die_at=1', model_process=True)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.INACTIVE), 'the end of patience')
    assert rig.state() == 'inactive' and not rig.change('activate')
    assert 'exit status 3' in rig.words() and rig.model_process() is None
    assert rig.change('cleanup') and rig.set('model', 'scripted').successful
    assert rig.change('configure') and rig.change('activate')
    drives(rig, len(rig.actions))


@pytest.mark.parametrize('number, ends, script', [
    (signal.SIGTERM, 0, 'scripted:hang_at=1'), (signal.SIGKILL, -signal.SIGKILL, 'scripted')])
def test_it_ends_with_the_node(start, number, ends, script):
    rig = start(script, program=PROGRAM, model_process=True, deadline=0.5, max_frame_age=0.5)
    rig.wait_until_heard()
    rig.drive(lambda: DrivingAction.DEADLINE_MISSED in rig.statuses()
              or rig.heard(DrivingAction.OK), 'a hang, or an action')
    child = rig.model_process()
    status, seconds = rig.signal(number)
    assert status == ends and seconds < 2.0
    assert 'the model failed' not in rig.words()
    rig.wait(lambda: not alive(child), 'the end of the model')


def test_a_load_that_takes_too_long_leaves_no_process(start):
    rig = start('scripted:load=60', autostart=False, model_process=True, load_limit=2.0)
    rig.state()
    assert not rig.change('configure')
    assert 'not loaded and warm within 2 s' in rig.words()
    rig.wait(lambda: rig.model_process() is None, 'the end of its process')


HASTY = {'deadline': 0.5, 'max_frame_age': 0.5}


def test_what_hung_is_not_held_against_the_loading(start):
    rig = start('scripted:hang_at=3,load=0.5', model_process=True, **HASTY, hang_limit=2.0,
                load_limit=2.2)
    rig.wait_until_heard()
    rig.drive(lambda: 'its process is killed' in rig.words(), 'the end of patience')
    drives(rig, len(rig.actions))
    assert rig.state() == 'active'


def test_a_hang_ends_while_the_node_is_inactive_too(start):
    rig = start('scripted:hang_at=3', model_process=True, **HASTY, hang_limit=1.5)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.DEADLINE_MISSED), 'a hang')
    first = rig.model_process()
    assert rig.change('deactivate')
    rig.wait(lambda: rig.model_process() not in (first, None), 'another process')
    rig.wait(lambda: rig.change('activate'), 'activation')
    drives(rig, len(rig.actions))


def test_explanations_that_end_the_process_are_given_up(start):
    rig = start('scripted:explains=1', model_process=True, **HASTY)
    rig.wait_until_heard()
    rig.drive(lambda: 'no more explanations: 4 in a row' in rig.words(), 'the end of patience')
    drives(rig, len(rig.actions))
    since = len(rig.actions)
    rig.drive(lambda: rig.statuses(since).count(DrivingAction.OK) >= 20, 'actions')
    assert set(rig.statuses(since)[:20]) == {DrivingAction.OK}
    assert rig.state() == 'active' and not rig.explanations


def test_a_process_that_cannot_be_killed_is_given_up(start, tmp_path):
    """As one that is held up in the kernel: to the node it looks like one that it may not kill."""
    program = tmp_path / 'program.py'
    program.write_text(
        f'import sys\nsys.path.insert(0, {str(PROGRAM.parent)!r})\n'
        'import scripted_driver\nfrom owled_ros.driver.process import DriverProcess\n'
        'DriverProcess.kill = lambda self, process_id: None\nscripted_driver.main()\n')
    rig = start('scripted:hang_at=3', program=program, model_process=True, **HASTY,
                hang_limit=1.0)
    rig.wait_until_heard()
    error = rig.drive(lambda: rig.heard(DrivingAction.MODEL_ERROR), 'the end of patience')
    assert 'hangs' in error.reason
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
