"""Ending a node on SIGINT or SIGTERM, within a bounded time."""

import faulthandler
import os
import queue
import signal
import sys

END = None


class EndSignals:
    """Waits for SIGINT or SIGTERM in the main thread, in place of rclpy's own handlers.

    rclpy's handlers shut the context down at once, and then nothing can be published any more.
    The main thread must be free to run these: spin the executor in another one.
    """

    def __init__(self):
        # SimpleQueue.put is reentrant, so a handler may call it at any point of the program.
        self._arrived = queue.SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._arrived.put(number))

    def wait(self):
        """Return the name of the signal that came, or '' when `end` was called."""
        number = self._arrived.get()
        return '' if number is END else signal.Signals(number).name

    def end(self):
        """Wake who waits: there is nothing left to do."""
        self._arrived.put(END)


def end_within(seconds):
    """Let the process end after `seconds` whatever its threads do, with their stacks on stderr."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def leave(status):
    """End the process now, without the interpreter's own clean-up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
