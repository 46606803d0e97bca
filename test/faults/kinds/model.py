"""Faults of the model, in a process of its own ('raw') or in a thread of the node ('thread')."""

from contextlib import suppress
from dataclasses import replace
import os
import signal
import time

from kinds.base import by_watchdog, Fault, RECOVERY, SLACK, WATCHDOG
from marks import Order
from owled_ros.driver.action import Status

STARTING = 3.0  # s for another process of the model
LOADING = 30.0  # s, likewise for the embedded model with PyTorch, on a busy machine
FREEING = 0.3  # s; Python's garbage collection stops the whole process for a tenth or two


class ModelFault(Fault):
    """The model does something else than answer."""

    setups = ('raw', 'thread')
    order = None

    def frame(self, shot, stream):
        return [replace(shot, order=self.order, good=False, altered=True)]


class ModelHangs(ModelFault):
    """It takes one frame and does not answer for a while."""

    setups = ('raw', 'thread', 'sim')
    order = Order.HANG
    expected = frozenset({Status.DEADLINE_MISSED})
    longest = 0.1

    def frame(self, shot, stream):
        # Not only one frame: that one may be lost on its way.
        if self.reported:
            return [shot]
        # By a simulated clock that the machine held up meanwhile it may be in time; then the
        # witness's comparison of the stamps is what judges.
        return [replace(shot, order=self.order, good=stream.sim, altered=True)]

    def limit(self, stream):
        return by_watchdog(self.settings)

    recovery = RECOVERY + 0.7  # until it stops to hang, on the next frame too


class ModelIsLate(ModelHangs):
    """It answers after the deadline."""

    order = Order.BE_LATE


class ModelRaises(ModelFault):
    """It raises, at every frame."""

    order = Order.RAISE
    expected = frozenset({Status.MODEL_ERROR})


class MemoryRunsShort(ModelFault):
    """The model runs out of memory once; with freed caches it answers."""

    order = Order.MEMORY_RUNS_SHORT
    recovery = RECOVERY + FREEING

    def frame(self, shot, stream):
        return [replace(shot, order=self.order, altered=True)]


class ModelIsLost(ModelFault):
    """Nothing can be expected of the model any more: it is given up, and the node inactive.

    What brings it back is a lifecycle manager, whose part the campaign takes.
    """

    expected = frozenset({Status.MODEL_ERROR})
    recovery = RECOVERY + 1.0
    may_be_silent = True
    gone_within = 2.0  # s

    def end(self, bench, stream, witness):
        if witness.wait(lambda heard: heard.status is Status.INACTIVE, self.gone_within,
                        self.injected_at) is None:
            self.problems.append('the node did not become inactive')
        super().end(bench, stream, witness)
        for label in ('cleanup', 'configure', 'activate'):
            if not bench.change_patiently(label):
                self.problems.append(f'{label} was refused')


class ModelOutOfMemory(ModelIsLost):
    """It runs out of memory, also with freed caches."""

    order = Order.OUT_OF_MEMORY

    def limit(self, stream):
        return by_watchdog(self.settings) + FREEING


class ModelHangsForGood(ModelIsLost):
    """It does not come back within hang_limit, and its thread cannot be killed."""

    setups = ('thread',)
    order = Order.HANG_FOR_GOOD

    def frame(self, shot, stream):
        # Not only one frame: that one may be lost on its way.
        return [shot] if self.reported else super().frame(shot, stream)

    def limit(self, stream):
        return self.settings.hang_limit + WATCHDOG + SLACK


class ModelProcessHangs(ModelFault):
    """It does not come back within hang_limit: its process is killed and started again."""

    setups = ('raw',)
    order = Order.HANG_FOR_GOOD
    expected = frozenset({Status.MODEL_ERROR})
    recovery = RECOVERY + STARTING

    def frame(self, shot, stream):
        return [shot] if self.reported else super().frame(shot, stream)

    def limit(self, stream):
        return self.settings.hang_limit + WATCHDOG + SLACK


