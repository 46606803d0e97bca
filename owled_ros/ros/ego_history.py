"""The vehicle's recent motion, and what it was when a frame was taken."""

from bisect import bisect_left, insort
from dataclasses import dataclass
import threading

from owled_ros.bags.motion import ACCELERATION_SPAN
from owled_ros.driver.action import EgoState, Status
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import doubt

KEPT = 2.0               # s of odometry kept
MOST = 4000              # measurements kept, whatever their stamps
MAX_SPEED = 100.0        # m/s; no road vehicle that this drives is faster
MAX_YAW_RATE = 5.0       # rad/s
MAX_ACCELERATION = 20.0  # m/s^2, along or across; twice what tyres can do
MAX_YAW_ACCELERATION = 20.0  # rad/s^2
SPEED_NOISE = 1.0        # m/s of difference that is no jump however small the time between
YAW_RATE_NOISE = 0.5     # rad/s, likewise
RECOVERY = 0.5           # s after which a jump is taken for the new truth


@dataclass(frozen=True, order=True)
class Motion:
    """One measurement: `stamp` [ns], `speed` [m/s], `yaw_rate` [rad/s]."""

    stamp: int
    speed: float
    yaw_rate: float


class EgoHistory:
    """Keeps the last seconds of odometry in order of their stamps; safe to share."""

    def __init__(self, topics):
        """Take the Topics, to tell of the one on which nothing comes."""
        self._topics = topics
        self._lock = threading.Lock()
        self._motions = []
        self._fault = None

    def clear(self):
        with self._lock:
            self._motions = []
            self._fault = None

    def newest(self):
        """Return the stamp [ns] of the latest motion, or None."""
        with self._lock:
            return self._motions[-1].stamp if self._motions else None

    def refuse(self, reason, status=Status.INVALID_INPUT):
        """Note that the newest odometry is unusable: no frame is driven by until it mends."""
        with self._lock:
            self._fault = (status, reason)

    def add(self, motion, now, max_clock_skew):
        """Take a measurement, in order or a little late; return False when it is refused."""
        fault = _implausible(motion, now, max_clock_skew)
        with self._lock:
            newest = self._motions[-1] if self._motions else None
            if fault is None and newest is not None:
                if newest.stamp - motion.stamp > KEPT * 1e9:
                    return False
                fault = _jump(newest, motion)
            self._fault = fault and (Status.INVALID_INPUT, fault)
            if fault is not None:
                return False
            self._insert(motion)
            return True

    def at(self, stamp, max_age):
        """Return the EgoState at `stamp` [ns]; raise Refused when there is none to trust.

        Speed and yaw rate are interpolated between the measurements around the frame, or those
        of the nearest one; the acceleration is the change of speed just before the frame.
        """
        with self._lock:
            motions, fault = list(self._motions), self._fault
        if fault is not None:
            raise Refused(*fault)
        if not motions:
            raise self._topics.missing('odometry')
        index = bisect_left(motions, stamp, key=lambda motion: motion.stamp)
        around = [motion for motion in motions[max(index - 1, 0):index + 1]
                  if abs(motion.stamp - stamp) <= max_age * 1e9]
        if not around:
            gap = min(abs(motion.stamp - stamp) for motion in motions) / 1e9
            raise Refused(Status.STALE_INPUT, f'the nearest odometry is {gap:.3f} s away from '
                          f'the frame; max_ego_age is {max_age:g} s' + doubt(gap))
        speed, yaw_rate = _interpolate(around, stamp)
        return EgoState(speed, yaw_rate, _acceleration(motions, min(stamp, motions[-1].stamp)))

    def _insert(self, motion):
        index = bisect_left(self._motions, motion.stamp, key=lambda other: other.stamp)
        if index < len(self._motions) and self._motions[index].stamp == motion.stamp:
            self._motions[index] = motion  # sent again
            return
        insort(self._motions, motion)
        oldest = self._motions[-1].stamp - KEPT * 1e9
        del self._motions[:bisect_left(self._motions, oldest, key=lambda other: other.stamp)]
        del self._motions[:-MOST]


def _implausible(motion, now, max_clock_skew):
    """Why one measurement alone cannot be true, or None."""
    # Written so that NaN fails.
    if not (abs(motion.speed) <= MAX_SPEED and abs(motion.yaw_rate) <= MAX_YAW_RATE):
        return (f'the odometry cannot be true: speed {motion.speed:g} m/s, '
                f'yaw rate {motion.yaw_rate:g} rad/s')
    across = abs(motion.speed * motion.yaw_rate)
    if across > MAX_ACCELERATION:
        return (f'the odometry cannot be true: a speed of {motion.speed:g} m/s with a yaw rate of '
                f'{motion.yaw_rate:g} rad/s is {across:.0f} m/s^2 across')
    ahead = (motion.stamp - now) / 1e9
    if ahead > max_clock_skew:
        return (f'the odometry is stamped {ahead:.3f} s in the future; '
                f'max_clock_skew is {max_clock_skew:g} s' + doubt(ahead))
    return None


def _jump(newest, motion):
    """Why `motion` cannot follow (or precede) `newest`, or None."""
    gap = abs(motion.stamp - newest.stamp) / 1e9
    if gap >= RECOVERY:
        return None
    change = abs(motion.speed - newest.speed)
    if change > MAX_ACCELERATION * gap + SPEED_NOISE:
        return f'the speed of the odometry jumped by {change:.1f} m/s within {gap:.3f} s'
    change = abs(motion.yaw_rate - newest.yaw_rate)
    if change > MAX_YAW_ACCELERATION * gap + YAW_RATE_NOISE:
        return f'the yaw rate of the odometry jumped by {change:.1f} rad/s within {gap:.3f} s'
    return None


def _interpolate(around, stamp):
    first, last = around[0], around[-1]
    if first.stamp == last.stamp or stamp <= first.stamp:
        return first.speed, first.yaw_rate
    share = min((stamp - first.stamp) / (last.stamp - first.stamp), 1.0)
    return (first.speed + share * (last.speed - first.speed),
            first.yaw_rate + share * (last.yaw_rate - first.yaw_rate))


def _acceleration(motions, stamp):
    """Change of speed [m/s^2] over the span before `stamp`; 0 where it was not measured.

    The same as in the samples that models are calibrated and trained on.
    """
    before = stamp - round(ACCELERATION_SPAN * 1e9)
    if before < motions[0].stamp:
        return 0.0
    return (_speed(motions, stamp) - _speed(motions, before)) / ACCELERATION_SPAN


def _speed(motions, stamp):
    index = bisect_left(motions, stamp, key=lambda motion: motion.stamp)
    return _interpolate(motions[max(index - 1, 0):index + 1], stamp)[0]
