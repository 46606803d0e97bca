"""What happens to the node itself: its lifecycle, its parameters, its process, its machine."""

from dataclasses import replace
import math
import os
import signal
import subprocess
import time

from kinds.base import by_watchdog, Fault, RECOVERY
from marks import Order
from owled_ros.driver.action import LimitsApplied, Status
import processes

SERVICE = 0.1      # s for a request to reach the node
EXIT_WITHIN = 2.0  # s from a signal to the end of the process


class Deactivated(Fault):
    """Deactivated and activated again by service."""

    setups = ('raw', 'compressed', 'sim', 'embedded')
    expected = frozenset({Status.INACTIVE})
    path, back = ('deactivate',), ('activate',)
    shortest, longest = 0.02, 0.1
    may_be_silent = True

    def limit(self, stream):
        return super().limit(stream) + SERVICE

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        self.go(bench, self.path)

    def end(self, bench, stream, witness):
        last = witness.wait(self.reported_by, 0.0)
        if last and witness.wait(lambda heard: heard.status is Status.OK
                                 and heard.message.sequence > last.message.sequence, 0.0):
            self.problems.append('OK while the node was not active')
        self.go(bench, self.back)

    def go(self, bench, path):
        for label in path:
            if not bench.change(label):
                self.problems.append(f'{label} was refused')

    def reported_by(self, heard):
        return heard.status is Status.INACTIVE and heard.at >= self.injected_at


class Reconfigured(Deactivated):
    """Through every state and back: the model is loaded anew."""

    setups = ('raw', 'thread', 'compressed', 'sim')
    path, back = ('deactivate', 'cleanup'), ('configure', 'activate')
    recovery = RECOVERY + 0.5


class ActivatedWithoutCamera(Deactivated):
    """Activated while no frame comes: never mind that one came before."""

    setups = ('raw', 'compressed', 'sim', 'embedded')
    expected = frozenset({Status.NO_INPUT})

    def limit(self, stream):
        return by_watchdog(self.settings) + SERVICE

    def begin(self, bench, stream, witness):
        Fault.begin(self, bench, stream, witness)
        time.sleep(2 * SERVICE)  # for what is on its way
        self.go(bench, self.path)
        self.injected_at = time.monotonic()
        self.go(bench, self.back)

    def end(self, bench, stream, witness):
        Fault.end(self, bench, stream, witness)

    def reported_by(self, heard):
        return Fault.reported_by(self, heard)

    def frame(self, shot, stream):
        return []


class ActivatedWithoutOdometry(ActivatedWithoutCamera):
    """The same without odometry."""

    def frame(self, shot, stream):
        return [shot]

    def odometry(self, measurement, stream):
        return []


class LimitChanged(Fault):
    """A limit is set while it drives: in force from the next frame on."""

    setups = ('raw', 'sim')
    expected = frozenset({Status.OK})

    def limit(self, stream):
        return super().limit(stream) + SERVICE

    def prepare(self):
        self.value = self.random.uniform(0.1, 0.4)

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        witness.tightened = math.inf, self.value  # from now on it may be in force
        result = bench.set('limits.acceleration', self.value)
        if not result.successful:
            self.problems.append(f'the change was refused: {result.reason}')
        witness.tightened = time.monotonic(), self.value
        super().begin(bench, stream, witness)

    def end(self, bench, stream, witness):
        witness.tightened = None
        default = self.settings.limits.acceleration
        if not bench.set('limits.acceleration', default).successful:
            self.problems.append('the limit could not be set back')
        super().end(bench, stream, witness)

    def reported_by(self, heard):
        return heard.status is Status.OK and heard.at >= self.injected_at \
            and heard.message.limits_applied & LimitsApplied.ACCELERATION


