"""Breaks the running driving node on purpose, from a seed, and checks all that it says.

A driving node runs in a process of its own, fed with a camera, odometry and commands over DDS.
One fault after the other is injected; each must be reported in time, no action may come of bad
input or be out of limits, and the node must drive again by itself when the fault has ended.
"""

import argparse
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import Bench  # noqa: E402
from kinds import KINDS, kinds_of  # noqa: E402
from kinds.base import by_watchdog  # noqa: E402
from kinds.node import EXIT_WITHIN  # noqa: E402
from owled_ros.driver.action import Status  # noqa: E402
from owled_ros.ros.parameters import PARAMETERS, Settings  # noqa: E402
from ros_domain import environment, locked_domain  # noqa: E402
from stream import CAMERA_EVERY, Stream  # noqa: E402
from summary import last_line, outcome, passed, summarise, table  # noqa: E402
from witness import Ledger, Witness  # noqa: E402

HERE = Path(__file__).parent
ATTEMPTS = 3            # for a fault during which the machine was late itself
EXCUSE = 2.0            # times the machine's own delay that a report or recovery may be late
START_PATIENCE = 300.0  # s for a node to load its model on a busy machine
STEADY_WITHIN = 60.0    # s to drive again before the next fault
REPORT_PATIENCE = 3.0   # s past its limit that a report is waited for
RECOVERY_PATIENCE = 10.0
SAVE_EVERY = 25         # faults
# From the first fault to the last, {what: (share, so much more)}: caches, and threads of DDS, which
# come and go with who is there.
MAY_GROW = {'memory_mb': (1.1, 20), 'files': (1, 3), 'threads': (1, 10)}
SAID = 400              # characters that are said of a fault; the file has it all

FAST = {'model_process': True, 'deadline': 0.15, 'valid_for': 0.3, 'horizon': 1.0,
        'max_frame_age': 0.1, 'max_ego_age': 0.1, 'max_clock_skew': 0.05, 'max_frozen_frames': 4,
        'max_image_pixels': 16384, 'max_command_age': 0.3, 'hang_limit': 0.45}
CALM = FAST | {'deadline': 1.0, 'valid_for': 1.0, 'max_frame_age': 0.4, 'max_ego_age': 0.3,
               'hang_limit': 120.0}


@dataclass(frozen=True)
class Setup:
    """One way to run the node; share is its part of the faults."""

    share: float
    parameters: dict
    program: Path = HERE / 'faulty_node.py'
    compressed: bool = False
    sim: bool = False
    camera_every: int = CAMERA_EVERY
    slack: float = 0.0    # s more for reports and recoveries
    numbered: bool = True

    @property
    def settings(self):
        defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
        return Settings(defaults | {
            name: value for name, value in self.parameters.items() if name in defaults})


SETUPS = {
    'raw': Setup(0.42, FAST),
    'thread': Setup(0.12, FAST | {'model_process': False}),
    'compressed': Setup(0.15, FAST, compressed=True),
    'sim': Setup(0.25, FAST | {'use_sim_time': True}, sim=True),
    'ended': Setup(0.01, FAST),
    # The real model: slower, so refusals wait for the frame that it is at.
    'embedded': Setup(0.05, CALM, program=HERE.parents[1] / 'owled_ros' / 'driving_node.py',
                      camera_every=10, slack=0.6, numbered=False),
}


def plan(seed, faults, only=()):
    """Return [(index, setup, kind)], shuffled: the kinds of a setup in equal numbers.

    Those that no other setup has come three times as often there. only: names of kinds; none
    means all.
    """
    shuffle = random.Random(seed)
    left, planned = faults, []
    for name, setup in SETUPS.items():
        count = left if name == list(SETUPS)[-1] else min(left, round(faults * setup.share))
        left -= count
        kinds = []
        wanted = [kind for kind in kinds_of(name) if kind in only or not only]
        again = list(wanted)  # at first each once
        while wanted and len(kinds) < count:
            shuffle.shuffle(again)
            kinds += again
            again = wanted + 2 * [kind for kind in wanted if KINDS[kind].setups == (name,)]
        planned += [(name, kind) for kind in kinds[:count]]
    return [(index, setup, kind) for index, (setup, kind) in enumerate(planned)]


class NodeIsLost(Exception):
    """The node has ended, or does not drive any more: a new one is needed."""


@dataclass
class Run:
    """One seed's faults, as far as they got."""

    seed: int
    faults: int
    only: list = field(default_factory=list)
    records: list = field(default_factory=list)
    nodes: list = field(default_factory=list)
    actions: int = 0

    def left(self):
        """Return what of the plan has not been injected yet."""
        done = {record['index'] for record in self.records}
        return [fault for fault in plan(self.seed, self.faults, self.only)
                if fault[0] not in done]

    def as_dict(self):
        return {'seed': self.seed, 'faults': self.faults, 'only': self.only,
                'planned': self.planned, 'actions': self.actions, 'records': self.records,
                'nodes': self.nodes}

    @property
    def planned(self):
        return len(plan(self.seed, self.faults, self.only))

    def write(self, path):
        if path is not None:
            temporary = path.with_name(path.name + '.part')
            temporary.write_text(json.dumps(self.as_dict(), indent=1) + '\n')
            temporary.replace(path)

    @classmethod
    def read(cls, path, seed, faults, only):
        """Go on with the run in a file, or begin a new one."""
        if path is None or not path.exists():
            return cls(seed, faults, only)
        written = json.loads(path.read_text())
        written.pop('planned', None)
        run = cls(**written)
        if (run.seed, run.faults, run.only) != (seed, faults, only):
            raise SystemExit(f'{path} holds a run of {run.faults} faults with seed {run.seed}; '
                             'give another file, or the same options to go on with it')
        return run


