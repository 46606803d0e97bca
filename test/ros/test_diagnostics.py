"""What the counters become on /diagnostics, and at which level."""

from dataclasses import replace

from diagnostic_msgs.msg import DiagnosticStatus
from owled_ros.ros.counters import Counters
from owled_ros.ros.diagnostics import Diagnosis, Situation
from owled_ros.ros.machine import Health
from owled_ros.ros.parameters import PARAMETERS, Settings
import pytest

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SETTINGS = Settings({parameter.name: parameter.default for parameter in PARAMETERS})
WELL = Health(memory=5 * 10**8, free_memory=0.5, threads=20, files=30,
              temperatures={'cpu': 50.0}, powers={'VDD_IN': 7.5})


class Bench:
    """A diagnosis of one second after another."""

    def __init__(self):
        self.counters = Counters()
        self.diagnosis = Diagnosis('/car/driving_node', self.counters)
        self.now = Situation(
            stamp=0, steady=100.0, active=True, model='tiny 0123', clamps={'jerk': 3},
            ages={'frame': 0.05, 'odometry': None}, health=WELL, settings=SETTINGS)
        self.second()

    def second(self, latency=0.1, **counts):
        """Count, and return the statuses by their last word."""
        for name, count in counts.items():
            for _ in range(count):
                self.counters.count(name.replace('_', ' ') if name.islower() else name)
        for _ in range(counts.get('OK', 0)):
            self.counters.measured(latency, latency / 2)
        self.now = replace(self.now, steady=self.now.steady + 1.0)
        message = self.diagnosis.array(self.now)
        return {status.name.split()[-1]: status for status in message.status}

    def good_second(self, **changed):
        return self.second(**({'frames': 20, 'odometry': 50, 'OK': 20} | changed))


def values(status):
    return {value.key: value.value for value in status.values}


def test_the_memory_of_a_model_in_a_process_of_its_own():
    bench = Bench()
    assert 'memory of the model (MB)' not in values(bench.good_second()['machine'])
    bench.now = replace(bench.now, health=replace(WELL, model_memory=4 * 10**8))
    assert values(bench.good_second()['machine'])['memory of the model (MB)'] == '400'


def test_a_good_second():
    statuses = Bench().good_second(frames_dropped=5)
    assert [status.name for status in statuses.values()] == [
        f'car/driving_node: {part}' for part in ('input', 'output', 'model', 'machine')]
    assert {status.level for status in statuses.values()} == {OK}
    assert statuses['model'].hardware_id == 'tiny 0123'
    inputs = values(statuses['input'])
    assert (inputs['frame rate (Hz)'], inputs['odometry rate (Hz)']) == ('20', '50')
    assert (inputs['frame age (s)'], inputs['odometry age (s)']) == ('0.05', 'none')
    assert inputs['drop share'] == '0.25'
    outputs = values(statuses['output'])
    assert outputs['latency p95 (ms)'] == '100' and outputs['compute time max (ms)'] == '50'
    assert (outputs['OK'], outputs['clamped: jerk'], outputs['missed share']) == ('20', '3', '0')
    machine = values(statuses['machine'])
    assert (machine['memory (MB)'], machine['cpu (C)'], machine['VDD_IN (W)']) == (
        '500', '50', '7.5')


@pytest.mark.parametrize('part, counts, level, words', [
    ('input', {'frames': 0}, ERROR, 'no frames'),
    ('input', {'odometry': 0}, ERROR, 'no odometry'),
    ('input', {'frames': 3}, WARN, 'frames at 3.0 Hz'),
    ('input', {'odometry': 4}, ERROR, 'odometry at 4.0 Hz'),
    ('input', {'frames_dropped': 19}, WARN, '95% of the frames are dropped'),
    ('input', {'odometry_refused': 1}, WARN, 'refused'),
    ('output', {'OK': 0}, ERROR, 'no action goes out'),
    ('output', {'STALE_INPUT': 1}, WARN, 'STALE_INPUT'),
    ('output', {'DEADLINE_MISSED': 1}, WARN, '5% of the deadlines'),
    ('output', {'DEADLINE_MISSED': 60}, ERROR, '75% of the deadlines'),
    ('output', {'latency': 0.5}, WARN, '0.500 s'),
    ('output', {'latency': 0.58}, ERROR, '0.580 s'),
])
def test_what_is_wrong_has_a_level_and_words(part, counts, level, words):
    statuses = Bench().good_second(**counts)
    assert (statuses[part].level, words in statuses[part].message) == (level, True), \
        statuses[part].message
    assert values(statuses[part])


def test_only_the_latencies_of_the_last_second_are_judged():
    bench = Bench()
    assert bench.good_second(latency=0.58)['output'].level == ERROR
    assert bench.good_second()['output'].level == OK


def test_the_worst_comes_first():
    status = Bench().good_second(frames=0, odometry_refused=1)['input']
    assert status.message == 'no frames; odometry is refused'


def test_an_inactive_node_and_a_first_second_are_not_judged():
    bench = Bench()
    bench.now = replace(bench.now, active=False)
    assert bench.second()['input'].level == OK
    assert bench.second()['input'].message == 'inactive'
    bench.now = replace(bench.now, active=True)
    assert bench.second(frames=1)['input'].level == OK
    assert bench.second(frames=1)['input'].level == ERROR


@pytest.mark.parametrize('part, changed, level, words', [
    ('model', {'lost': 'the model hangs', 'active': False}, ERROR, 'the model hangs'),
    ('model', {'not_configured': 'not configured: no', 'active': False, 'model': ''}, ERROR,
     'not configured: no'),
    ('model', {'busy': 0.7}, ERROR, 'one piece of work for 0.7 s'),
    ('model', {'active': False, 'model': ''}, OK, 'not loaded'),
    ('machine', {'health': replace(WELL, temperatures={'gpu0': 90.0})}, WARN, 'gpu0 is at 90'),
    ('machine', {'health': replace(WELL, temperatures={'gpu0': 96.0})}, ERROR, 'gpu0 is at 96'),
    ('machine', {'health': replace(WELL, free_memory=0.04)}, ERROR, '4% of the memory'),
    ('machine', {'health': Health(), 'settings': None}, OK, 'well'),
])
def test_model_and_machine(part, changed, level, words):
    bench = Bench()
    bench.now = replace(bench.now, **changed)
    status = bench.good_second()[part]
    assert (status.level, words in status.message) == (level, True), status.message
