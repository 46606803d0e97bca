"""
What it costs to run the model in a process of its own (the parameter model_process).

    python benchmarks/model_process.py --json docs/results/model_process.json

The added time is measured with a driver that computes nothing, once called in the same process
and once through the other one, in turns; the memory with the model, as the proportional set size
(PSS) of all processes together, each arrangement in processes of its own.
"""

import argparse
from dataclasses import dataclass
import json
from pathlib import Path
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.driver.process import DriverProcess, load_embedded_or_named

SIZES = ((480, 640), (720, 1280), (1080, 1920))
BAR = 2.0  # ms that may be added to an action at 1280x720 for it to be no matter
EGO = EgoState(8.0)


@dataclass(frozen=True)
class Decision:
    action: Action


class Words:
    text, complete, confidence = 'the road ahead is clear', False, 0.5

    def advance(self, tokens):
        return False


class IdleDriver:
    """Answers at once."""

    name, hash, backend, backend_reason = 'idle', '', 'none', 'a benchmark'
    requested_sparsity = measured_sparsity = 0.0

    @classmethod
    def load(cls, model, **how):
        return cls()

    def decide(self, frame, ego, command):
        # Both read the picture once, so that neither pays alone for fetching it.
        return Decision(Action(float(frame[::8, ::8].mean()), 0.0, Maneuver.KEEP_LANE, 0.5))

    def explain(self, decision):
        return Words()


def milliseconds(call, *arguments):
    began = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - began) * 1e3


def added_times(repeats):
    """Return rows of what a call costs here and there [ms]."""
    here = IdleDriver()
    there = DriverProcess(IdleDriver.load, threading.Event(), 'idle')
    rows = []
    try:
        for height, width in SIZES:
            frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
            rows.append(row(f'decide {width}x{height}', repeats, *(
                lambda driver=driver: driver.decide(frame, EGO, Command())
                for driver in (here, there))))
        there.decide(frame, EGO, Command())
        streams = here.explain(None), there.explain(None)
        rows.append(row('slice of an explanation', repeats, *(
            lambda stream=stream: stream.advance(4) for stream in streams)))
    finally:
        there.close()
    return rows


def row(name, repeats, here, there):
    pairs = [(milliseconds(here), milliseconds(there)) for _ in range(repeats)]
    added = sorted(other - own for own, other in pairs)
    return {'call': name, 'median_ms': statistics.median(added),
            'p95_ms': added[int(0.95 * len(added))]}


def memory(arrangement):
    """Return the PSS [MB] of a fresh process, and of its own, that has made three decisions."""
    done = subprocess.run([sys.executable, __file__, '--measure', arrangement],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(arrangement):
    """Be the process whose memory is measured."""
    if arrangement == 'process':
        driver = DriverProcess(load_embedded_or_named, threading.Event(), 'embedded', device='cpu')
        processes = ['self', driver._process.pid]
    else:
        driver, processes = load_embedded_or_named('embedded', device='cpu'), ['self']
    driver.warm_up()
    print(json.dumps(sum(map(proportional_set_size, processes))))


def proportional_set_size(process):
    for line in Path(f'/proc/{process}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) / 1e3
    raise RuntimeError('this kernel does not tell the proportional set size of a process')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--json', type=Path, help='write rows and bars to this file')
    parser.add_argument('--quick', action='store_true', help='a tenth of the repetitions')
    parser.add_argument('--measure', choices=('thread', 'process'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    rows = added_times(100 if arguments.quick else 1000)
    print(f'{"added by a process of its own":32}{"median":>10}{"p95":>10}')
    for line in rows:
        print(f'{line["call"]:32}{line["median_ms"]:>7.2f} ms{line["p95_ms"]:>7.2f} ms')
    used = {name: memory(name) for name in ('thread', 'process')}
    print(f'{"memory with the embedded model":32}{used["thread"]:>7.0f} MB in one process, '
          f'{used["process"]:.0f} MB in two')
    value = next(line['median_ms'] for line in rows if '1280x720' in line['call'])
    bars = [{'name': 'added to a decision at 1280x720, median (ms)', 'value': value, 'bar': BAR,
             'met': value <= BAR}]
    if arguments.json:
        rows.append({'call': 'memory', 'thread_mb': used['thread'], 'process_mb': used['process']})
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({'rows': rows, 'bars': bars}, indent=2) + '\n')


if __name__ == '__main__':
    main()
