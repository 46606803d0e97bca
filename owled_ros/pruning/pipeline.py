"""
Samples and a model in, a sparser model and its report out.

Two passes. The first measures the dense model, where the allocation asks for it. The second goes
block by block: statistics of the block with what the pruned blocks before it put out, prune,
write, and on with the output of the pruned block. Besides, held-out samples go through the dense
and the pruned blocks, to tell what pruning does to them.
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
import transformers

from owled_ros.errors import UserError
from owled_ros.pruning.allocation import ALLOCATIONS, Share, allocate, share_out
from owled_ros.pruning.lane import Lane
from owled_ros.pruning.methods import METHODS, wanda_scores
from owled_ros.pruning.report import write_report
from owled_ros.pruning.settings import PruningSettings
from owled_ros.pruning.shards import hash_weights
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector, InputNorms
from owled_ros.pruning.streaming import StreamedModel, find_device
from owled_ros.pruning.structure import Block, Chain, Projection, find_chains

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
COMPARED = 4    # held-out samples whose hidden states are compared, dense with pruned
OTHER_WEIGHTS = ('.safetensors', '.bin', '.pt', '.pth', '.ckpt', '.gguf', '.onnx', '.h5',
                 '.msgpack', '.py')
OWN_FILES = ('owled.json', 'report.html', 'model.safetensors.index.json')


def prune(model_dir: str | Path, inputs: Sequence[dict], settings: PruningSettings,
          output: str | Path, *, held_out: Sequence[dict] | None = None,
          describe: Mapping | None = None, progress=print) -> dict:
    """
    Prune a model on calibration samples and write the result as a directory.

    :param model_dir: a directory that transformers loads, with safetensors weights
    :param inputs: calibration samples: the model's inputs by name, tensors of batch size 1
    :param settings: what is pruned, and how
    :param output: the directory to make: a model that transformers loads, ``owled.json``,
        ``report.html`` and pictures; it appears only when it is whole
    :param held_out: samples that the losses are measured on; the first calibration samples are
        taken when there are none
    :param describe: what is known of the data, put into ``owled.json`` as it is
    :param progress: told in a line what goes on
    :return: the content of ``owled.json``
    :raises UserError: when something that was given cannot be used; nothing is left behind then
    """
    model_dir, output = Path(model_dir), Path(output)
    _check(model_dir, inputs, settings, output)
    partial = output.parent / f'.{output.name}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _Run(model_dir, inputs, held_out, settings, partial, progress) as run:
            record = run.carry_out(dict(describe or {}))
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f'Pruning into {output} failed: {error}.')
        raise
    if output.exists():
        output.rmdir()
    partial.rename(output)
    progress(f'The pruned model is in {output}')
    return record


@dataclass
class _BlockRecord:
    """What is reported of a block."""

    block: Block
    projections: list[dict]
    outliers: float
    error: float | None = None          # of the output, pruned against dense, relative

    def as_json(self) -> dict:
        weights = sum(p['weights'] for p in self.projections)
        pruned = sum(p['pruned'] for p in self.projections)
        return {
            'name': self.block.name,
            'component': self.block.component,
            'weights': weights,
            'pruned': pruned,
            'sparsity': pruned / weights if weights else 0.0,
            'outlier_share': self.outliers,
            'output_error': self.error,
            'projections': self.projections,
        }


class _Run:
    """One run of ``prune``: what all of its steps share."""

    def __init__(self, model_dir, inputs, held_out, settings, partial, progress):
        self.settings = settings
        self.progress = progress
        self.partial = partial
        self.inputs = list(inputs)
        self.loss_on = 'held-out samples' if held_out else 'calibration samples'
        self.held_out = list(held_out or self.inputs[:COMPARED])
        self.model = StreamedModel(model_dir, find_device(settings.device))
        richest = max(self.inputs, key=len)
        self.chains = find_chains(self.model, _on_device(richest, self.model.device))
        self.chosen = self._choose()
        self.stash = Stash(partial / 'activations', settings.activation_bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stash.close()

    def carry_out(self, describe: dict) -> dict:
        outliers = self._measure() if self._needs_outliers() else {}
        counts = self._plan(outliers)
        self.partial.mkdir(exist_ok=True)
        self.written = self.model.shards.copy(self.partial)
        records, losses = self._prune_all(counts, outliers)
        _copy_companions(self.model.directory, self.partial)
        self.stash.close()
        record = self._record(describe, records, losses)
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        (self.partial / 'owled.json').write_text(text + '\n')
        record = json.loads(text)
        write_report(record, self.partial)
        return record

    def _choose(self) -> dict[str, tuple[Projection, ...]]:
        """Return the projections to prune, for the name of each block that has some."""
        chosen = {}
        for block in self._blocks():
            if block.component in self.settings.pruned_components:
                projections = tuple(p for p in block.projections if self._may_prune(p))
                if projections:
                    chosen[block.name] = projections
        if not chosen:
            raise UserError(
                f'There is nothing to prune in {self.model.directory}: the components '
                f'{self.settings.components!r} and the expressions leave no projection.')
        return chosen

    def _may_prune(self, projection: Projection) -> bool:
        if not self.settings.chooses(projection.name) or self.model.is_shared(projection.weight):
            return False
        on_disk = self.model.disk_name(projection.weight)
        if on_disk is None or self.model.shards.type_of(on_disk) not in FLOATS:
            raise UserError(
                f'The weight {projection.weight} is stored in {self.model.directory} in a form '
                'that cannot be pruned: save it in bf16, fp16 or fp32 with save_pretrained.')
        return True

    def _blocks(self) -> list[Block]:
        return [block for chain in self.chains for block in chain.blocks]

    def _needs_outliers(self) -> bool:
        return ALLOCATIONS[self.settings.allocation].needs_outliers

    def _measure(self) -> dict[str, float]:
        """Return the outlier share of every block of the dense model."""
        lane = Lane('measure', self.model, self.chains, self.inputs, self.stash)
        outliers = {}
        for chain, position, block in self._steps(lane, what='measuring'):
            projections = self.chosen.get(block.name, ())
            with Collector(self.model.module, projections, InputNorms) as collector:
                lane.advance(chain, position)
            if projections:
                outliers[block.name] = self._outliers(projections, collector)[0]
        lane.close()
        return outliers

    def _plan(self, outliers: dict[str, float]) -> dict[str, int]:
        """Return how many weights of each projection are pruned."""
        blocks = [block for block in self._blocks() if block.name in self.chosen]
        shares = [Share(block.component, sum(p.count for p in self.chosen[block.name]),
                        outliers.get(block.name)) for block in blocks]
        sparsities = allocate(shares, self.settings)
        budgets = {}
        for block, sparsity in zip(blocks, sparsities):
            budget = budgets.setdefault(None if self.settings.joint else block.component, [])
            budget += [(p, sparsity) for p in self.chosen[block.name]]
        counts = {}
        for component, members in budgets.items():
            limits = [p.count for p, _ in members]
            total = round(self.settings.sparsity_of(component) * sum(limits))
            whole = share_out([p.count * s for p, s in members], limits, total)
            counts |= {p.name: count for (p, _), count in zip(members, whole)}
        return counts

    def _prune_all(self, counts, outliers) -> tuple[list[_BlockRecord], dict]:
        """Prune block by block; return what is reported of the blocks, and the losses."""
        lanes = [Lane(name, self.model, self.chains, samples, self.stash)
                 for name, samples in (('calibration', self.inputs), ('dense', self.held_out),
                                       ('pruned', self.held_out))]
        calibration, dense, pruned = lanes
        records = []
        for chain, position, block in self._steps(*lanes, what='pruning'):
            dense.advance(chain, position)
            if block.name in self.chosen:
                records.append(self._prune_block(calibration, chain, position, counts))
            calibration.advance(chain, position)
            pruned.advance(chain, position)
            if block.name in self.chosen:
                records[-1].error = _difference(dense, pruned)
                records[-1].outliers = outliers.get(block.name, records[-1].outliers)
        losses = {}
        for lane in (dense, pruned):
            total, tokens = lane.losses()
            losses |= {lane.name: total / max(tokens, 1), 'tokens': tokens}
        return records, losses | {'measured_on': self.loss_on, 'samples': len(self.held_out)}

    def _steps(self, *lanes: Lane, what: str):
        """Go through all blocks with the lanes, each block's weights loaded for its step."""
        done, total = 0, len(self._blocks())
        for chain in self.chains:
            for lane in lanes:
                lane.enter(chain)
            for position, block in enumerate(chain.blocks):
                done += 1
                self.progress(f'{what} {block.component} block {block.name} ({done}/{total})')
                self.model.load(block.name)
                yield chain, position, block
                self.model.release(block.name)

    def _prune_block(self, lane: Lane, chain: Chain, position: int, counts) -> _BlockRecord:
        block = chain.blocks[position]
        projections = self.chosen[block.name]
        method = METHODS[self.settings.method]
        collector = Collector(self.model.module, projections, method.statistic)
        lane.observe(chain, position, collector)
        total, own = self._outliers(projections, collector)
        entries = []
        for projection, outliers in zip(projections, own):
            weight = self.model.module.get_submodule(projection.name).weight
            new, mask = method.prune(weight.data, collector.of(projection),
                                     counts[projection.name])
            weight.data = self._write(projection, new)
            entries.append({
                'name': projection.name, 'shape': [projection.rows, projection.columns],
                'weights': projection.count, 'pruned': int(mask.sum()),
                'sparsity': int(mask.sum()) / projection.count, 'outlier_share': outliers})
        return _BlockRecord(block, entries, total)

    def _write(self, projection: Projection, values: torch.Tensor) -> torch.Tensor:
        """Write new weights; return them as they will be read again."""
        name = self.model.disk_name(projection.weight)
        stored = values.to(self.model.shards.type_of(name))
        self.written.write(name, stored)
        return stored.float()

    def _outliers(self, projections, collector) -> tuple[float, list[float]]:
        """
        Return the share of Wanda scores above M times their mean.

        :return: over the block's projections together (OWL's D), and for each by itself
        """
        above = self.settings.outlier_threshold
        scores = [wanda_scores(self.model.module.get_submodule(p.name).weight.data,
                               collector.of(p).norms()) for p in projections]
        sums = [s.sum(dtype=torch.float64) for s in scores]
        count = sum(p.count for p in projections)
        mean = sum(sums) / count
        together = sum(int((s > above * mean).sum()) for s in scores) / count
        own = [int((s > above * total / s.numel()).sum()) / s.numel()
               for s, total in zip(scores, sums)]
        return together, own

    def _record(self, describe: dict, records: list[_BlockRecord], losses: dict) -> dict:
        blocks = [record.as_json() for record in records]
        weights = sum(block['weights'] for block in blocks)
        pruned = sum(block['pruned'] for block in blocks)
        return {
            'format': 1,
            'settings': self.settings.record(),
            'model': {
                'name': self.model.directory.resolve().name,
                'architecture': type(self.model.module).__name__,
                'dense_sha256': hash_weights(self.model.directory),
                'sha256': hash_weights(self.partial),
            },
            'data': {'samples': len(self.inputs), 'sha256': hash_samples(self.inputs),
                     **describe},
            'sparsity': {
                'requested': self.settings.sparsity,
                'measured': pruned / weights,
                'prunable_weights': weights,
                'pruned_weights': pruned,
                'outliers_measured_on': 'the dense model' if self._needs_outliers()
                                        else 'the model as it is pruned',
            },
            'loss': losses,
            'blocks': blocks,
            'bytes': self.model.shards.bytes(),
            'versions': {
                'owled_ros': _own_version(),
                'safetensors': safetensors.__version__,
                'torch': torch.__version__,
                'transformers': transformers.__version__,
            },
        }