class Session:
    """A node of one setup, driving, into which faults are injected."""

    def __init__(self, name, folder, seed):
        self.name, self.setup = name, SETUPS[name]
        self.settings = self.setup.settings
        ledger = Ledger()
        self.witness = Witness(ledger, self.settings, sim=self.setup.sim,
                               numbered=self.setup.numbered)
        self.bench = Bench(
            folder, self.witness, program=self.setup.program, compressed=self.setup.compressed,
            model='embedded', **self.setup.parameters)
        self.stream = Stream(
            self.bench, ledger, seed, sim=self.setup.sim, compressed=self.setup.compressed,
            camera_every=self.setup.camera_every)
        self.before = None

    def start(self):
        """Wait until the node drives; NodeIsLost if it never does."""
        self.wait_until_steady(START_PATIENCE)
        self.bench.find_services()
        self.wait_until_steady()
        self.before = self.bench.resources()

    def wait_until_steady(self, timeout=STEADY_WITHIN):
        """Wait for an action from now on; NodeIsLost without one."""
        assert self.bench.hears(), 'the campaign itself hears nothing any more'
        if not self.bench.is_up() or self.witness.wait(
                lambda heard: heard.status is Status.OK, timeout, time.monotonic()) is None:
            raise NodeIsLost(self.bench.words()[-2000:])

    def inject(self, kind, draw):
        """Inject one fault; return its record."""
        fault = KINDS[kind](draw, self.settings)
        self.wait_until_steady()
        self.stream.lateness.take()
        waited = self.bench.waited()
        begun = time.monotonic()
        fault.begin(self.bench, self.stream, self.witness)
        report, ended = self._watch(fault)
        if fault.burdens_machine:  # what it did to the machine itself excuses nothing
            self.stream.lateness.take()
            waited = self.bench.waited()
        recovered = self.witness.wait(
            lambda heard: heard.status is Status.OK and heard.shot is not None
            and heard.shot.sent >= ended, max(RECOVERY_PATIENCE, 2 * fault.recovery), ended)
        silence = None if fault.may_be_silent or recovered is None else \
            self.witness.longest_silence(begun, recovered.at)
        machine = self.stream.lateness.take() + max(
            (after - waited.get(thread, 0.0) for thread, after in self.bench.waited().items()),
            default=0.0)
        return {
            'kind': kind, 'setup': self.name, 'report': _since(report, fault.injected_at),
            'limit': fault.limit(self.stream) + self.setup.slack if fault.expected else None,
            'patience': _patience(fault, self.stream), 'recovery': _since(recovered, ended),
            'recovery_limit': fault.recovery + self.setup.slack,
            'silence': silence and round(silence, 4),
            'silence_limit': by_watchdog(self.settings) + self.setup.slack,
            'wrong': self.witness.take_wrong(), 'problems': fault.problems,
            'machine': round(machine, 4)}

    def _watch(self, fault):
        """Let the fault last; return who reported it, and when it was ended [s, monotonic]."""
        begun = time.monotonic()
        report = None
        if fault.expected:
            report = self.witness.wait(
                lambda heard: heard.at >= fault.injected_at and fault.reported_by(heard),
                _patience(fault, self.stream))
            fault.reported = report is not None
        time.sleep(max(0.0, begun + fault.duration - time.monotonic()))
        fault.end(self.bench, self.stream, self.witness)
        return report, time.monotonic()

    def close(self):
        """End the node; return what it leaves to say, as a dict."""
        self.stream.close()
        after = self.bench.resources() if self.bench.is_up() else None
        ended = self.bench.end(signal.SIGINT)
        self.bench.close()
        said = {'setup': self.name, 'before': self.before, 'after': after,
                'exit_status': ended and ended[0], 'exit_seconds': ended and round(ended[1], 2),
                'wrong': self.witness.take_wrong()}     # after the last fault
        said['fine'] = bool(ended and ended[0] == 0 and ended[1] <= EXIT_WITHIN
                            and not said['wrong'] and 'Traceback' not in self.bench.words()
                            and not has_grown(self.before, after))
        if not said['fine']:
            said['log'] = self.bench.words()[-2000:]
        return said


def has_grown(before, after):
    """Return whether a node's resources, see Bench, rose more than by caches and lazy threads."""
    return bool(before and after and any(
        after[what] > share * before[what] + more for what, (share, more) in MAY_GROW.items()))


