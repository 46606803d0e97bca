"""The one way out: nothing is published as OK that did not pass here."""

from dataclasses import dataclass
import math
from numbers import Real
import threading
import time

from owled_ros.driver.action import (
    Action,
    InvalidAction,
    LimitedAction,
    Maneuver,
    Status,
    top_speed,
)
from owled_ros.ros.refused import Refused

NO_FRAME = 0  # stamp of a report that no frame led to
TOLERANCE = 1e-6
LONGEST_REASON = 400  # characters: messages from elsewhere are quoted in it


@dataclass(frozen=True)
class ActionReport:
    """What one DrivingAction message says; times in nanoseconds of the node's clock."""

    sequence: int
    status: Status
    reason: str
    stamp: int
    published: int
    action: LimitedAction | None = None  # None unless the status is OK
    compute_time: float = 0.0            # s

    @property
    def latency(self):
        """Nanoseconds from the frame to here; 0 when there was no frame."""
        return self.published - self.stamp if self.stamp else 0


class ActionOutlet:
    """Checks, limits, numbers and publishes actions and refusals, one at a time.

    A *ticket* stands for the present: results of work that was begun before the node was
    deactivated, configured anew, or before the clock went back, come with an old one and are
    dropped.
    """

    def __init__(self, publish, clock, watchdog, counters):
        """Take `publish(ActionReport)` and the Timekeeper."""
        self._publish = publish
        self._clock = clock
        self._watchdog = watchdog
        self._counters = counters
        self._lock = threading.RLock()
        self._sequence = 0
        self._activation = 0
        self._active = False
        self._ended = False
        self._limiter = None
        self.settings = None

    def configure(self, limiter, settings):
        with self._lock:
            self._limiter = limiter
            self.settings = settings

    def change(self, settings):
        """Hold the next action to new settings."""
        with self._lock:
            self.settings = settings
            if self._limiter is not None:
                self._limiter.limits = settings.limits

    def open(self):
        """Let actions out from now on, unless the outlet was closed for good."""
        with self._lock:
            if self._ended:
                return
            self._activation += 1
            self._active = True
            self._limiter.restart()
            self._watchdog.start(time.monotonic())

    def close(self, reason, for_good=False):
        """Publish INACTIVE, and let nothing out after it."""
        with self._lock:
            self._active = False
            self._ended = for_good
            self._report(Status.INACTIVE, reason, NO_FRAME)

    def ticket(self):
        """Return what stands for the present; None while the outlet is closed."""
        with self._lock:
            return (self._activation, self._clock.jumps) if self._active else None

    def begin(self, ticket):
        """Note that the model begins to work; return False when `ticket` is no longer good."""
        with self._lock:
            good = self._good(ticket)
            if good:
                self._watchdog.model_begins(time.monotonic())
            return good

    def end(self, ticket):
        """Note that the model has finished, or failed."""
        with self._lock:
            if self._good(ticket):
                self._watchdog.model_ends()

    def model_restarts(self, begins):
        """Note that the model's process is started again, or that this is over."""
        self._watchdog.model_restarts(begins)

    def offer(self, action, frame, ego, command, compute_time):
        """Publish a decoded Action as OK, or why not; return its ActionReport or None.

        frame: the Frame that it was computed from; compute_time [s].
        """
        with self._lock:
            if not self._good(frame.ticket):
                self._counters.count('outdated')
                return None
            try:
                _check_kind(action)
                now = time.monotonic()
                limited = self._limiter.apply(action, ego, command, now, now - frame.arrived)
                _check_limits(limited, self._limiter, command)
                # Last, and by the very reading that the message carries: on a busy machine a
                # thread may be held up between any two lines.
                published = self._in_time(frame)
            except InvalidAction as error:
                self.refuse(Refused(Status.INVALID_OUTPUT, str(error)), frame.ticket,
                            frame.stamp, compute_time)
                return None
            except Refused as refusal:
                self.refuse(refusal, frame.ticket, frame.stamp, compute_time)
                return None
            report = self._report(Status.OK, '', frame.stamp, limited, compute_time, published)
            self._counters.measured(report.latency / 1e9, compute_time)
            self._watchdog.good_came(time.monotonic())
            return report

    def refuse(self, refusal, ticket, stamp=NO_FRAME, compute_time=0.0):
        """Publish a status that is not OK; what follows is limited from the measured motion."""
        with self._lock:
            if not self._good(ticket):
                return
            self._limiter.restart()
            self._watchdog.refused(time.monotonic(), refusal)
            self._report(refusal.status, refusal.reason, stamp, None, compute_time)

    def watch(self):
        """Publish what the watchdog has to say, if anything. Never waits for the model."""
        with self._lock:
            if not self._active:
                return
            silence = self._watchdog.check(time.monotonic(), self.settings.deadline)
            if silence is not None:
                self._limiter.restart()
                self._counters.count('watchdog')
                self._report(silence.status, silence.reason, NO_FRAME)

    def clamps(self):
        """Return how often each limit was applied."""
        with self._lock:
            return dict(self._limiter.clamps) if self._limiter is not None else {}

    def _good(self, ticket):
        return self._active and ticket == (self._activation, self._clock.jumps)

    def _in_time(self, frame):
        """Return the time [ns]; raise Refused when it is too late for the frame's action."""
        now = self._clock.now()
        late = (now - frame.stamp) / 1e9
        if frame.wall_clock:
            # A system clock that was set back a little must not make a late result look fresh.
            late = max(late, time.monotonic() - frame.arrived)
        if not self._good(frame.ticket):  # reading the time showed that it went back
            raise Refused(Status.DEADLINE_MISSED, 'the clock went back while the model worked')
        if late > self.settings.deadline:
            raise Refused(Status.DEADLINE_MISSED, f'the action was ready {late:.3f} s after its '
                          f'frame; the deadline is {self.settings.deadline:g} s')
        return now

    def _report(self, status, reason, stamp, action=None, compute_time=0.0, published=None):
        self._counters.count(status.name)
        self._sequence += 1
        published = self._clock.now() if published is None else published
        report = ActionReport(self._sequence, status, reason[:LONGEST_REASON], stamp, published,
                              action, compute_time)
        self._publish(report)
        return report


