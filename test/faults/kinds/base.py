"""What a fault is, and what all kinds of them share."""

import math

from owled_ros.driver.action import Status
from stream import NoFault

SLACK = 0.1           # s for DDS, the executor and the listener
WATCHDOG = 0.05       # s; how late the node's watchdog may be
RECOVERY = 0.5        # s from the end of a fault to an action on a frame after it


class Fault:
    """A kind of fault; one instance is one fault, drawn from `random`."""

    setups = ('raw', 'compressed', 'sim')
    expected = frozenset()
    longest, shortest = 0.2, 0.05   # s that it lasts at least; longer until it is reported
    recovery = RECOVERY
    may_be_silent = False    # the node is not active meanwhile, or cannot speak
    burdens_machine = False  # the machine is late because of it

    def __init__(self, random, settings):
        self.random, self.settings = random, settings
        self.duration = random.uniform(self.shortest, self.longest)
        self.injected_at = math.nan
        self.reported = False
        self.problems = []
        self.prepare()

    @classmethod
    def name(cls):
        return ''.join('_' + letter.lower() if letter.isupper() else letter
                       for letter in cls.__name__).lstrip('_')

    def limit(self, stream):
        """Return the s from injection within which it must be reported: that of a next frame."""
        return stream.camera_period + SLACK

    def prepare(self):
        """Draw what else it needs."""

    def begin(self, bench, stream, witness):
        stream.fault = self

    def end(self, bench, stream, witness):
        stream.fault = NoFault()

    def touched(self, sent):
        """Note when the first altered message went out [s, monotonic]."""
        if math.isnan(self.injected_at):
            self.injected_at = sent

    def reported_by(self, heard):
        """Return whether an action says that there is this fault."""
        shot = heard.shot
        of_an_earlier_one = shot is not None and shot.altered and shot.sent < self.injected_at
        return heard.status in self.expected and not of_an_earlier_one

    def frame(self, shot, stream):
        return [shot]

    def odometry(self, measurement, stream):
        return [measurement]


class Silence(Fault):
    """Something stops; it is reported by the watchdog, counted from the last message."""

    expected = frozenset({Status.STALE_INPUT})

    def limit(self, stream):
        return by_watchdog(self.settings)


def by_watchdog(settings):
    """Return the s within which the watchdog must have spoken."""
    return settings.deadline + WATCHDOG + SLACK