def _patience(fault, stream):
    """Return how many s a report is waited for, so that a late one is measured."""
    return REPORT_PATIENCE + fault.limit(stream)


def _since(heard, begin):
    return None if heard is None else round(heard.at - begin, 4)


def excused(record):
    """Return whether a late report or recovery is explained by the machine's own measured delay."""
    if record['wrong'] or record['problems'] or record['recovery'] is None:
        return False
    report = record['report'] if record['report'] is not None else record['patience']
    late = max(record['recovery'] - record['recovery_limit'],
               report - record['limit'] if record['limit'] is not None else 0.0,
               (record['silence'] or 0.0) - record['silence_limit'])
    return late <= EXCUSE * record['machine']


def attempt(session, seed, index, kind):
    """Inject a fault, again if the machine was late itself; return its record."""
    wrong = []
    for number in range(1, ATTEMPTS + 1):
        record = session.inject(kind, random.Random(f'{seed}-{index}'))
        record |= {'index': index, 'attempts': number, 'set_aside': False}
        # A wrong action is wrong however often the fault is repeated.
        record['wrong'] = wrong = wrong + record['wrong']
        if not outcome(record) or not excused(record):
            return record
    return record | {'set_aside': True}


@contextmanager
def session_of(run, path, name, folder):
    """Start a driving node in a graph of its own; note in the run what it leaves behind."""
    with locked_domain() as domain, tempfile.TemporaryDirectory(dir=folder) as logs:
        os.environ.update(environment(domain, logs))
        session = Session(name, Path(logs), run.seed)
        try:
            session.start()
            yield session
        finally:
            run.actions += sum(session.witness.counts.values())
            run.nodes.append(session.close())
            run.write(path)


def carry_out(run, path, say):
    """Inject what is left of a run; NodeIsLost when a node does not even begin to drive."""
    left = run.left()
    with tempfile.TemporaryDirectory(prefix='owled_ros-faults-') as folder:
        while left:
            name = left[0][1]
            say(f'starting a node: {name}')
            with session_of(run, path, name, folder) as session:
                while left and left[0][1] == name:
                    lost = not _one(run, session, left.pop(0), say)
                    if len(run.records) % SAVE_EVERY == 0:
                        run.write(path)
                        say(f'{len(run.records)} of {run.faults} faults')
                    if lost:
                        break


def _one(run, session, fault, say):
    """Inject one fault of the plan; False when the node is lost and another one is needed."""
    index, name, kind = fault
    try:
        record = attempt(session, run.seed, index, kind)
    except Exception as error:  # whatever it was, it must not be lost with the record
        record = {'kind': kind, 'setup': name, 'index': index, 'attempts': 1, 'set_aside': False,
                  'report': None, 'limit': None, 'patience': 0.0, 'recovery': None,
                  'recovery_limit': 0.0, 'silence': None, 'silence_limit': 0.0,
                  'wrong': session.witness.take_wrong(), 'machine': 0.0,
                  'problems': [f'the node was lost: {type(error).__name__}: {error}']}
    run.records.append(record)
    if outcome(record):
        say(f'{kind} ({name}, {index}): {outcome(record)[:SAID]}'
            + (' [set aside]' if record['set_aside'] else ''))
    return record['recovery'] is not None


def finish(runs):
    """Print the table and the last line; return the exit status."""
    print('\n'.join(table(runs)))
    for node in (node for run in runs for node in run['nodes'] if not node['fine']):
        print(f'a node did not end well: {node}')
    numbers = summarise(runs)
    print(last_line(numbers))
    return 0 if passed(numbers) else 1


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='script/fault-campaign', description=__doc__.splitlines()[0],
        epilog='example: script/fault-campaign --faults 2000 --seed 1 --json seed1.json; '
        'script/fault-campaign --sum seed*.json')
    parser.add_argument('--faults', type=int, default=300, help='how many (300)')
    parser.add_argument('--seed', type=int, default=0, help='which ones (0)')
    parser.add_argument('--only', nargs='+', default=[], choices=sorted(KINDS), metavar='KIND',
                        help=f'only of these kinds: {", ".join(sorted(KINDS))}')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write the run here; go on with it if it is there already')
    parser.add_argument('--sum', type=Path, nargs='+', metavar='FILE',
                        help='inject nothing; sum up these runs')
    options = parser.parse_args(arguments)
    if options.sum:
        return finish([json.loads(path.read_text()) for path in options.sum])
    started = time.monotonic()

    def say(words):
        print(f'faults [{time.monotonic() - started:4.0f} s] {words}', flush=True)

    run = Run.read(options.json, options.seed, options.faults, options.only)
    try:
        carry_out(run, options.json, say)
    except NodeIsLost as lost:
        print(f'FAILED: a node does not drive here, without any fault; its last words:\n{lost}')
        return 1
    kinds = Counter(record['kind'] for record in run.records)
    say(f'{len(run.records)} faults of {len(kinds)} kinds')
    return finish([run.as_dict()])


if __name__ == '__main__':
    sys.exit(main())