def _check_kind(action):
    """Raise InvalidAction unless a driver's answer is an Action made of numbers."""
    if not isinstance(action, Action):
        raise InvalidAction(f'the model answered a {type(action).__name__} instead of an action')
    for name in ('acceleration', 'curvature', 'confidence'):
        value = getattr(action, name)
        if not isinstance(value, Real):
            raise InvalidAction(f'the {name} that the model answered is {value!r}, no number')
    if not isinstance(action.maneuver, Maneuver):
        raise InvalidAction(f'the model answered the maneuver {action.maneuver!r}, which does '
                            'not exist')


def _check_limits(action, limiter, command):
    """Raise InvalidAction if the limiter let something through; the last look before it goes."""
    limits = limiter.limits
    numbers = (action.acceleration, action.curvature, action.steering_angle, action.target_speed,
               action.confidence)
    if not all(map(math.isfinite, numbers)):
        raise InvalidAction('a number of the limited action is not finite')
    emergency = action.maneuver == Maneuver.EMERGENCY_STOP
    floor = limits.emergency_deceleration if emergency else limits.deceleration
    for name, value, low, high in (
            ('acceleration', action.acceleration, -floor, limits.acceleration),
            ('steering angle', action.steering_angle, -limits.steering_angle,
             limits.steering_angle),
            ('angle of the curvature', math.atan(limiter.wheelbase * action.curvature),
             -limits.steering_angle, limits.steering_angle),
            ('target speed', action.target_speed, 0.0, top_speed(limits, command)),
            ('confidence', action.confidence, 0.0, 1.0)):
        if not low - TOLERANCE <= value <= high + TOLERANCE:
            raise InvalidAction(f'the {name} {value:g} is outside {low:g} to {high:g}')
