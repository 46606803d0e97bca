"""What /diagnostics is told (REP 107): one status per concern, numbers as key and value.

Each is judged over what happened since the last time. The levels are those of REP 107: WARN where
something is not as it should be, ERROR where the node cannot do its work.
"""

from dataclasses import dataclass
import platform
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from owled_ros.driver.action import Status
from owled_ros.ros.counters import percentile
from owled_ros.ros.machine import Health
from owled_ros.ros.messages import time_message

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
NOT_OK = [status.name for status in Status if status not in (Status.OK, Status.INACTIVE)]
MEGABYTE = 1e6


@dataclass(frozen=True)
class Situation:
    """What the counters do not tell, at one moment.

    stamp [ns] of the node's clock; steady [s]; ages {what: s, or None}; lost: why the model was
    given up, or ''; not_configured: why the node could not configure itself, or ''; busy [s]: how
    long its piece of work has taken; settings None before the first `configure`.
    """

    stamp: int
    steady: float
    active: bool
    model: str
    clamps: dict
    ages: dict
    health: Health
    lost: str = ''
    not_configured: str = ''
    busy: float = 0.0
    settings: Any = None


class Diagnosis:
    """Turns counters into statuses, each time over what happened since the last time."""

    def __init__(self, name, counters):
        """Take the node's full name and its Counters."""
        self._name = name.lstrip('/')
        self._counters = counters
        self._before = {}
        self._then = None
        self._was_active = False

    def array(self, now):
        """Return the DiagnosticArray of a Situation."""
        counts, latencies, compute_times = self._counters.snapshot()
        period = None if self._then is None else now.steady - self._then
        new = {name: count - self._before.get(name, 0) for name, count in counts.items()}
        self._before, self._then = counts, now.steady
        # The first period is not a whole one, and what is missing in it says nothing.
        judged, self._was_active = now.active and self._was_active, now.active
        message = DiagnosticArray()
        message.header.stamp = time_message(now.stamp)
        message.status = [
            self._input(now, new, counts, period, judged),
            self._output(now, new, counts, period, judged, latencies, compute_times),
            self._model(now, counts),
            self._machine(now)]
        return message

    def _input(self, now, new, counts, period, judged):
        rates = {name: _rate(new, name, period) for name in ('frames', 'odometry')}
        drop_share = _share(new, 'frames dropped', 'frames')
        values = {'frame rate (Hz)': rates['frames'], 'odometry rate (Hz)': rates['odometry']}
        values |= {f'{what} age (s)': age for what, age in now.ages.items()}
        values['drop share'] = drop_share
        values |= {name: counts[name] for name in (
            'frames', 'frames dropped', 'odometry', 'odometry refused', 'commands',
            'commands refused', 'clock jumps', 'callbacks failed')}
        findings = Findings(now.settings)
        if judged:
            for name, limit in (('frames', 'frame_rate'), ('odometry', 'odometry_rate')):
                if new.get(name):
                    findings.below(limit, rates[name], f'{name} at {{:.1f}} Hz')
                else:
                    findings.add(ERROR, f'no {name}')
            findings.above('drop_share', drop_share, '{:.0%} of the frames are dropped')
            if new.get('odometry refused'):
                findings.add(WARN, 'odometry is refused')
        return self._status('input', findings, 'inputs arrive' if now.active else 'inactive',
                            values, now.model)

    def _output(self, now, new, counts, period, judged, latencies, compute_times):
        values = {'action rate (Hz)': _rate(new, 'OK', period)}
        for name, times in (('latency', latencies), ('compute time', compute_times)):
            for label, share in (('p50', 0.5), ('p95', 0.95), ('p99', 0.99), ('max', 1.0)):
                values[f'{name} {label} (ms)'] = _milliseconds(percentile(times, share))
        missed = _missed(new)
        values['missed share'] = missed
        values |= {status.name: counts[status.name] for status in Status}
        values |= {f'clamped: {limit}': count for limit, count in now.clamps.items()}
        values |= {name: counts[name] for name in (
            'watchdog', 'outdated', 'explanations', 'explanations given up',
            'explanations failed')}
        findings = Findings(now.settings)
        if judged:
            bad = [name for name in NOT_OK if new.get(name)]
            if not new.get('OK'):
                findings.add(ERROR, 'no action goes out')
            if bad:
                findings.add(WARN, ', '.join(bad))
            findings.above('missed_share', missed, '{:.0%} of the deadlines are missed')
            if new.get('OK'):  # else those measured are of another time
                findings.above('latency', percentile(latencies[-new['OK']:], 0.95),
                               'the latency is {:.3f} s (p95)')
        return self._status('output', findings, 'actions go out' if now.active else 'inactive',
                            values, now.model)

    def _model(self, now, counts):
        values = {'busy (s)': now.busy}
        values |= {name: counts[name] for name in (
            'out of memory', 'processes ended', 'models left behind')}
        findings = Findings(now.settings)
        if now.lost:
            findings.add(ERROR, now.lost)
        elif now.not_configured:
            findings.add(ERROR, now.not_configured)
        elif now.settings is not None and now.busy > now.settings.deadline:
            findings.add(ERROR, f'the model has been at one piece of work for {now.busy:.1f} s')
        summary = 'drives' if now.active else 'loaded' if now.model else 'not loaded'
        return self._status('model', findings, summary, values, now.model)

    def _machine(self, now):
        health = now.health
        values = {'memory (MB)': health.memory / MEGABYTE,
                  'memory of the model (MB)': health.model_memory / MEGABYTE,
                  'free memory share': health.free_memory, 'threads': health.threads,
                  'open files': health.files}
        if not health.model_memory:  # it is in the process's own
            del values['memory of the model (MB)']
        values |= {f'{name} (C)': value for name, value in health.temperatures.items()}
        values |= {f'{name} (W)': value for name, value in health.powers.items()}
        findings = Findings(now.settings)
        findings.below('free_memory', health.free_memory,
                       '{:.0%} of the memory of the machine is free')
        for name, value in health.temperatures.items():
            findings.above('temperature', value, f'{name} is at {{:.0f}} degrees C')
        return self._status('machine', findings, 'well', values, platform.node())

    def _status(self, part, findings, summary, values, hardware):
        return DiagnosticStatus(
            level=findings.level, name=f'{self._name}: {part}',
            message=findings.summary or summary, hardware_id=hardware,
            values=[KeyValue(key=key, value=_words(value)) for key, value in values.items()])


