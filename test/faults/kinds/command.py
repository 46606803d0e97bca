"""Commands that must not be followed, and ones that must."""

from dataclasses import replace
import math
import time

from kinds.base import Fault
from marks import Order
from owled_ros.driver.action import LimitsApplied, Maneuver, Route, Status
from stream import NoFault


def withdraw(bench, stream):
    """End the fault, and tell the node to follow the road as fast as it likes, in one step."""
    def follow():
        stream.fault = NoFault()
        stream.ledger.withdrawn = stream.now()
        bench.publish_command(int(Route.FOLLOW), stream.now(), math.nan)
    stream.do(follow)


class SpeedIsCommanded(Fault):
    """A speed limit below the speed: kept from the frame on after which it was heard."""

    setups = ('raw',)
    expected = frozenset({Status.OK})
    shortest, longest = 0.15, 0.3

    def prepare(self):
        self.speed = self.random.uniform(1.0, 3.9)
        self.until = None  # ns, in force that long even if no further command reaches the node

    def frame(self, shot, stream):
        self.touched(stream.last_frame)
        if self.until is None:
            stream.ledger.withdrawn = math.inf
            self.until = stream.now() + int(
                1e9 * (self.settings.max_command_age - self.settings.deadline))
        stream.ledger.slow_until = stream.now() + int(self.settings.max_command_age * 2e9)
        stream.bench.publish_command(int(Route.FOLLOW), stream.now(), self.speed)
        heard = self.reported and shot.stamp <= self.until
        return [replace(shot, slow=self.speed) if heard else shot]

    def end(self, bench, stream, witness):
        withdraw(bench, stream)

    def reported_by(self, heard):
        return heard.status is Status.OK and heard.message.limits_applied & LimitsApplied.SPEED \
            and heard.message.target_speed <= self.speed + 1e-3


class ModelTurns(Fault):
    """The model turns left, and nobody has told it to: the witness knows who was told when."""

    setups = ('raw', 'sim')
    expected = frozenset({Status.INVALID_OUTPUT})

    def frame(self, shot, stream):
        self.command(stream)
        return [replace(shot, order=Order.TURN_LEFT, altered=True)]

    def command(self, stream):
        """Publish what goes with the frame."""

    def tell_to_turn(self, stream):
        stream.ledger.turn(stream.now(), stream.epoch)
        stream.bench.publish_command(int(Route.LEFT), stream.now(), math.nan)


class TurnIsCommanded(ModelTurns):
    """The route turns left, and so does the model: it may."""

    expected = frozenset({Status.OK})

    def command(self, stream):
        self.tell_to_turn(stream)

    def reported_by(self, heard):
        return heard.status is Status.OK and heard.message.maneuver == Maneuver.TURN_LEFT

    def limit(self, stream):
        return super().limit(stream) + stream.camera_period  # it may come after its frame

    def end(self, bench, stream, witness):
        withdraw(bench, stream)


class TurnCommandGrowsOld(ModelTurns):
    """It was told to turn once, and then nothing more: reported when that is too old."""

    told = False

    def command(self, stream):
        if not self.told:
            self.told = True
            self.tell_to_turn(stream)
            self.injected_at = time.monotonic() + self.settings.max_command_age

    def touched(self, sent):
        """Note nothing: it begins when the command is old, not with the first frame."""


class CommandMakesNoSense(ModelTurns):
    """A command to turn left that cannot be, with every frame: as good as none."""

    def prepare(self):
        self.route, self.speed, self.stamp = self.random.choice((
            (77, math.nan, 'now'), (255, 3.0, 'now'), (Route.LEFT, -1.0, 'now'),
            (Route.LEFT, math.inf, 'now'), (Route.LEFT, -math.inf, 'now'),
            (Route.LEFT, math.nan, 'zero'), (Route.LEFT, math.nan, 'future'),
            (Route.LEFT, math.nan, 'past')))
        self.ahead = self.settings.max_clock_skew + self.random.uniform(0.2, 0.5)
        self.behind = self.settings.max_command_age + self.random.uniform(0.0, 900.0)
        self.told = False
        if self.stamp == 'future':  # until it would look fresh, had it been kept
            self.duration = self.ahead + 0.1

    def command(self, stream):
        if self.told and self.stamp == 'future':
            return
        self.told, now = True, stream.now()
        stamp = {'now': now, 'zero': 0, 'future': now + int(self.ahead * 1e9),
                 'past': now - int(self.behind * 1e9)}[self.stamp]
        stream.bench.publish_command(int(self.route), stamp, self.speed)


class SpeedCommandMakesNoSense(Fault):
    """A speed limit that cannot be, or is too old: it drives as fast as without one."""

    setups = ('raw', 'sim')

    def prepare(self):
        self.route, self.speed, self.ahead = self.random.choice((
            (Route.FOLLOW, -1.0, 0.0), (Route.FOLLOW, -math.inf, 0.0), (77, 1.0, 0.0),
            (Route.FOLLOW, 1.0, -math.inf), (Route.FOLLOW, 1.0, 0.5),
            (Route.FOLLOW, 1.0, -0.05 - self.settings.max_command_age)))

    def frame(self, shot, stream):
        self.touched(stream.last_frame)
        stamp = 0 if self.ahead == -math.inf else stream.now() + int(self.ahead * 1e9)
        stream.bench.publish_command(int(self.route), stamp, self.speed)
        return [shot]

    def end(self, bench, stream, witness):
        if witness.wait(lambda heard: heard.status is Status.INVALID_OUTPUT, 0.0,
                        self.injected_at):
            self.problems.append('it was taken')
        super().end(bench, stream, witness)
