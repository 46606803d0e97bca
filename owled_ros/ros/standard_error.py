"""Keeps a standard error that nobody reads from stopping the process.

rclpy's logger writes to it in C, with the GIL held. When the pipe or terminal behind it is full (a
stopped `ros2 launch`, Ctrl-S, a pager) that write blocks, and with it every thread. Here it never
blocks: what does not fit is dropped.
"""

import contextlib
import fcntl
import io
import os
import select
import stat
import struct
import sys
import termios
import threading
import time

FD = 2
CHUNK = 1 << 16       # bytes
PATIENCE = 0.2        # s for the last lines to come out
LOOK_AGAIN = 0.002    # s

_relays = []  # the one of this process, if it needed one


@contextlib.contextmanager
def standard_error_that_never_blocks():
    """Have it while a function runs: to be used as its decorator."""
    if sys.stderr is None:
        with _nowhere() as sys.stderr:
            yield
        return
    if stat.S_ISREG(os.fstat(FD).st_mode):  # that does not fill up
        yield
        return
    before, text = os.dup(FD), sys.stderr
    os.dup2(_that_never_blocks(before), FD)
    sys.stderr = _text(text)
    try:
        yield
    finally:
        let_out()
        os.dup2(before, FD)
        sys.stderr = text


def _nowhere():
    """Return a stream in the place of a standard error that was closed when the process began."""
    try:
        os.fstat(FD)
    except OSError:
        # Else whatever is opened next would be what the logger, in C, writes to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), FD)
    return open(os.devnull, 'w')


def let_out():
    """Give what was written a moment to come out; to be called before the process ends."""
    for relay in _relays:
        relay.wait_until_empty(PATIENCE)


def _that_never_blocks(stream):
    """Return a file descriptor that leads where `stream` does."""
    # Not by a flag of `stream` itself: it would hold for every process that writes there.
    try:
        return os.open(f'/proc/self/fd/{stream}', os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # a socket, as under systemd, or opened by another user
        pass
    if os.isatty(stream):  # as rcutils would find out, were there no pipe before it
        os.environ.setdefault('RCUTILS_COLORIZED_OUTPUT', '1')
    _relays.append(Relay(stream))
    return _relays[-1].tells


def _text(like):
    """Return a text stream on the file descriptor that drops, too, instead of raising."""
    # An unbuffered file reports what did not fit; a buffered one would raise BlockingIOError.
    return io.TextIOWrapper(io.FileIO(FD, 'w', closefd=False), encoding=like.encoding,
                            errors=like.errors, line_buffering=True)


class Relay:
    """Carries what is written to a pipe on to a stream that may block, in a thread."""

    def __init__(self, stream):
        self._stream = stream
        self._hears, self.tells = os.pipe()
        os.set_blocking(self.tells, False)
        self._carrying = False
        threading.Thread(target=self._carry, name='standard error', daemon=True).start()

    def wait_until_empty(self, seconds):
        """Wait until all that was written has come out, but no longer than `seconds`."""
        end = time.monotonic() + seconds
        while self._is_busy() and time.monotonic() < end:
            time.sleep(LOOK_AGAIN)

    def _is_busy(self):
        # In this order: what is not in the pipe any more was being carried before it left.
        waiting, = struct.unpack('i', fcntl.ioctl(self._hears, termios.FIONREAD, bytes(4)))
        return waiting > 0 or self._carrying

    def _carry(self):
        while True:
            select.select([self._hears], [], [])
            self._carrying = True
            data = os.read(self._hears, CHUNK)
            with contextlib.suppress(OSError):  # whoever read it is gone
                while data:
                    data = data[os.write(self._stream, data):]
            self._carrying = False
