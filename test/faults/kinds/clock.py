"""Faults of /clock, for a node that uses simulated time."""

from dataclasses import replace
import time

from kinds.base import by_watchdog, Fault
from marks import Order
from owled_ros.driver.action import Status
from stream import NoFault

HEARD = 0.05  # s; /clock comes every 0.01 s, and one message may be lost


class ClockStops(Fault):
    """/clock says the same again and again, and so do the stamps."""

    setups = ('sim',)
    expected = frozenset({Status.INVALID_INPUT, Status.STALE_INPUT, Status.DEADLINE_MISSED})

    def begin(self, bench, stream, witness):
        self.touched(time.monotonic())
        stream.rate = 0.0
        super().begin(bench, stream, witness)

    def end(self, bench, stream, witness):
        stream.rate = 1.0
        super().end(bench, stream, witness)

    def frame(self, shot, stream):
        return [replace(shot, altered=True)]

    def limit(self, stream):
        return by_watchdog(self.settings)


class ClockAndCameraStop(ClockStops):
    """/clock stands still and no frame comes: only a steady clock can notice."""

    expected = frozenset({Status.STALE_INPUT})

    def frame(self, shot, stream):
        return []


class ClockJumpsBack(Fault):
    """The bag starts again: clock and stamps together; nothing from before may be used."""

    setups = ('sim',)

    def prepare(self):
        self.seconds = -self.random.choice(
            (self.random.uniform(0.2, 2), self.random.uniform(2, 60)))

    def begin(self, bench, stream, witness):
        stream.do(lambda: stream.jump(self.seconds))
        self.touched(time.monotonic())
        super().begin(bench, stream, witness)


class ClockJumpsForward(ClockJumpsBack):
    """Clock and stamps leap ahead."""

    def prepare(self):
        self.seconds = self.random.uniform(0.2, 60)


class ClockJumpsUnderTheModel(ClockJumpsBack):
    """The clock goes back while the model is at a frame: what it answers is of another time."""

    shortest, longest = 0.2, 0.3

    def prepare(self):
        super().prepare()
        self.passed = None  # measurements of the motion since the first frame

    def begin(self, bench, stream, witness):
        self.touched(time.monotonic())
        Fault.begin(self, bench, stream, witness)

    def frame(self, shot, stream):
        self.passed = self.passed or 0
        return [replace(shot, order=Order.TAKE_TIME, altered=True)]

    def odometry(self, measurement, stream):
        if self.passed is None:
            return [measurement]
        self.passed += 1
        if self.passed != 3:  # 0.04 to 0.06 s after the frame
            return [measurement]
        stream.jump(self.seconds)
        return [replace(measurement, stamp=stream.now(), epoch=stream.epoch)]


class ClockFlaps(Fault):
    """The clock goes back again and again, and the stamps with it."""

    setups = ('sim',)
    shortest, longest = 0.2, 0.5

    def prepare(self):
        self.every = self.random.choice((1, 3, 8))  # measurements of the motion
        self.seconds = -self.random.uniform(0.1, 2.0)
        self.count = 0

    def odometry(self, measurement, stream):
        self.touched(time.monotonic())
        self.count += 1
        if self.count % self.every:
            return [measurement]
        stream.jump(self.seconds)
        return [replace(measurement, stamp=stream.now(), epoch=stream.epoch, altered=True)]


class ClockFlapsAndCameraStops(ClockFlaps):
    """The same without frames: each jump makes the node forget, and none may silence it."""

    expected = frozenset({Status.STALE_INPUT, Status.NO_INPUT})

    def frame(self, shot, stream):
        return []

    def limit(self, stream):
        return by_watchdog(self.settings)


class SensorsLeftBehind(Fault):
    """The clock leaps ahead and the sensors' stamps do not."""

    setups = ('sim',)
    expected = frozenset({Status.STALE_INPUT})

    def prepare(self):
        self.seconds = self.random.uniform(self.settings.max_frame_age + 0.05, 60)

    def begin(self, bench, stream, witness):
        def leap():
            stream.jump(self.seconds)
            stream.sensors_behind = int(self.seconds * 1e9)
            stream.fault = self
        self.touched(time.monotonic())
        stream.do(leap)

    def frame(self, shot, stream):
        # As soon as the node must have heard of the leap.
        heard = time.monotonic() > self.injected_at + HEARD
        return [replace(shot, good=not heard, altered=True)]

    def end(self, bench, stream, witness):
        def catch_up():
            stream.sensors_behind = 0
            stream.fault = NoFault()
        stream.do(catch_up)
