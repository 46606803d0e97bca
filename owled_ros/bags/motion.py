"""The recorded motion of a vehicle: its state at a time, and the action that followed."""

from bisect import bisect_right

from owled_ros.driver.action import Action, EgoState, Limits, Maneuver

NANO = 1e-9

# Below this mean speed [m/s] a turn of the vehicle says nothing about the curve it follows.
MIN_CURVE_SPEED = 1.0

# Time [s] before a frame over which the measured acceleration is taken, as when driving.
ACCELERATION_SPAN = 0.3

STANDING = 0.3            # m/s below which a vehicle counts as standing
NOTICEABLE = 0.3          # m/s^2 of braking that is more than coasting or noise
STOP_WITHIN = 3.0         # s
EMERGENCY = Limits.deceleration  # m/s^2: braking beyond the ordinary limit


def twist_of(message):
    """Return (frame, Twist) of an Odometry, a TwistStamped or a TwistWithCovarianceStamped."""
    told = hasattr(message, 'child_frame_id')
    frame = message.child_frame_id if told else message.header.frame_id
    return frame, message.twist.twist if hasattr(message.twist, 'twist') else message.twist


def motion_of(message):
    """Return (frame, speed [m/s], yaw rate [rad/s]) of a message about the vehicle's motion.

    It is one that `twist_of` takes, or an autoware_vehicle_msgs/VelocityReport.
    """
    if hasattr(message, 'heading_rate'):
        return (message.header.frame_id, float(message.longitudinal_velocity),
                float(message.heading_rate))
    frame, twist = twist_of(message)
    return frame, float(twist.linear.x), float(twist.angular.z)


class Motion:
    """Speed and yaw rate over time, from odometry; times are header stamps [ns].

    Between two messages speed and yaw rate are linear. A stretch without messages for longer
    than `max_gap` [s] is a hole: nothing is told about times in it, nor about spans across it.
    """

    def __init__(self, max_gap=0.1):
        self.max_gap = max_gap
        self.clear()

    def clear(self):
        """Forget everything, as after a jump of the clock."""
        self._stamps = []
        self._speeds = []     # m/s
        self._yaw_rates = []  # rad/s
        self._paths = []      # m, integral of speed
        self._turns = []      # rad, integral of yaw rate
        self._stretches = []  # counts the holes before this message

    @property
    def last_stamp(self):
        """Stamp of the newest message [ns], or None."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp, speed, yaw_rate):
        """Append a message; one that is not newer than the last is ignored."""
        path = turn = stretch = 0
        if self._stamps:
            elapsed = (stamp - self._stamps[-1]) * NANO
            if elapsed <= 0:
                return
            path = self._paths[-1] + elapsed * (self._speeds[-1] + speed) / 2
            turn = self._turns[-1] + elapsed * (self._yaw_rates[-1] + yaw_rate) / 2
            stretch = self._stretches[-1] + (elapsed > self.max_gap)
        self._stamps.append(stamp)
        self._speeds.append(speed)
        self._yaw_rates.append(yaw_rate)
        self._paths.append(path)
        self._turns.append(turn)
        self._stretches.append(stretch)

    def covers(self, start, end):
        """Return whether the time from `start` to `end` [ns] was recorded without a hole."""
        if not self._stamps or start < self._stamps[0] or end > self._stamps[-1]:
            return False
        first = bisect_right(self._stamps, start) - 1
        last = bisect_right(self._stamps, end - 1)
        return self._stretches[first] == self._stretches[last]

    def ego_at(self, stamp):
        """Return the EgoState at `stamp` [ns], interpolated; None where nothing was recorded.

        The acceleration is the change of speed over the last 0.3 s, zero where they were not
        recorded.
        """
        if not self.covers(stamp, stamp):
            return None
        speed, yaw_rate, _, _ = self._at(stamp)
        before = stamp - round(ACCELERATION_SPAN / NANO)
        acceleration = 0.0
        if self.covers(before, stamp):
            acceleration = (speed - self._at(before)[0]) / ACCELERATION_SPAN
        return EgoState(speed, yaw_rate, acceleration)

    def action_after(self, stamp, horizon):
        """Return the Action driven in the `horizon` [s] after `stamp` [ns]; None if unrecorded.

        Its acceleration is the change of speed over the horizon. Its curvature is the change of
        heading (the integrated yaw rate) over the distance driven; a vehicle slower than 1 m/s
        on average has no curve to tell of, and gets 0, straight on. See `maneuver_of`.
        """
        end = stamp + round(horizon / NANO)
        if not self.covers(stamp, end):
            return None
        speed, _, path, turn = self._at(stamp)
        speed_after, _, path_after, turn_after = self._at(end)
        acceleration = (speed_after - speed) / horizon
        distance = path_after - path
        curvature = 0.0
        if abs(distance) >= MIN_CURVE_SPEED * horizon:
            curvature = (turn_after - turn) / distance
        return Action(acceleration, curvature, maneuver_of(speed, acceleration, horizon), 1.0)

    def _at(self, stamp):
        """Return speed, yaw rate, path and turn at a covered stamp."""
        here = bisect_right(self._stamps, stamp) - 1
        speed, yaw_rate = self._speeds[here], self._yaw_rates[here]
        path, turn = self._paths[here], self._turns[here]
        since = (stamp - self._stamps[here]) * NANO
        if since > 0:
            share = since * 1e9 / (self._stamps[here + 1] - self._stamps[here])
            speed_then = speed + share * (self._speeds[here + 1] - speed)
            yaw_rate_then = yaw_rate + share * (self._yaw_rates[here + 1] - yaw_rate)
            path += since * (speed + speed_then) / 2
            turn += since * (yaw_rate + yaw_rate_then) / 2
            speed, yaw_rate = speed_then, yaw_rate_then
        return speed, yaw_rate, path, turn


def maneuver_of(speed, acceleration, horizon):
    """Name a recorded motion by speed [m/s] and acceleration [m/s^2] over `horizon` [s].

    A recording knows what was done and not why, so nothing is ever FOLLOW, and no turn or lane
    change is claimed. In this order: braking beyond the ordinary limit (5 m/s^2) is
    EMERGENCY_STOP; standing, or braking that ends in standing within 3 s, is STOP; noticeable
    braking (0.3 m/s^2) is SLOW_DOWN; the rest is KEEP_LANE.
    """
    if acceleration <= -EMERGENCY:
        return Maneuver.EMERGENCY_STOP
    stands = abs(speed) < STANDING and abs(speed + acceleration * horizon) < STANDING
    brakes = acceleration < -NOTICEABLE
    if stands or (brakes and speed + acceleration * STOP_WITHIN < STANDING):
        return Maneuver.STOP
    return Maneuver.SLOW_DOWN if brakes else Maneuver.KEEP_LANE
