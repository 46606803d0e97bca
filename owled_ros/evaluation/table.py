"""The table: methods x sparsities x components x calibration data, measured cell by cell.

Every cell is a file, written when it is done, so that a run that was stopped goes on, and several
runs share the work. What the numbers say is worked out from the files alone (see findings.py and
table_report.py).
"""

from contextlib import contextmanager
from dataclasses import asdict, dataclass
import fcntl
import json
import os
from pathlib import Path
import re
from tempfile import TemporaryDirectory
import time
from typing import Any
import zlib

import numpy as np
from owled_ros.bags.samples import Sample
from owled_ros.calibration import Teacher
from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.driver.checkpoint import locate, weights_hash
from owled_ros.driver.driver import Driver
from owled_ros.errors import UserError
from owled_ros.evaluation.cases import scene_cases
from owled_ros.evaluation.closed_loop import CAMERA, drive_closed_loop, record
from owled_ros.evaluation.metrics import scores
from owled_ros.evaluation.open_loop import ask
from owled_ros.evaluation.quantising import quantise
from owled_ros.pruning import prune, PruningSettings
from owled_ros.scenes.drive import random_world, simulate
from owled_ros.scenes.expert import DEEDS, drive, REASONS
from owled_ros.scenes.recording import WHEELBASE
from owled_ros.scenes.render import render

# name -> what it is in PruningSettings. The others' statistics are taken as they were published.
METHODS: dict[str, dict[str, Any]] = {
    'magnitude': {'method': 'magnitude', 'allocation': 'uniform'},
    'random': {'method': 'random', 'allocation': 'uniform'},
    'Wanda': {'method': 'wanda', 'allocation': 'uniform', 'statistics': 'sequential'},
    'SparseGPT': {'method': 'sparsegpt', 'allocation': 'uniform', 'statistics': 'sequential'},
    'OWL+Wanda': {'method': 'wanda', 'allocation': 'owl', 'statistics': 'sequential'},
    'OWL+SparseGPT': {'method': 'sparsegpt', 'allocation': 'owl', 'statistics': 'sequential'},
    'ours': {},     # the default
}
OURS, DENSE, RANDOM = 'ours', 'dense', 'random'
BITS = {'int8': 8, 'int4': 4}
OWLS = ('OWL+Wanda', 'OWL+SparseGPT')
WITHOUT_DATA = ('magnitude', 'random')
WORLDS = 8      # drives that calibration frames come from
CLOSED = '.closed'  # how the names of closed-loop records end
FORMAT = 3      # of the cells' files; another one when the same settings come to other scores


@dataclass(frozen=True)
class Cell:
    """One pruned model, the dense one, one of fewer bits, or another to stand beside them."""

    method: str                 # of METHODS, or DENSE, or of BITS, or the name of another model
    sparsity: float = 0.0
    components: str = 'both'    # or 'vision' or 'language'
    data: str = 'driving'       # calibrated on, or 'other'
    seed: int = 0

    @property
    def name(self):
        if self.method not in METHODS:
            return self.method
        return f'{self.method}-{self.sparsity:.2f}-{self.components}-{self.data}-{self.seed}'