def hash_samples(samples: Sequence[dict]) -> str:
    """Return the SHA-256 of samples: names, types, shapes and values, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        for name, value in sorted(sample.items()):
            if isinstance(value, torch.Tensor):
                digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
                digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            else:
                digest.update(f'{name} {value!r}'.encode())
    return digest.hexdigest()


def _check(model_dir: Path, inputs, settings: PruningSettings, output: Path) -> None:
    if not model_dir.is_dir():
        raise UserError(f'There is no model directory {model_dir}.')
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f'The output {output} already holds something: '
                        'choose another place or remove it.')
    if not output.parent.is_dir():
        raise UserError(f'There is no directory {output.parent} to put the output in.')
    if len(inputs) < settings.minimum_samples:
        raise UserError(f'{len(inputs)} calibration samples are too few: '
                        f'give at least {settings.minimum_samples}.')


def _difference(dense: Lane, pruned: Lane) -> float | None:
    """Return the relative error of hidden states, over the first samples that have some."""
    errors, sizes = 0.0, 0.0
    for index in range(min(COMPARED, len(dense.samples))):
        expected, found = dense.hidden(index), pruned.hidden(index)
        if expected is not None:
            errors += (found - expected).double().square().sum().item()
            sizes += expected.double().square().sum().item()
    return (errors / sizes) ** 0.5 if sizes else None


def _copy_companions(source: Path, target: Path) -> None:
    """Copy what belongs to a model besides its weights: config, tokenizer, processor, licence."""
    for path in sorted(source.iterdir()):
        if path.is_dir() and path.name == 'additional_chat_templates':
            shutil.copytree(path, target / path.name)
        elif (path.is_file() and path.suffix not in (*OTHER_WEIGHTS, '.png')
                and path.name not in OWN_FILES and not path.name.startswith('.')):
            shutil.copyfile(path, target / path.name)


def _on_device(sample: dict, device: torch.device) -> dict:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in sample.items() if name != 'labels'}


def _own_version() -> str:
    try:
        return importlib.metadata.version('owled_ros')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
