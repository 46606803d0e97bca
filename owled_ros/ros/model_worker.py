"""The one thread that owns the model, and the one place in which a frame waits for it."""

import threading
import time

from owled_ros.errors import UserError
from owled_ros.ros.refused import one_line


class Slot:
    """Room for one: whoever comes later replaces who waits. No queue can grow."""

    def __init__(self):
        self._changed = threading.Condition()
        self._waiting = None

    def put(self, item):
        """Leave `item`; return True when one that waited was dropped for it."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = item
            self._changed.notify()
            return dropped

    def take(self, timeout):
        """Return what waits, or None when nothing comes within `timeout` [s]."""
        with self._changed:
            if self._waiting is None and timeout > 0:
                self._changed.wait(timeout)
            item, self._waiting = self._waiting, None
            return item

    def clear(self):
        with self._changed:
            self._waiting = None


class AwakeTime:
    """A steady clock that counts no time in which the process was stopped, or the computer asleep.

    It has to be read often: between two readings it goes on by `longest` [s] at the most.
    """

    def __init__(self, longest=0.2):
        self._lock = threading.Lock()
        self._longest = longest
        self._total, self._last = 0.0, time.monotonic()

    def now(self):
        """Return the time [s]."""
        with self._lock:
            now = time.monotonic()
            self._total += min(now - self._last, self._longest)
            self._last = now
            return self._total


class ModelWorker:
    """Loads the model in a thread of its own, then works there until it is stopped.

    A hung model cannot be killed inside its process: a worker that does not stop in time is left
    behind (its thread is a daemon), and a new configuration starts a new one. Should it come to
    its senses later, it finds that it was asked to stop, and ends.
    """

    def __init__(self, load, stopping=None, poll=0.1):
        """Take `load()`, whose result's `step(timeout)` does one piece of work or waits for it.

        While its `loading` is true it may take as long as loading may; `close()` ends it.
        stopping: the threading.Event that `stop` sets, where the work wants to know of it.
        """
        self._load = load
        self._poll = poll
        self._stopping = stopping or threading.Event()
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)
        self._work = None
        self._error = None
        self._clock = AwakeTime()    # the watchdog reads it all the time
        self._step_began = None      # s of that clock
        self._loading = (False, 0.0)  # whether the work was seen to load, and since when
        self.ended = ''          # why it ended by itself, in one sentence
        self._thread.start()

    def wait_until_loaded(self, give_up, limit):
        """Return what was loaded; raise what loading raised.

        give_up: threading.Event of a node that is asked to end meanwhile; InterruptedError then.
        limit: UserError after so many seconds.
        """
        began = self._clock.now()
        while not self._loaded.wait(self._poll):
            if give_up.is_set():
                self._stopping.set()
                raise InterruptedError('the node was asked to end while the model was loading')
            if self._clock.now() - began > limit:
                self._stopping.set()
                raise UserError(f'the model was not loaded and warm within {limit:g} s; give it '
                                'longer (load_limit), or take a smaller one')
        if self._error is not None:
            raise self._error
        return self._work

    def busy(self):
        """Return for how long [s] the piece of work in hand has taken; 0 without one."""
        now, began = self._clock.now(), self._step_began
        return 0.0 if began is None else now - began

    def hangs(self, hang_limit, load_limit):
        """Return in one sentence that a piece of work takes too long (limits in s), or ''."""
        loading = self._work is not None and self._work.loading
        if loading != self._loading[0]:
            self._loading = (loading, self._clock.now())
        name, limit = ('load_limit', load_limit) if loading else ('hang_limit', hang_limit)
        # Loading is not held against the work that follows, nor what hung against the loading.
        busy = min(self.busy(), self._clock.now() - self._loading[1])
        if busy <= limit:
            return ''
        return (f'the model hangs: it has been at one piece of work for {busy:.1f} s; '
                f'{name} is {limit:g} s')

    def stop(self, timeout):
        """Ask the thread to end; return False when it is still at it after `timeout` [s]."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self):
        try:
            self._work = self._load()
        except BaseException as error:  # whatever a model does, the node must hear of it
            self._error = error
            return
        finally:
            self._load = None
            self._loaded.set()
        try:
            while not self._stopping.is_set():
                self._step_began = self._clock.now()
                self._work.step(self._poll)
        except BaseException as error:
            # A sentence only: the exception would keep what its frames hold in memory.
            self.ended = one_line(error)
        finally:
            self._step_began = None
            self._work.close()
