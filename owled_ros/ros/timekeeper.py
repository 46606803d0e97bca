"""The node's clock, with an eye on jumps.

Ages are differences of ROS time, which may be replayed (`/clock`) and may start again; a system
clock can be set back too, and of that rclpy tells nobody. So every reading is compared with the
one before.
"""

import threading

ANOTHER_CLOCK = 3600.0  # s between two clocks that are not of the same kind


def doubt(seconds):
    """Return what to add to words of a stamp that is so far away from where it should be."""
    return '; is use_sim_time right?' if abs(seconds) > ANOTHER_CLOCK else ''


class Timekeeper:
    """Reads the time and counts how often it was set back by more than `tolerance` [s]."""

    def __init__(self, read, tolerance):
        """Take `read() -> int`, the time in nanoseconds."""
        self._read = read
        self._lock = threading.Lock()
        self._latest = None
        self.tolerance = tolerance
        self.jumps = 0

    def now(self):
        """Return the time [ns]."""
        # Reading under the lock: readings of two threads cannot overtake one another, so a
        # smaller one is a jump and never a race.
        with self._lock:
            now = self._read()
            if self._latest is not None and now < self._latest - self.tolerance * 1e9:
                self.jumps += 1
            self._latest = now
            return now
