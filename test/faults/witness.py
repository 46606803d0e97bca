"""Checks every action that the node publishes against everything that it was fed.

None of these checks depends on how fast the machine is: an action that is wrong is wrong however
late it comes. What is measured in time is the campaign's concern.
"""

from collections import deque
from dataclasses import dataclass
import math
import threading
import time

from marks import confidence, curvature
from owled_ros.driver.action import LimitsApplied, Maneuver, Status
from owled_ros.ros.messages import nanoseconds
from owled_ros.ros.outlet import NO_FRAME

KEPT_FRAMES = 3000
SPEED_TOLERANCE = 0.1   # m/s between the odometry and the speed that an action was made with
ROUNDING = 1e-3         # float32, and what a published number may be off by
CALM = 1.0              # m/s^2; twice what the stream's own speed changes by
READING = 1e6           # ns between two readings of one clock in two places


@dataclass(frozen=True)
class Heard:
    """A DrivingAction and when it arrived [s, monotonic]."""

    message: object
    at: float
    shot: object  # the frame that it names, or None

    @property
    def status(self):
        return Status(self.message.status)


class Ledger:
    """What went out: frames by stamp, the last odometry and the last command."""

    def __init__(self):
        self.lock = threading.Lock()
        self._frames = {}
        self._numbers = {}  # of the good frames with a stamp: several, when the clock stands
        self._measurements = deque(maxlen=400)
        self._turns = deque(maxlen=400)  # (ns, epoch) of commands to turn
        self.withdrawn = math.inf  # ns, when the last command was replaced by none
        self.slow_until = 0  # ns, when the last commanded speed limit is surely forgotten

    def frame(self, shot):
        if shot.stamp == NO_FRAME:
            return  # what is said of it looks like what is said of no frame at all
        with self.lock:
            known = self._frames.get(shot.stamp)
            if known is None or known.epoch != shot.epoch:  # a copy does not spoil the first
                self._frames[shot.stamp] = shot
                self._numbers[shot.stamp] = set()
            if shot.good:
                self._numbers[shot.stamp].add(shot.number)
            if len(self._frames) > KEPT_FRAMES:
                for stamp in list(self._frames)[:KEPT_FRAMES // 2]:
                    del self._frames[stamp], self._numbers[stamp]

    def turn(self, stamp, epoch):
        with self.lock:
            self._turns.append((stamp, epoch))

    def turn_asked(self, now, epoch, ahead, behind):
        """Return whether a command to turn was at `now` [ns] no more than [s] ahead or behind."""
        with self.lock:
            return any(of == epoch and -ahead * 1e9 <= now - stamp <= behind * 1e9
                       for stamp, of in self._turns)

    def odometry(self, measurement):
        with self.lock:
            self._measurements.append(measurement)

    def shot(self, stamp):
        with self.lock:
            return self._frames.get(stamp)

    def numbers(self, shot):
        """Numbers of the good frames that bear the stamp of this one, the first that did."""
        with self.lock:
            return {shot.number, *self._numbers.get(shot.stamp, ())}

    def motions(self, shot, max_age):
        """Good odometry within `max_age` [s] of a frame."""
        with self.lock:
            return [m for m in self._measurements if m.good and m.epoch == shot.epoch
                    and abs(m.stamp - shot.stamp) <= max_age * 1e9]


class Witness:
    """Hears every action; keeps the last ones, and what was wrong with any."""

    def __init__(self, ledger, settings, *, sim, numbered):
        """Take the node's Settings, and whether the driver says which frame it saw: `numbered`."""
        self.ledger, self.settings, self.sim, self.numbered = ledger, settings, sim, numbered
        self.changed = threading.Condition()
        self.heard = deque(maxlen=2000)
        self.wrong = []
        self.wrong_total = 0
        self.counts = dict.fromkeys(Status, 0)
        self.tightened = None  # (s: frames sent later, m/s^2: accelerate no more than this)
        self._sequence = None
        self._before = None    # the last action, if it was OK
        self._answered = None  # the frame of the last action that was OK
        self._repeats = (None, 0)

    def append(self, message):
        """Take an action; the name is that of the list in whose place this stands."""
        heard = Heard(message, time.monotonic(),
                      self.ledger.shot(nanoseconds(message.header.stamp)))
        faults = list(self._faults(heard))
        with self.changed:
            self.counts[heard.status] += 1
            self.heard.append(heard)
            self.wrong += faults
            self.wrong_total += len(faults)
            self.changed.notify_all()

    def wait(self, wanted, timeout, since=-math.inf):
        """Return the first Heard after `since` [s] with wanted(heard), or None in time."""
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                for heard in self.heard:
                    if heard.at >= since and wanted(heard):
                        return heard
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self.changed.wait(left)

    def forget(self):
        """Expect another process, which counts from one."""
        with self.changed:
            self._sequence = self._before = self._answered = None

    def longest_silence(self, begin, end):
        """Return the longest time [s] without an action between two times [s, monotonic]."""
        with self.changed:
            times = [begin, *(heard.at for heard in self.heard if begin <= heard.at <= end), end]
        return max(later - earlier for earlier, later in zip(times, times[1:]))

    def take_wrong(self):
        with self.changed:
            wrong, self.wrong = self.wrong, []
            return wrong

    # What can be wrong -----------------------------------------------------------------------

    def _faults(self, heard):
        message = heard.message
        if self._sequence is not None and message.sequence != self._sequence + 1:
            yield f'sequence {message.sequence} follows {self._sequence}'
        self._sequence = message.sequence
        if heard.status is not Status.OK:
            self._before = None
            yield from _must_be_blank(heard)
            return
        if heard.shot is None or not heard.shot.good:
            yield (f'OK from bad input: frame {heard.shot and heard.shot.number}, '
                   f'order {heard.shot and heard.shot.order.name}')
        if heard.shot is not None:
            yield from self._stale(heard)
            yield from self._not_of_this_input(heard)
            yield from self._repeated(heard)
        yield from self._out_of_limits(heard)
        self._before = heard

    def _stale(self, heard):
        message = heard.message
        late = (nanoseconds(message.published) - nanoseconds(message.header.stamp)) / 1e9
        if late > self.settings.deadline + READING / 1e9:
            yield f'OK {late:.3f} s after its frame'
        # As far as a stamp may be ahead, and as the clock may go back unnoticed.
        if late < -2 * self.settings.max_clock_skew - READING / 1e9:
            yield f'OK {-late:.3f} s before its frame'
        if not self.sim and nanoseconds(message.published) > time.time_ns() + READING:
            yield 'published in the future'
        if nanoseconds(message.valid_for) != round(self.settings.valid_for * 1e9):
            yield f'valid for {nanoseconds(message.valid_for)} ns'

    def _not_of_this_input(self, heard):
        """Check that speed and number in an action are those of the frame that it names."""
        message, settings = heard.message, self.settings
        motions = self.ledger.motions(heard.shot, settings.max_ego_age + READING / 1e9)
        speeds = [motion.speed for motion in motions]
        speed = message.target_speed - message.acceleration * settings.horizon
        if not speeds:
            yield 'OK without odometry near its frame'
        elif self._slowed(message):
            pass  # the target is the commanded speed
        elif not min(speeds) - SPEED_TOLERANCE <= speed <= max(speeds) + SPEED_TOLERANCE and (
                message.target_speed > 0 or speed < min(speeds)):  # it stands before the horizon
            yield f'OK with the speed {speed:.2f} m/s; the odometry said {min(speeds):.2f}'
        clamped = LimitsApplied.RATE | LimitsApplied.ANGLE
        if self.numbered and not message.limits_applied & clamped:
            # Of several with one stamp any may be the one that reached the node.
            expected = sorted({curvature(n) for n in self.ledger.numbers(heard.shot)})
            if not any(math.isclose(message.curvature, e, abs_tol=1e-5) for e in expected):
                yield f'the action is of another frame: {message.curvature:g}, not {expected}'
        turning = [confidence(motion.yaw_rate) for motion in motions]
        if self.numbered and turning and not (
                min(turning) - 1e-5 <= message.confidence <= max(turning) + 1e-5):
            yield f'OK with a yaw rate that no odometry said ({message.confidence:g})'

    def _slowed(self, message):
        return message.limits_applied & LimitsApplied.SPEED and \
            nanoseconds(message.published) <= self.ledger.slow_until

    def _repeated(self, heard):
        last, self._answered = self._answered, heard.shot
        if last is not None and last.epoch == heard.shot.epoch and last.stamp >= heard.shot.stamp:
            yield (f'frame {heard.shot.number} was answered twice' if last is heard.shot else
                   f'frame {heard.shot.number} was answered after the later {last.number}')
        picture, times = self._repeats
        times = times + 1 if picture == heard.shot.picture else 1
        self._repeats = heard.shot.picture, times
        if times > self.settings.max_frozen_frames:
            yield f'the same picture was answered {times} times'

    def _out_of_limits(self, heard):
        message, limits = heard.message, self.settings.limits
        numbers = {name: getattr(message, name) for name in (
            'acceleration', 'curvature', 'steering_angle', 'target_speed', 'confidence')}
        if not all(map(math.isfinite, numbers.values())):
            yield f'not finite: {numbers}'
            return
        emergency = message.maneuver == Maneuver.EMERGENCY_STOP
        floor = limits.emergency_deceleration if emergency else limits.deceleration
        for name, low, high in (
                ('acceleration', -floor, limits.acceleration),
                ('steering_angle', -limits.steering_angle, limits.steering_angle),
                ('target_speed', 0.0, limits.speed), ('confidence', 0.0, 1.0)):
            if not low - ROUNDING <= numbers[name] <= high + ROUNDING:
                yield f'{name} {numbers[name]:g} is outside {low:g} to {high:g}'
        angle = math.atan(self.settings.wheelbase * message.curvature)
        if abs(angle - message.steering_angle) > ROUNDING:
            yield f'curvature {message.curvature:g} and angle {message.steering_angle:g} differ'
        yield from self._too_sudden(heard, emergency)
        yield from self._not_asked_for(heard)

    def _too_sudden(self, heard, emergency):
        """Jerk and steering rate, over the longest time that can lie between two actions."""
        if self._before is None or self._before.shot is None:
            yield from self._too_sudden_for_a_first(heard, emergency)
            return
        limits, before = self.settings.limits, self._before
        # It was decided after its frame had left us, and this one before it reached us.
        since = min(heard.at - before.shot.sent, self.settings.horizon)
        change = heard.message.acceleration - before.message.acceleration
        down = limits.emergency_jerk if emergency else limits.jerk
        # Back from an emergency stop the ordinary floor cuts off what the jerk would allow.
        released = before.message.acceleration < -limits.deceleration and not emergency
        # A limit that was lowered meanwhile holds at once.
        if change < -down * since - ROUNDING and not self.tightened or (
                change > limits.jerk * since + ROUNDING and not released):
            yield f'the acceleration changed by {change:.2f} m/s^2 within {since:.3f} s'
        turn = abs(heard.message.steering_angle - before.message.steering_angle)
        if turn > limits.steering_rate * since + ROUNDING:
            yield f'the steering angle changed by {turn:.3f} rad within {since:.3f} s'

    def _too_sudden_for_a_first(self, heard, emergency):
        """Check the same against the measured motion, which the stream keeps straight and calm."""
        if heard.shot is None or not self.numbered:
            return
        limits, message, since = self.settings.limits, heard.message, heard.at - heard.shot.sent
        angle = limits.steering_rate * since + ROUNDING
        if abs(message.steering_angle) > angle:
            yield (f'the first steering angle {message.steering_angle:.3f} rad, '
                   f'{since:.3f} s after its frame')
        down = limits.emergency_jerk if emergency else limits.jerk
        low, high = -CALM - down * since, CALM + limits.jerk * since
        if not low <= message.acceleration <= high:
            yield (f'the first acceleration {message.acceleration:.2f} m/s^2, '
                   f'{since:.3f} s after its frame')

    def _not_asked_for(self, heard):
        message = heard.message
        settings = self.settings
        asked = heard.shot is not None and self.ledger.turn_asked(
            nanoseconds(message.published), heard.shot.epoch, settings.max_clock_skew,
            settings.max_command_age + settings.deadline)
        if message.maneuver >= Maneuver.CHANGE_LEFT and not asked or message.maneuver == 0:
            yield f'the maneuver {message.maneuver} was not asked for'
        if heard.shot is not None and message.target_speed > heard.shot.slow + ROUNDING \
                and nanoseconds(message.published) < self.ledger.withdrawn:
            yield (f'the target {message.target_speed:g} m/s after {heard.shot.slow:g} m/s '
                   'were commanded')
        if self.tightened is not None and heard.shot is not None:
            since, most = self.tightened
            if heard.shot.sent > since and message.acceleration > most + ROUNDING:
                yield f'acceleration {message.acceleration:g} after the limit was set to {most:g}'


def _must_be_blank(heard):
    """Check that a status that is not OK orders nothing, and says why."""
    message = heard.message
    numbers = (message.acceleration, message.curvature, message.steering_angle,
               message.target_speed, message.confidence)
    if not all(map(math.isnan, numbers)) or message.maneuver != Maneuver.NONE \
            or nanoseconds(message.valid_for):
        yield f'{heard.status.name} with numbers in it'
    if heard.status is Status.UNKNOWN or not message.reason:
        yield f'{heard.status.name} without a reason'
