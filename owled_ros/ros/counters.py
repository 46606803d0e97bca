"""What a run counts and measures, for /diagnostics."""

from collections import Counter, deque
import threading

KEPT_LATENCIES = 256  # enough for a percentile, few enough to be recent


class Counters:
    """Counts by name, and the last latencies [s]; safe to share between threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = Counter()
        self._latencies = deque(maxlen=KEPT_LATENCIES)
        self._compute_times = deque(maxlen=KEPT_LATENCIES)

    def count(self, name):
        with self._lock:
            self._counts[name] += 1

    def measured(self, latency, compute_time):
        with self._lock:
            self._latencies.append(latency)
            self._compute_times.append(compute_time)

    def snapshot(self):
        """Return (counts: Counter, latencies: list, compute_times: list) as they are now."""
        with self._lock:
            return Counter(self._counts), list(self._latencies), list(self._compute_times)


def percentile(values, share):
    """Return the value below which `share` (0 to 1) of the values lie; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
