"""Ending a node on SIGINT or SIGTERM, within a bounded time."""

import faulthandler
import os
import signal
import socket
import sys

from owled_ros.ros.standard_error import let_out

END = 0  # no signal has this number


class EndSignals:
    """Waits for SIGINT or SIGTERM in the main thread, in place of rclpy's own handlers.

    rclpy's handlers shut the context down at once, and then nothing can be published any more.
    The main thread must be free to wait for these: spin the executor in another one.
    """

    def __init__(self):
        # A handler in Python runs when the main thread gets to it. One that is just about to
        # block on a lock, or was not the one that the kernel chose for the signal, never does.
        # So the number is written by the handler in C, and the main thread reads it.
        self._hears, self._tells = socket.socketpair()
        self._tells.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._tells.fileno(), warn_on_full_buffer=False)

    def wait(self):
        """Return the name of the signal that came, or '' when `end` was called."""
        while True:
            number = self._hears.recv(1)[0]
            if number in (END, signal.SIGINT, signal.SIGTERM):
                return '' if number == END else signal.Signals(number).name

    def end(self):
        """Wake who waits: there is nothing left to do."""
        self._tells.send(bytes([END]))


def end_within(seconds):
    """Let the process end after `seconds` whatever its threads do, with their stacks on stderr."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def leave(status):
    """End the process now, without the interpreter's own clean-up."""
    sys.stdout.flush()
    sys.stderr.flush()
    let_out()
    os._exit(status)
