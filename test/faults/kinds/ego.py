"""Faults of the odometry."""

from dataclasses import replace
import math

from kinds.base import Fault
from owled_ros.driver.action import Status

MOST_BETWEEN = 60_000_000  # ns


class OdometryStops(Fault):
    """No odometry comes any more: the last one grows older than max_ego_age."""

    setups = ('raw', 'compressed', 'sim', 'embedded')
    expected = frozenset({Status.STALE_INPUT})

    def odometry(self, measurement, stream):
        self.touched(stream.last_odometry)
        return []

    def limit(self, stream):
        return self.settings.max_ego_age + super().limit(stream)


class OdometryStandsStill(OdometryStops):
    """It comes, with the same stamp again and again."""

    setups = ('raw', 'sim')

    def prepare(self):
        self.last = None

    def odometry(self, measurement, stream):
        self.last = self.last or measurement
        return [replace(self.last, altered=True)]


class OdometryIsLate(OdometryStops):
    """It comes, too late to go with any frame, or without a stamp."""

    setups = ('raw', 'sim')

    def prepare(self):
        self.behind = self.settings.max_ego_age + self.random.choice(
            (self.random.uniform(0.05, 1.5), self.random.uniform(1.5, 900), math.inf))

    def odometry(self, measurement, stream):
        self.touched(stream.last_odometry)
        stamp = 0 if self.behind == math.inf else measurement.stamp - int(self.behind * 1e9)
        return [replace(measurement, stamp=stamp, good=False, altered=True)]


class BadOdometry(Fault):
    """Odometry that cannot be true."""

    expected = frozenset({Status.INVALID_INPUT})

    def odometry(self, measurement, stream):
        return [self.spoilt(replace(measurement, good=False, altered=True))]

    def limit(self, stream):
        return super().limit(stream) + 0.02


class EgoNotANumber(BadOdometry):
    """Speed or yaw rate is NaN or infinite."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def prepare(self):
        self.field = self.random.choice(('speed', 'yaw_rate'))
        self.value = self.random.choice((math.nan, math.inf, -math.inf))

    def spoilt(self, measurement):
        return replace(measurement, **{self.field: self.value})


class EgoImpossible(BadOdometry):
    """Faster, or turning faster, than any vehicle."""

    def prepare(self):
        self.field, self.value = self.random.choice(
            (('speed', 150.0), ('speed', -1e30), ('yaw_rate', 9.0), ('yaw_rate', -1e9)))

    def spoilt(self, measurement):
        return replace(measurement, **{self.field: self.value})


class EgoJumps(BadOdometry):
    """A speed that the last one cannot have led to."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def prepare(self):
        self.by = self.random.choice((-1, 1)) * self.random.uniform(12, 60)

    def spoilt(self, measurement):
        return replace(measurement, speed=measurement.speed + self.by)


class EgoSpikes(BadOdometry):
    """Every second measurement leaps aside: speed, or yaw rate."""

    def prepare(self):
        self.field, least, most = self.random.choice(
            (('speed', 5.0, 60.0), ('yaw_rate', 3.0, 3.3)))
        self.by = self.random.choice((-1, 1)) * self.random.uniform(least, most)
        self.leaps = True
        self.last = None

    def odometry(self, measurement, stream):
        # After a pause of the machine it could be true.
        follows = self.last is not None and measurement.stamp - self.last < MOST_BETWEEN
        self.leaps, self.last = follows and not self.leaps, measurement.stamp
        return super().odometry(measurement, stream) if self.leaps else [measurement]

    def spoilt(self, measurement):
        return replace(measurement, **{self.field: getattr(measurement, self.field) + self.by})

    def limit(self, stream):
        return super().limit(stream) + 4 * stream.camera_period  # a frame must meet with one


class EgoFromTheFuture(BadOdometry):
    """Stamped ahead of the clock."""

    def prepare(self):
        self.ahead = self.settings.max_clock_skew + self.random.uniform(0.2, 900)

    def spoilt(self, measurement):
        return replace(measurement, stamp=measurement.stamp + int(self.ahead * 1e9))


class EgoOfAnotherFrame(BadOdometry):
    """The twist is in a frame that is not the vehicle's."""

    def prepare(self):
        self.frame_id = self.random.choice(('odom', '', 'map', 'base_link2'))

    def spoilt(self, measurement):
        return replace(measurement, frame=self.frame_id, speed=measurement.speed + 20)


class OdometryShuffled(Fault):
    """Measurements swap places with their neighbours: harmless."""

    def prepare(self):
        self.kept = None

    def odometry(self, measurement, stream):
        measurement = replace(measurement, altered=True)
        if self.kept is None:
            self.kept = measurement
            return []
        kept, self.kept = self.kept, None
        return [measurement, kept]
