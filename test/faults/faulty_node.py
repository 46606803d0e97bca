"""The driving node with a driver that does what the frame orders; run as a program."""

from dataclasses import dataclass
import math
import os
import signal
import sys
import time

from marks import confidence, curvature, Order, read
from owled_ros.driver.action import Action, Maneuver

HANG = 0.3    # s; past the deadline of the campaign, short of its hang_limit
LATE = 0.22   # s; likewise
FOR_GOOD = 2.0  # s; far past its hang_limit
WORK = 0.08   # s; within the deadline
PAUSES = {Order.HANG: HANG, Order.BE_LATE: LATE, Order.HANG_FOR_GOOD: FOR_GOOD,
          Order.TAKE_TIME: WORK}
ACCELERATION = 0.5  # m/s^2, always


@dataclass(frozen=True)
class Decision:
    action: Action
    order: Order


class Explanation:
    """Three words, or what the order says."""

    def __init__(self, order):
        self._order = order
        self.text = ''
        self.confidence = 0.5
        self.complete = False

    def advance(self, max_tokens):
        if self._order is Order.EXPLANATION_RAISES:
            raise RuntimeError('the words are lost')
        if self._order is Order.EXPLANATION_HANGS:
            time.sleep(HANG)
        self.text, self.complete = 'all is well', True
        return True


class ObedientDriver:
    """A Driver without a model."""

    name = 'obedient'
    hash = '0123abcd'
    backend = 'orders'
    backend_reason = 'a test'
    requested_sparsity = 0.0
    measured_sparsity = 0.0

    def __init__(self):
        self._asked_again = False

    @classmethod
    def load(cls, model, **how):
        return cls()

    def warm_up(self):
        pass

    def decide(self, frame, ego, command):
        number, order = read(frame)
        time.sleep(PAUSES.get(order, 0.0))
        if order is Order.CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if order is Order.MEMORY_RUNS_SHORT:
            self._asked_again = not self._asked_again
            if self._asked_again:
                raise MemoryError('out of memory, once')
        if order is Order.NO_DECISION:
            return None
        return Decision(self._action(number, order, confidence(ego.yaw_rate)), order)

    def _action(self, number, order, sure):
        if order is Order.RAISE:
            raise RuntimeError('a tensor has the wrong shape\nand a long trace')
        if order is Order.OUT_OF_MEMORY:
            raise MemoryError('out of memory')
        if order is Order.END_THREAD:
            raise SystemExit('the model wants to end the node')
        right = Action(ACCELERATION, curvature(number), Maneuver.KEEP_LANE, sure)
        return {
            Order.NOT_A_NUMBER: Action(math.nan, 0.0, Maneuver.KEEP_LANE, sure),
            Order.INFINITE: Action(0.0, math.inf, Maneuver.KEEP_LANE, sure),
            Order.WORDS: Action('fast', 0.0, Maneuver.KEEP_LANE, sure),
            Order.UNKNOWN_MANEUVER: Action(0.0, 0.0, 42, sure),
            Order.TURN_LEFT: Action(ACCELERATION, right.curvature, Maneuver.TURN_LEFT, sure),
            Order.FAR_TOO_FAST: Action(99.0, 9.0, Maneuver.KEEP_LANE, sure),
            Order.FAR_TOO_HARD: Action(-99.0, -9.0, Maneuver.EMERGENCY_STOP, sure),
        }.get(order, right)

    def explain(self, decision):
        return Explanation(decision.order)


def main(args=None):
    """Run the driving node with this driver."""
    from owled_ros import driving_node
    return driving_node.main(args, load_driver=ObedientDriver.load)


if __name__ == '__main__':
    sys.exit(main())
