"""What a driver decides, in what it is bounded, and when it is valid.

Units and axes follow REP 103: metres, seconds, radians; x forward, y left, so a positive
curvature, yaw rate or steering angle turns left.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
import math


class Status(IntEnum):
    """Why an action may be used (only OK) or not; the values of DrivingAction.msg."""

    UNKNOWN = 0
    OK = 1
    NO_INPUT = 2
    STALE_INPUT = 3
    INVALID_INPUT = 4
    DEADLINE_MISSED = 5
    MODEL_ERROR = 6
    INVALID_OUTPUT = 7
    INACTIVE = 8


class Maneuver(IntEnum):
    """The discrete part of an action; the values of DrivingAction.msg."""

    NONE = 0
    KEEP_LANE = 1
    FOLLOW = 2
    SLOW_DOWN = 3
    STOP = 4
    EMERGENCY_STOP = 5
    CHANGE_LEFT = 6
    CHANGE_RIGHT = 7
    TURN_LEFT = 8
    TURN_RIGHT = 9


class Route(IntEnum):
    """Where the route wants to go; the values of DrivingCommand.msg."""

    FOLLOW = 0
    LEFT = 1
    RIGHT = 2
    STRAIGHT = 3
    CHANGE_LEFT = 4
    CHANGE_RIGHT = 5


class LimitsApplied(IntFlag):
    """Which limits changed the model's answer; the bits of DrivingAction.msg."""

    NONE = 0
    ACCELERATION = 1
    JERK = 2
    ANGLE = 4
    RATE = 8
    SPEED = 16


# Without a command the driver follows the road: these are always allowed, the others only when
# the route asks for them.
ALWAYS_ALLOWED = (
    Maneuver.KEEP_LANE,
    Maneuver.FOLLOW,
    Maneuver.SLOW_DOWN,
    Maneuver.STOP,
    Maneuver.EMERGENCY_STOP,
)
COMMANDED = {
    Route.LEFT: Maneuver.TURN_LEFT,
    Route.RIGHT: Maneuver.TURN_RIGHT,
    Route.CHANGE_LEFT: Maneuver.CHANGE_LEFT,
    Route.CHANGE_RIGHT: Maneuver.CHANGE_RIGHT,
}


@dataclass(frozen=True)
class EgoState:
    """The vehicle's own motion: speed [m/s], yaw rate [rad/s], acceleration [m/s^2]."""

    speed: float
    yaw_rate: float = 0.0
    acceleration: float = 0.0

    def is_finite(self):
        return all(map(math.isfinite, (self.speed, self.yaw_rate, self.acceleration)))

    def steering_angle(self, wheelbase):
        """Front wheel angle [rad] that gives the measured yaw rate; 0 below walking pace."""
        if abs(self.speed) < 1.0:
            return 0.0
        return math.atan(wheelbase * self.yaw_rate / self.speed)


@dataclass(frozen=True)
class Command:
    """What the route asks for; `speed_limit` [m/s] is NaN where it is not known."""

    route: Route = Route.FOLLOW
    speed_limit: float = math.nan

    def allowed_maneuvers(self):
        extra = COMMANDED.get(self.route)
        return ALWAYS_ALLOWED + ((extra,) if extra is not None else ())


@dataclass(frozen=True)
class Action:
    """A decision as the model gives it, before any limit.

    acceleration [m/s^2] forward positive; curvature [1/m] left positive; confidence is the
    product of the probabilities of the decoded tokens among the allowed ones, not calibrated.
    """

    acceleration: float
    curvature: float
    maneuver: Maneuver
    confidence: float = math.nan


@dataclass(frozen=True)
class Limits:
    """Bounds on what may be published. All positive; see config/driving.yaml."""

    acceleration: float = 2.5            # m/s^2, speeding up
    deceleration: float = 5.0            # m/s^2, braking
    emergency_deceleration: float = 8.0  # m/s^2, braking in an emergency stop
    jerk: float = 10.0                   # m/s^3
    emergency_jerk: float = 50.0         # m/s^3, towards braking in an emergency stop
    steering_angle: float = 0.5          # rad at the front wheels
    steering_rate: float = 0.6           # rad/s
    speed: float = 16.7                  # m/s

    def __post_init__(self):
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f'limit {name} is {value}; it must be a positive number')
        if self.emergency_deceleration < self.deceleration:
            raise ValueError(
                f'emergency_deceleration ({self.emergency_deceleration}) is below '
                f'deceleration ({self.deceleration}); it must be at least as large')


def top_speed(limits, command):
    """Return the speed [m/s] that no action may aim beyond: as configured, or as commanded."""
    commanded = command.speed_limit
    return limits.speed if math.isnan(commanded) else min(limits.speed, commanded)


@dataclass(frozen=True)
class LimitedAction:
    """An action that respects the limits, with the fields of DrivingAction.msg."""

    acceleration: float
    curvature: float
    steering_angle: float
    target_speed: float
    maneuver: Maneuver
    limits_applied: LimitsApplied
    confidence: float