@dataclass(frozen=True)
class Plan:
    """What is measured, and on how much.

    scenes: of every cell; bar_scenes: of those that the bars compare (dense, and ours with both
    components at `bar_sparsity`). Extra seeds are for both components and driving data only; so is
    what lies beyond the sparsities, which is driven to find out where ours and OWL end.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    sparsities: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    beyond: tuple[float, ...] = (0.8, 0.9)
    components: tuple[str, ...] = ('both', 'vision', 'language')
    data: tuple[str, ...] = ('driving', 'other')
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 64
    scenes: int = 1000
    bar_scenes: int = 2000
    bar_sparsity: float = 0.5
    closed_sparsities: tuple[float, ...] = (0.5, 0.6, 0.7)
    drives: int = 200
    seconds: float = 60.0

    @classmethod
    def quick(cls):
        """Small enough to see in minutes that everything works; its numbers say nothing."""
        return cls(methods=('Wanda', 'OWL+Wanda', OURS), sparsities=(0.5,), beyond=(),
                   components=('both',), seeds=(0,), samples=8, scenes=24, bar_scenes=48,
                   closed_sparsities=(0.5,), drives=4, seconds=4.0)

    def cells(self):
        """All cells, those that are not pruned first."""
        found = [Cell(name) for name in (DENSE, *BITS)]
        for method in self.methods:
            for data in self.data[:1] if method in WITHOUT_DATA else self.data:
                found += [Cell(method, sparsity, components, data)
                          for components in self.components for sparsity in self.sparsities]
            found += [Cell(method, sparsity, 'both', self.data[0], seed)
                      for seed in self.seeds[1:] for sparsity in self.sparsities
                      if method != 'magnitude']
        return found + [Cell(method, sparsity) for method in (*OWLS, OURS)
                        if method in self.methods for sparsity in self.beyond]

    def scenes_of(self, cell):
        bar = Cell(OURS, self.bar_sparsity)
        compared = cell in (Cell(DENSE), bar)
        return max(self.scenes, self.bar_scenes) if compared else self.scenes


class Table:
    """The cells of one model in a folder, computed where they are missing."""

    def __init__(self, model, folder, plan, *, beside=None, device='auto', dtype='auto',
                 processes=None, progress=print):
        """beside: other models to measure too, as name -> directory."""
        self.model, self.plan, self.progress = locate(model), plan, progress
        # One backend for all cells: left to itself each would measure which is fastest now.
        self.load = {'device': device, 'dtype': dtype, 'backend': 'transformers'}
        self.processes, self.beside = processes, {
            check_name(name): locate(directory) for name, directory in (beside or {}).items()}
        self.hash = weights_hash(self.model)
        self.folder = Path(folder) / 'cells' / self.hash
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder.with_suffix('.lock'), 'a')
        self._cases, self._exchanges = [], {}

    def run(self):
        """Compute what is missing; return (open loop, closed loop): name of a cell -> record."""
        cells = self.plan.cells() + [Cell(name) for name in self.beside]
        opened = self.records(cells, '', self.open_key, self.open_loop)
        closed = self.records(self.closed_cells(opened), CLOSED, self.closed_key,
                              self.closed_loop)
        return opened, closed

    def records(self, cells, suffix, key_of, compute):
        """Return name of a cell -> its record, from its file or computed."""
        found, total = {}, len(cells)
        for wait in False, True:    # last those that another run was at; it may have ended early
            for number, cell in enumerate(cells, 1):
                if cell.name not in found:
                    self.progress(f'{number} of {total}: {cell.name}{suffix}')
                    record = self.cached(cell.name + suffix, key_of(cell), compute, cell, wait)
                    found |= {} if record is None else {cell.name: record}
        return {cell.name: found[cell.name] for cell in cells}

    def closed_cells(self, opened):
        """Return the dense model, ours, and the best OWL by E_lon, where the plan drives."""
        found = [Cell(DENSE)]
        for sparsity in (*self.plan.closed_sparsities, *self.plan.beyond):
            owls = [Cell(name, sparsity) for name in OWLS if name in self.plan.methods]
            owls = [cell for cell in owls if cell.name in opened]
            found += sorted(owls, key=lambda c: np.mean(opened[c.name]['scores']['E_lon']))[:1]
            found += [Cell(OURS, sparsity)] if OURS in self.plan.methods else []
        return found

    # -- files -----------------------------------------------------------------------------

    def cached(self, name, key, compute, cell, wait):
        """
        Read a cell's record, or compute and write it; one of another key is made again.

        None if another run is computing it, and not to `wait` for that.
        """
        path = self.folder / f'{name}.json'
        found = _read(path, key)
        if found is not None:
            return found
        with self.held(name, wait) as mine:
            if not mine:
                return None
            found = _read(path, key)    # of the run that was waited for
            if found is None:
                started = time.monotonic()
                found = {'key': key, 'cell': asdict(cell), **compute(cell),
                         'seconds': round(time.monotonic() - started, 1)}
                _write(path, found)
        return found

    @contextmanager
    def held(self, name, wait):
        """
        Hold the right to compute a cell, and yield True; False: another process holds it.

        Between processes only: a process should make one Table of a folder.
        """
        # A byte of one file stands for each cell; what a process locked is free when it ends.
        place = zlib.crc32(name.encode())
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError:     # a file system without locks: every run is on its own
            yield True
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, place)

    def open_key(self, cell):
        return {**self.shared_key(cell), 'scenes': self.plan.scenes_of(cell)}

    def closed_key(self, cell):
        return {**self.shared_key(cell), 'drives': self.plan.drives, 'seconds': self.plan.seconds}

    def shared_key(self, cell):
        """Return what decides a cell's model, ready for JSON."""
        key = {'format': FORMAT, 'model': self.hash, 'settings': self.settings_of(cell),
               'samples': self.plan.samples, 'dtype': self.load['dtype']}
        return json.loads(json.dumps(key))

    def settings_of(self, cell):
        """Return what decides a cell's model besides the dense one; defaults may change."""
        if cell.method in self.beside:
            return {'model': weights_hash(self.beside[cell.method])}
        if cell.method not in METHODS:
            return {'bits': BITS.get(cell.method)}
        return pruning_of(cell).record()

    # -- computing -------------------------------------------------------------------------

    def open_loop(self, cell):
        """Prune, and ask about the held-out scenes; one score per scene and metric."""
        count = self.plan.scenes_of(cell)
        with TemporaryDirectory(dir=self.folder) as room:
            started = time.monotonic()
            directory = self.pruned(cell, room)
            pruning = round(time.monotonic() - started, 1)
            driver = Driver.load(directory, **self.load)
            answers = ask(driver, self.cases(count))
        return {'pruning_seconds': pruning, 'sparsity': driver.measured_sparsity,
                'scores': {name: [None if np.isnan(value) else round(float(value), 6)
                                  for value in column]
                           for name, column in scores(answers, WHEELBASE).items()}}

    def closed_loop(self, cell):
        with TemporaryDirectory(dir=self.folder) as room:
            driver = Driver.load(self.pruned(cell, room), **self.load)
            outcomes, experts = drive_closed_loop(
                driver, self.plan.drives, self.plan.seconds, processes=self.processes,
                progress=self.progress)
        return {'outcomes': record(outcomes), 'expert': record(experts)}

    def pruned(self, cell, room):
        """Return the directory of a cell's model, made in `room` unless it is there already."""
        if cell.method == DENSE:
            return self.model
        if cell.method in self.beside:
            return self.beside[cell.method]
        output = Path(room) / 'pruned'
        if cell.method in BITS:
            quantise(self.model, output, BITS[cell.method])
            return output
        prune(self.model, self.exchanges(cell.data, cell.seed),
              pruning_of(cell), output, progress=lambda text: None)
        return output

    def cases(self, count):
        if len(self._cases) < count:
            self.progress(f'rendering {count} held-out scenes')
            self._cases = list(scene_cases(count, width=CAMERA[0], height=CAMERA[1]))
        return self._cases[:count]

    def exchanges(self, data, seed):
        """Calibration samples: prompts with answers, as a model's inputs."""
        if (data, seed) not in self._exchanges:
            make = {'driving': driving_samples, 'other': other_samples}[data]
            teacher = Teacher(self.model)
            self._exchanges[data, seed] = [
                teacher.exchange(sample) for sample in make(self.plan.samples, seed)]
        return self._exchanges[data, seed]


