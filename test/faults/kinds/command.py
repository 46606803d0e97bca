"""Commands that must not be followed, and ones that must."""


from kinds.base import Fault

from owled_ros.driver.action import LimitsApplied, Route, Status


class SpeedIsCommanded(Fault):
    """A speed limit below the speed: kept from the frame on after which it was heard."""

    setups = ('raw',)
    expected = frozenset({Status.OK})
    shortest, longest = 0.1, 0.2

    def prepare(self):
        self.speed = self.random.uniform(1.0, 3.9)

    def frame(self, shot, stream):
        self.touched(stream.last_frame)
        stream.ledger.slow_until = (
            stream.now() + int(self.settings.max_command_age * 2e9))
        stream.bench.publish_command(int(Route.FOLLOW), stream.now(), self.speed)
        return [shot]

    def reported_by(self, heard):
        return heard.status is Status.OK and heard.message.limits_applied & LimitsApplied.SPEED \
            and heard.message.target_speed <= self.speed + 1e-3
