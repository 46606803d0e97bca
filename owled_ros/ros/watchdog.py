"""Notices that nothing good has come out, and says why, on a clock that cannot be stopped.

Times here are seconds of a steady clock: it runs on while the model hangs, while `/clock` stands
still, and when the system's time is set.
"""

import threading

from owled_ros.driver.action import Status
from owled_ros.ros.refused import Refused


class Watchdog:
    """Told of what happens by several threads; asked again and again by a timer."""

    def __init__(self, topics):
        """Take the Topics, to tell of the one on which nothing comes."""
        self._topics = topics
        self._lock = threading.Lock()
        self._restarting = False
        self.start(0.0)

    def start(self, now):
        """Begin to wait for a good action: the node was activated."""
        with self._lock:
            self._silent_since = now
        self.forget()

    def forget(self):
        """Know of no input and of no work any more: the clock went back.

        The silence goes on: a clock that goes back again and again must not silence this too.
        """
        with self._lock:
            self._frame = None
            self._odometry = False
            self._refusal = None  # (time, Refused)
            self._busy_since = None

    def frame_came(self, now):
        with self._lock:
            self._frame = now

    def odometry_came(self):
        with self._lock:
            self._odometry = True

    def refused(self, now, refusal):
        """Note that a frame or result was refused."""
        with self._lock:
            self._refusal = (now, refusal)

    def model_begins(self, now):
        with self._lock:
            self._busy_since = now

    def model_ends(self):
        with self._lock:
            self._busy_since = None

    def model_restarts(self, begins):
        with self._lock:
            self._restarting = begins

    def good_came(self, now):
        with self._lock:
            self._silent_since = now
            self._refusal = None

    def check(self, now, deadline):
        """Return a Refused to publish when nothing good came for `deadline` [s], else None.

        Speaks once per deadline.
        """
        with self._lock:
            if now - self._silent_since < deadline:
                return None
            self._silent_since = now
            return self._verdict(now, deadline)

    def _verdict(self, now, deadline):
        if self._restarting:
            return Refused(Status.MODEL_ERROR, 'the process of the model is being started again')
        if self._busy_since is not None and now - self._busy_since >= deadline:
            return Refused(Status.DEADLINE_MISSED, 'the model has been at one frame for '
                           f'{now - self._busy_since:.2f} s; the deadline is {deadline:g} s')
        if self._refusal is not None and now - self._refusal[0] <= deadline:
            return self._refusal[1]
        if self._frame is None:
            return self._topics.missing('frame')
        silence = now - self._frame
        if silence >= deadline:
            return Refused(Status.STALE_INPUT, f'the last frame came {silence:.2f} s ago'
                           + self._topics.where('frame'))
        if not self._odometry:
            return self._topics.missing('odometry')
        return Refused(Status.DEADLINE_MISSED,
                       f'no action came out within the deadline of {deadline:g} s')
