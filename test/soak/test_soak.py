"""The soak's judgement, and a soak of some seconds that shows that it runs."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from soak import fitted_growth, judge, longest_silence  # noqa: E402


def readings(memory=lambda second: 900.0, files=lambda second: 20, actions=lambda second: second):
    return [{'seconds': float(second), 'memory': memory(second), 'files': files(second),
             'threads': 30, 'actions': actions(second)} for second in range(600)]


def test_a_flat_run_passes():
    assert all(bar['met'] for bar in judge(readings()).values())


def test_growth_before_the_end_of_the_warm_up_does_not_count():
    warm = readings(memory=lambda second: 500 + 4 * min(second, 100))
    assert all(bar['met'] for bar in judge(warm).values())


@pytest.mark.parametrize('what, changed', [
    ('memory', {'memory': lambda second: 900 + second / 20}),
    ('files', {'files': lambda second: 20 + second // 200}),
    ('silence', {'actions': lambda second: min(second, 500)}),
])
def test_what_grows_or_falls_silent_fails(what, changed):
    bars = judge(readings(**changed))
    assert [name for name, bar in bars.items() if not bar['met']] == [what]


def test_growth_is_along_a_line():
    assert fitted_growth([0, 1, 2, 3], [5.0, 6.0, 7.0, 8.0]) == pytest.approx(3.0)
    assert fitted_growth([0], [5.0]) == 0.0
    assert longest_silence(readings(actions=lambda second: second // 10)) == 9.0


def test_a_short_soak(tmp_path):
    """It runs to its end and writes what it should; so short a run says nothing about leaks."""
    program = Path(__file__).with_name('soak.py')
    done = subprocess.run([sys.executable, str(program), '--minutes', '0.2', '--output',
                           str(tmp_path / 'out')], capture_output=True, text=True, timeout=900)
    run = json.loads((tmp_path / 'out' / 'soak.json').read_text())
    assert run['end']['status'] == 0, done.stdout + done.stderr
    assert run['counts']['OK'] > 0 and len(run['readings']) >= 5
    assert (tmp_path / 'out' / 'soak.png').stat().st_size > 5000
    assert ' 0.2 minutes, ' in done.stdout.splitlines()[-1]
