"""Signals reach who waits for them, whichever thread they are delivered to."""

import os
import signal
import subprocess
import sys
import threading

from owled_ros.ros.shutdown import EndSignals
import pytest

# The main thread waits; the signal is delivered to another one, which is what the kernel may do
# with it. Python's own handler would then run when the main thread comes back: never.
PROGRAM = """
import signal, sys, threading, time
from owled_ros.ros.shutdown import EndSignals
signals = EndSignals()
def other():
    signal.pthread_kill(threading.get_ident(), signal.{name})
    time.sleep(30)
threading.Timer(0.2, other).start()
print(signals.wait())
sys.stdout.flush()
import os
os._exit(0)
"""


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    fd = signal.set_wakeup_fd(-1)
    yield EndSignals()
    signal.set_wakeup_fd(fd)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_to_another_thread_wakes_the_main_one(name):
    done = subprocess.run([sys.executable, '-c', PROGRAM.format(name=name)], timeout=25,
                          capture_output=True, text=True)
    assert done.stdout == f'{name}\n', done.stderr


def test_a_signal_that_comes_before_anybody_waits(signals):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert [signals.wait(), signals.wait()] == ['SIGTERM', 'SIGINT']


def test_the_end_without_a_signal(signals):
    threading.Timer(0.05, signals.end).start()
    assert signals.wait() == ''