class Findings:
    """What is wrong with one concern; its level is that of the worst."""

    def __init__(self, settings):
        """Take the Settings with the limits, or None where there are none yet."""
        self._limits = settings and {WARN: settings.warn, ERROR: settings.error}
        self._found = []

    def add(self, level, words):
        self._found.append((level, words))

    def above(self, name, value, words):
        """Judge a value by the limits called `name`, of which it must not be above."""
        self._judge(name, value, words, lambda limit: value > limit)

    def below(self, name, value, words):
        """Judge a value by the limits called `name`, of which it must not be below."""
        self._judge(name, value, words, lambda limit: value < limit)

    def _judge(self, name, value, words, broken):
        if value is None or self._limits is None:
            return
        for level in (ERROR, WARN):
            limit = getattr(self._limits[level], name)
            if broken(limit):
                self.add(level, words.format(value))
                return

    @property
    def level(self):
        return max((level for level, _ in self._found), default=OK)

    @property
    def summary(self):
        """All findings, the worst first; '' without any."""
        ordered = sorted(self._found, key=lambda finding: finding[0], reverse=True)
        return '; '.join(words for _, words in ordered)


def _missed(new):
    """Share of the deadlines that passed without an action; None where there were none."""
    missed = new.get(Status.DEADLINE_MISSED.name, 0)
    ended = missed + new.get(Status.OK.name, 0)
    return missed / ended if ended else None


def _milliseconds(seconds):
    return None if seconds is None else seconds * 1e3


def _rate(new, name, period):
    return None if not period else new.get(name, 0) / period


def _share(new, part, whole):
    return new.get(part, 0) / new[whole] if new.get(whole) else None


def _words(value):
    if value is None:
        return 'none'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
