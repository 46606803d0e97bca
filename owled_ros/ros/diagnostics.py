"""What /diagnostics is told (REP 107): one status per concern, numbers as key and value."""

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from owled_ros.driver.action import Status
from owled_ros.ros.counters import percentile
from owled_ros.ros.messages import time_message

NOT_OK = [status.name for status in Status if status not in (Status.OK, Status.INACTIVE)]


class Diagnosis:
    """Turns counters into statuses, each time over what happened since the last time."""

    def __init__(self, name, counters):
        """Take the node's full name and its Counters."""
        self._name = name.lstrip('/')
        self._counters = counters
        self._before = {}
        self._then = None

    def array(self, *, stamp, steady, active, model, clamps, ages):
        """Return a DiagnosticArray.

        stamp [ns] of the node's clock; steady [s]; ages: {what: age in s, or None}.
        """
        counts, latencies, compute_times = self._counters.snapshot()
        period = None if self._then is None else steady - self._then
        new = {name: count - self._before.get(name, 0) for name, count in counts.items()}
        self._before, self._then = counts, steady
        message = DiagnosticArray()
        message.header.stamp = time_message(stamp)
        message.status = [
            self._input(new, counts, period, active, model, ages),
            self._output(new, counts, period, active, model, clamps),
            self._model(latencies, compute_times, active, model)]
        return message

    def _input(self, new, counts, period, active, model, ages):
        values = {'frame rate (Hz)': _rate(new, 'frames', period),
                  'odometry rate (Hz)': _rate(new, 'odometry', period)}
        values |= {f'{what} age (s)': age for what, age in ages.items()}
        values |= {name: counts[name] for name in (
            'frames', 'frames dropped', 'odometry', 'odometry refused', 'commands',
            'commands refused', 'clock jumps')}
        values['drop share'] = _share(new, 'frames dropped', 'frames')
        level, summary = DiagnosticStatus.OK, 'inputs arrive'
        if not active:
            summary = 'inactive'
        elif not new.get('frames'):
            level, summary = DiagnosticStatus.ERROR, 'no frames arrive'
        elif not new.get('odometry'):
            level, summary = DiagnosticStatus.ERROR, 'no odometry arrives'
        elif new.get('odometry refused'):
            level, summary = DiagnosticStatus.WARN, 'odometry is refused'
        return self._status('input', level, summary, values, model)

    def _output(self, new, counts, period, active, model, clamps):
        values = {'action rate (Hz)': _rate(new, 'OK', period)}
        values |= {status.name: counts[status.name] for status in Status}
        values |= {f'clamped: {limit}': count for limit, count in clamps.items()}
        values |= {name: counts[name] for name in (
            'watchdog', 'outdated', 'explanations', 'explanations given up',
            'explanations failed')}
        bad = [name for name in NOT_OK if new.get(name)]
        level, summary = DiagnosticStatus.OK, 'actions go out'
        if not active:
            summary = 'inactive'
        elif not new.get('OK'):
            level, summary = DiagnosticStatus.ERROR, 'no action goes out'
        elif bad:
            level = DiagnosticStatus.WARN
        if active and bad:
            summary += ' (' + ', '.join(bad) + ')'
        return self._status('output', level, summary, values, model)

    def _model(self, latencies, compute_times, active, model):
        values = {}
        for name, times in (('latency', latencies), ('compute time', compute_times)):
            for label, share in (('p50', 0.5), ('p95', 0.95)):
                time = percentile(times, share)
                values[f'{name} {label} (ms)'] = None if time is None else time * 1e3
        summary = 'drives' if active else 'loaded' if model else 'not loaded'
        return self._status('model', DiagnosticStatus.OK, summary, values, model)

    def _status(self, part, level, summary, values, model):
        return DiagnosticStatus(
            level=level, name=f'{self._name}: {part}', message=summary, hardware_id=model,
            values=[KeyValue(key=key, value=_words(value)) for key, value in values.items()])


def _rate(new, name, period):
    return None if not period else new.get(name, 0) / period


def _share(new, part, whole):
    return new.get(part, 0) / new[whole] if new.get(whole) else None


def _words(value):
    if value is None:
        return 'none'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