class InvalidParameters(Fault):
    """Changes that cannot be are refused with a reason, and change nothing."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def prepare(self):
        self.name_, self.value = self.random.choice((
            ('limits.acceleration', math.nan), ('limits.acceleration', -1.0),
            ('limits.speed', math.inf), ('limits.jerk', 'soft'), ('deadline', 1e9),
            ('deadline', 0.0), ('valid_for', 0.06), ('max_frame_age', 30.0),
            ('wheelbase', 3.0), ('model_process', False), ('model', '/etc/passwd'),
            ('image_transport', 'compressed'), ('autostart', False),
            ('limits.emergency_deceleration', 0.2),
            ('max_frozen_frames', -1), ('explanation_slice', 0)))

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        before = bench.parameter(self.name_)
        result = bench.set(self.name_, self.value)
        if result.successful or not result.reason or bench.parameter(self.name_) != before:
            self.problems.append(f'{self.name_} = {self.value!r} was taken')
        super().begin(bench, stream, witness)


class ProcessStopped(Fault):
    """The node's process is held (SIGSTOP) and goes on: what waited for it is too old."""

    setups = ('raw', 'thread', 'compressed', 'sim', 'embedded')
    shortest, longest = 0.12, 0.4
    may_be_silent = True

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        self.model = bench.model_process()
        os.kill(bench.process.pid, signal.SIGSTOP)
        super().begin(bench, stream, witness)

    def end(self, bench, stream, witness):
        os.kill(bench.process.pid, signal.SIGCONT)
        super().end(bench, stream, witness)
        if bench.model_process() != self.model:
            self.problems.append('the model was started again')


class ProcessStoppedForLong(ProcessStopped):
    """For longer than a model may hang: it did not, and is not given up."""

    setups = ('raw', 'thread', 'compressed', 'sim')
    shortest, longest = 0.6, 1.5


class NodeTerminated(Fault):
    """SIGTERM while it drives: it says INACTIVE, ends in time, and is started again."""

    setups = ('ended',)
    expected = frozenset({Status.INACTIVE})
    number, status = signal.SIGTERM, 0
    recovery = 30.0  # a process of Python with ROS 2 on a busy machine
    may_be_silent = True

    def prepare(self):
        self.model_hangs = self.random.random() < 0.5

    def frame(self, shot, stream):
        if self.model_hangs:
            return [replace(shot, order=Order.HANG_FOR_GOOD, good=False, altered=True)]
        return [shot]

    def limit(self, stream):
        return EXIT_WITHIN

    def begin(self, bench, stream, witness):
        super().begin(bench, stream, witness)
        time.sleep(self.duration if self.model_hangs else 0.0)
        self.injected_at = time.monotonic()
        model = bench.model_process()
        status, seconds = bench.end(self.number)
        if status != self.status or seconds > EXIT_WITHIN:
            self.problems.append(f'it ended with {status} after {seconds:.2f} s')
        if not processes.is_gone(model, EXIT_WITHIN):
            self.problems.append('its model was left behind')

    def end(self, bench, stream, witness):
        last = witness.heard[-1]
        if self.expected and last.status is not Status.INACTIVE:
            self.problems.append(f'the last word was {last.status.name}')
        witness.forget()
        bench.start_process()
        super().end(bench, stream, witness)


class NodeInterrupted(NodeTerminated):
    """The same with SIGINT."""

    number = signal.SIGINT


class NodeKilled(NodeTerminated):
    """SIGKILL: it can say nothing, and leaves nothing that is in the way of the next one."""

    expected = frozenset()
    number, status = signal.SIGKILL, -signal.SIGKILL


class LoadSpike(Fault):
    """Every core is busy for a while."""

    setups = ('raw', 'thread', 'compressed', 'sim', 'embedded')
    recovery = 1.0
    burdens_machine = True

    def begin(self, bench, stream, witness):
        self.injected_at = time.monotonic()
        self.burning = [subprocess.Popen(['sh', '-c', 'while :; do :; done'])
                        for _ in range(2 * os.cpu_count())]
        super().begin(bench, stream, witness)

    def end(self, bench, stream, witness):
        for process in self.burning:
            process.kill()
        for process in self.burning:
            process.wait()
        super().end(bench, stream, witness)