class ModelProcessCrashes(ModelProcessHangs):
    """It dies of a segmentation fault: its process is started again."""

    order = Order.CRASH

    def limit(self, stream):
        return stream.camera_period + SLACK


class ModelCrashesAgainAndAgain(ModelIsLost):
    """Every process of it dies at its first frame: after some it is given up."""

    setups = ('raw',)
    order = Order.CRASH
    gone_within = 4 * STARTING


class ModelProcessKilled(ModelProcessCrashes):
    """It is killed from outside, as by the kernel when memory is short."""

    number = signal.SIGKILL

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        self.process = bench.model_process()
        os.kill(self.process, self.number)
        super().begin(bench, stream, witness)

    def frame(self, shot, stream):
        return [shot]


class ModelProcessKilledTwice(ModelProcessKilled):
    """It is killed, and so is the one that is started in its place, while it loads."""

    def begin(self, bench, stream, witness):
        super().begin(bench, stream, witness)
        end = time.monotonic() + STARTING
        while (another := bench.model_process()) in (None, self.process):
            if time.monotonic() > end:
                self.problems.append('no other process was started')
                return
            time.sleep(0.005)
        os.kill(another, signal.SIGKILL)


class EmbeddedModelKilled(ModelProcessKilled):
    """The same with the real model, which takes its time to be loaded again."""

    setups = ('embedded',)
    recovery = LOADING

    def limit(self, stream):
        return self.settings.deadline + super().limit(stream)


class ModelProcessStopped(ModelProcessKilled):
    """It is held (SIGSTOP), for a moment or until it is killed and started again."""

    number = signal.SIGSTOP
    expected = frozenset({Status.DEADLINE_MISSED})
    shortest, longest = 0.05, 1.0

    def limit(self, stream):
        return by_watchdog(self.settings)

    def end(self, bench, stream, witness):
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGCONT)
        super().end(bench, stream, witness)


class ModelEndsItsThread(ModelFault):
    """It raises SystemExit, as a library does that wants to end the process."""

    order = Order.END_THREAD
    expected = frozenset({Status.MODEL_ERROR})


class ModelAnswersNonsense(ModelFault):
    """What it answers is no action, or nothing."""

    def prepare(self):
        self.order = self.random.choice((
            Order.NO_DECISION, Order.NOT_A_NUMBER, Order.INFINITE, Order.WORDS,
            Order.UNKNOWN_MANEUVER))
        nothing = self.order is Order.NO_DECISION
        self.expected = frozenset({Status.MODEL_ERROR if nothing else Status.INVALID_OUTPUT})


class ModelOutOfLimits(ModelFault):
    """What it answers is far out of every limit: clamped, and said so in limits_applied."""

    setups = ('raw', 'thread', 'sim')

    def prepare(self):
        self.order = self.random.choice((Order.FAR_TOO_FAST, Order.FAR_TOO_HARD))

    expected = frozenset({Status.OK})

    def frame(self, shot, stream):
        return [replace(shot, order=self.order, altered=True)]

    def reported_by(self, heard):
        return heard.status is Status.OK and heard.shot is not None and heard.shot.altered \
            and heard.shot.order is self.order and heard.message.limits_applied


class ExplanationRaises(ModelFault):
    """The words fail; the actions do not."""

    order = Order.EXPLANATION_RAISES

    def frame(self, shot, stream):
        return [replace(shot, order=self.order, altered=True)]


class ExplanationHangs(ExplanationRaises):
    """A slice of the explanation takes long, and no action comes meanwhile."""

    order = Order.EXPLANATION_HANGS
    expected = frozenset({Status.DEADLINE_MISSED})
    longest = 0.1
    recovery = RECOVERY + 0.7

    def frame(self, shot, stream):
        # Not only one frame: that one may be lost on its way.
        return [shot] if self.reported else super().frame(shot, stream)

    def limit(self, stream):
        return by_watchdog(self.settings)