class InvalidAction(ValueError):
    """The model's answer is not an action: a number is missing or not finite."""


class ActionLimiter:
    """Clamps decoded actions to `limits`; remembers the last one for jerk and steering rate.

    Call `restart()` after any status that is not OK: the next action is then bounded from the
    measured motion instead of from what was last asked for.
    """

    def __init__(self, limits, wheelbase, horizon):
        """Take the vehicle's wheelbase [m] and the time [s] that an action is for."""
        self.limits = limits
        self.wheelbase = wheelbase
        self.horizon = horizon
        self.clamps = {limit.name.lower(): 0 for limit in LimitsApplied if limit}
        self.restart()

    def restart(self):
        self._previous = None  # (time [s], acceleration, steering angle)

    def apply(self, action, ego, command, time, age):
        """Return the action within limits, for `ego` and `command` at `time` [s, steady].

        age [s]: `ego` was measured so long ago. Nobody knows what the vehicle was last asked for
        after a restart, so that jerk and steering rate then count from that measurement.

        Raises InvalidAction when a number is not finite or the maneuver is not allowed.
        """
        if not (math.isfinite(action.acceleration) and math.isfinite(action.curvature)):
            raise InvalidAction('the model answered a number that is not finite')
        if action.maneuver not in command.allowed_maneuvers():
            raise InvalidAction(f'the maneuver {action.maneuver.name} was not asked for')
        applied = LimitsApplied.NONE
        since, acceleration_before, angle_before = self._start(ego, time, age)
        fastest = top_speed(self.limits, command)
        acceleration, bits = self._acceleration(action, ego, fastest, acceleration_before, since)
        applied |= bits
        angle, bits = self._steering(action.curvature, angle_before, since)
        applied |= bits
        target_speed = max(0.0, ego.speed + acceleration * self.horizon)
        if target_speed > fastest:
            target_speed = fastest
            applied |= LimitsApplied.SPEED
        self._previous = (time, acceleration, angle)
        self._count(applied)
        return LimitedAction(
            acceleration=acceleration, curvature=math.tan(angle) / self.wheelbase,
            steering_angle=angle, target_speed=target_speed, maneuver=action.maneuver,
            limits_applied=applied, confidence=action.confidence)

    def _start(self, ego, time, age):
        """Time since, acceleration and angle from which jerk and rate are counted."""
        if self._previous is None:
            floor, ceiling = -self.limits.emergency_deceleration, self.limits.acceleration
            angle = ego.steering_angle(self.wheelbase)
            return (min(max(age, 0.0), self.horizon),
                    min(max(ego.acceleration, floor), ceiling),
                    _clamp(angle, self.limits.steering_angle))
        before, acceleration, angle = self._previous
        # A pause must not turn into a jump: never allow more change than one horizon gives.
        return min(max(time - before, 0.0), self.horizon), acceleration, angle

    def _acceleration(self, action, ego, fastest, before, since):
        limits, applied = self.limits, LimitsApplied.NONE
        emergency = action.maneuver == Maneuver.EMERGENCY_STOP
        floor = -(limits.emergency_deceleration if emergency else limits.deceleration)
        wanted = action.acceleration
        # Above the speed limit the least comfortable answer that is still allowed is to brake.
        ceiling_by_speed = max((fastest - ego.speed) / self.horizon, floor)
        if wanted > ceiling_by_speed:
            wanted, applied = ceiling_by_speed, applied | LimitsApplied.SPEED
        bounded = min(max(wanted, floor), limits.acceleration)
        if bounded != wanted:
            applied |= LimitsApplied.ACCELERATION
        down = (limits.emergency_jerk if emergency else limits.jerk) * since
        smooth = min(max(bounded, before - down), before + limits.jerk * since)
        if smooth != bounded:
            applied |= LimitsApplied.JERK
        # Coming back from an emergency stop the jerk limit must not hold the stronger braking
        # outside the ordinary limit.
        return min(max(smooth, floor), limits.acceleration), applied

    def _steering(self, curvature, before, since):
        limits, applied = self.limits, LimitsApplied.NONE
        wanted = math.atan(self.wheelbase * curvature)
        bounded = _clamp(wanted, limits.steering_angle)
        if bounded != wanted:
            applied |= LimitsApplied.ANGLE
        step = limits.steering_rate * since
        smooth = min(max(bounded, before - step), before + step)
        if smooth != bounded:
            applied |= LimitsApplied.RATE
        # An angle from before the limit was lowered must not be held outside of it by the rate.
        return _clamp(smooth, limits.steering_angle), applied

    def _count(self, applied):
        for limit in LimitsApplied:
            if limit and limit in applied:
                self.clamps[limit.name.lower()] += 1


def _clamp(value, bound):
    return min(max(value, -bound), bound)