def pruning_of(cell):
    """Return the PruningSettings of a cell whose method is of METHODS."""
    return PruningSettings(**METHODS[cell.method], sparsity=cell.sparsity,
                           components=cell.components, seed=cell.seed)


def check_name(name):
    """Return how a model beside the others is called; raises UserError where that cannot be."""
    if name in (*METHODS, *BITS, DENSE) or not re.fullmatch(r'\w+', name):
        raise UserError(f'{name!r} cannot be the name of a model beside the others: give letters '
                        f'and digits, and none of {", ".join((DENSE, *BITS, *METHODS))}')
    return name


def _read(path, key):
    """Return a record, or None if it is not there, not whole, or of another key."""
    try:
        found = json.loads(path.read_text())
        return found if found['key'] == key else None
    except (OSError, ValueError, KeyError):
        return None


def _write(path, record):
    partial = path.with_suffix('.partial')
    with open(partial, 'w') as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


# -- what is calibrated on ----------------------------------------------------------------------

def driving_samples(count, seed):
    """Frames of the expert's drives through worlds that no evaluation uses."""
    random = np.random.default_rng((seed, 5))
    moments = []
    for world in range(WORLDS):
        drawn = random_world(1000 * seed + world, width=CAMERA[0], height=CAMERA[1])
        moments += [moment for moment in simulate(drawn, drive, 40.0, think=0.5)
                    if moment.decided]
    for index in sorted(random.choice(len(moments), count, replace=False)):
        moment = moments[index]
        yield Sample(render(moment.scene), moment.ego, Command(
            speed_limit=moment.scene.speed_limit), moment.verdict.action, moment.verdict.text,
            stamp=int(index), bag='')


def other_samples(count, seed):
    """Draw what has nothing to do with driving: smooth coloured noise, and random answers to it."""
    import cv2
    random = np.random.default_rng((seed, 6))
    words = ' '.join([*DEEDS.values(), *REASONS.values()]).split()  # others it cannot write
    for index in range(count):
        coarse = random.integers(0, 255, (random.integers(2, 24), random.integers(2, 32), 3))
        frame = cv2.resize(coarse.astype(np.uint8), CAMERA, interpolation=cv2.INTER_CUBIC)
        action = Action(float(random.uniform(-8, 3)), float(random.uniform(-0.08, 0.08)),
                        Maneuver(int(random.integers(1, 6))))
        yield Sample(frame, EgoState(float(random.uniform(0, 17))), Command(), action,
                     ' '.join(random.choice(words, 24)), stamp=index, bag='')
