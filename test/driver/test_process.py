"""A driver in a process of its own: the same answers, and ends of every kind."""

import contextlib
from importlib.machinery import ModuleSpec
import math
import os
from pathlib import Path
import signal
import sys
import threading
import time
from types import ModuleType

import numpy as np
from owled_ros.driver.action import Command, EgoState, InvalidAction, Maneuver, Route
from owled_ros.driver.process import DriverProcess, ProcessEnded, Stopped
from owled_ros.errors import UserError
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'driving_node'))
from scripted_driver import ScriptedDriver  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from inherited_driver import Inherited  # noqa: E402, I100

EGO = EgoState(5.0, 0.1, -0.5)
LOAD = ScriptedDriver.load


@contextlib.contextmanager
def driver(script='scripted', stopping=None):
    """Start a driver in a process of its own; afterwards nothing of it is left."""
    files = set(os.listdir('/proc/self/fd'))
    driving = DriverProcess(LOAD, stopping or threading.Event(), script, device='cpu')
    process = driving._process
    try:
        yield driving
    finally:
        driving.close()
    assert process.poll() is not None
    assert not Path(f'/proc/{process.pid}').exists() or driving._process is None
    assert set(os.listdir('/proc/self/fd')) <= files


def picture(value, height=6, width=8):
    return np.full((height, width, 3), value, np.uint8)


def decide(driving, frame=None, command=None):
    return driving.decide(picture(7) if frame is None else frame, EGO, command or Command()).action


def test_the_same_answers_as_without_a_process():
    alone = ScriptedDriver.load('scripted')
    with driver() as driving:
        driving.warm_up()
        assert (driving.name, driving.hash, driving.measured_sparsity) == ('scripted', '0123abcd',
                                                                           0.5)
        # Larger and smaller pictures, and one that is not contiguous.
        for frame in (picture(1), picture(2, 200, 300), picture(3), picture(4)[::-1, ::2]):
            assert decide(driving, frame) == decide(alone, frame)
        stream = driving.explain(None)
        assert not stream.advance(2) and stream.text == 'word0 word1'
        decide(driving)  # between two slices
        assert stream.advance(2) and stream.text == 'word0 word1 word2'
        assert stream.complete and stream.confidence == 0.5
        command = Command(Route.LEFT, 8.0)
        assert decide(driving, command=command) == decide(alone, command=command)


def test_what_it_raises_is_raised_here():
    script = 'scripted:raise_at=1,nonsense_at=2,out_of_memory_at=3,nan_at=4'
    with driver(script) as driving:
        with pytest.raises(RuntimeError, match='wrong shape'):
            decide(driving)
        with pytest.raises(InvalidAction, match='no action'):
            decide(driving)
        with pytest.raises(MemoryError):
            decide(driving)
        assert math.isnan(decide(driving).acceleration)
        assert decide(driving).maneuver == Maneuver.KEEP_LANE


@pytest.mark.parametrize('script, error, words', [
    ('nowhere', UserError, 'the model nowhere is not there; name one that is'),
    ('scripted:broken_load=1', MemoryError, 'out of memory')])
def test_what_loading_raises_is_raised_too(script, error, words):
    files = len(os.listdir('/proc/self/fd'))
    with pytest.raises(error, match=words):
        DriverProcess(LOAD, threading.Event(), script)
    assert len(os.listdir('/proc/self/fd')) == files


def test_one_that_was_killed_can_be_started_again():
    with driver() as driving:
        decide(driving)
        stream = driving.explain(None)
        os.kill(driving._process.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(ProcessEnded, match='SIGKILL'):
                decide(driving)
        driving.restart()
        assert decide(driving).maneuver == Maneuver.KEEP_LANE
        with pytest.raises(RuntimeError):
            stream.advance(1)  # of a decision that went with the other process


def test_one_that_ends_by_itself():
    with driver('scripted:die_at=1') as driving:
        with pytest.raises(ProcessEnded, match='exit status 3'):
            decide(driving)


def test_a_hang_ends_by_a_kill_or_by_being_stopped():
    stopping = threading.Event()
    with driver('scripted:hang_at=1', stopping) as driving:
        driving.kill(driving.process_id() + 1)  # another one than this
        threading.Timer(0.3, lambda: driving.kill(driving.process_id())).start()
        with pytest.raises(ProcessEnded, match='SIGKILL'):
            decide(driving)
        driving.restart()
        threading.Timer(0.3, stopping.set).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            decide(driving)
        assert time.monotonic() - began < 5


def test_the_folder_that_it_is_started_from_gives_it_no_code(tmp_path, monkeypatch):
    for name in ('json', 'numpy', 'owled_ros'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("code from the folder was run")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['', *sys.path])
    with driver() as driving:
        assert decide(driving).maneuver == Maneuver.KEEP_LANE


def test_signals_for_the_whole_service_do_not_end_it():
    with driver() as driving:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(driving.process_id(), number)
        decide(driving)
    assert driving.process_id() is None


@contextlib.contextmanager
def inherited():
    driving = DriverProcess(Inherited.load, threading.Event(), 'scripted')
    try:
        yield driving
    finally:
        driving.close()


def test_the_class_that_is_named_is_the_one_that_drives():
    with inherited() as driving:
        assert driving.measured_sparsity == 0.25


def test_one_whose_child_outlives_it():
    with inherited() as driving:
        began = time.monotonic()
        with pytest.raises(ProcessEnded, match='exit status 4'):
            driving.decide(picture(1), EgoState(-1.0, 0.0, 0.0), Command())
        assert time.monotonic() - began < 5


def test_started_again_it_is_asked_for_the_same_model():
    with inherited() as driving:
        asked = driving._asked['how']
        assert (asked['expected_hash'], asked['backend']) == (driving.hash, 'script')


def test_functions_that_no_other_process_can_import(monkeypatch):
    def load(model, **how):
        return None

    monkeypatch.setattr(sys.modules['__main__'], 'load', load, raising=False)
    monkeypatch.setattr(load, '__module__', '__main__')  # but not under that name
    for function in (load, lambda model, **how: None):
        with pytest.raises(UserError, match='set model_process to false'):
            DriverProcess(function, threading.Event(), 'scripted')


def test_a_function_that_only_this_process_can_import(monkeypatch):
    module = ModuleType('made_up')
    exec('def load(model, **how):\n    pass\n', vars(module))
    module.__spec__ = ModuleSpec('made_up', None)
    monkeypatch.setitem(sys.modules, 'made_up', module)
    with pytest.raises(UserError, match="cannot import made_up:load: No module named 'made_up'"):
        DriverProcess(module.load, threading.Event(), 'scripted')


def test_a_python_without_anonymous_memory(monkeypatch):
    monkeypatch.delattr(os, 'memfd_create')
    with driver() as driving:
        for frame in (picture(1), picture(2, 200, 300)):
            assert decide(driving, frame).curvature == frame[0, 0, 0] / 10000
