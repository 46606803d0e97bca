"""
Samples and a model in, a sparser model and its report out.

Two passes. The first measures the dense model, where the allocation asks for it. The second goes
block by block: statistics of the block with what the pruned blocks before it put out, prune,
write, and on with the output of the pruned block. With dense statistics the first pass collects
them, and the second needs no calibration sample. Besides, held-out samples go through the dense
and the pruned blocks, to tell what pruning does to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
import hashlib
import importlib.metadata
import json
from pathlib import Path
import shutil

from owled_ros.errors import UserError
from owled_ros.pruning.allocation import allocate, ALLOCATIONS, Share, share_out
from owled_ros.pruning.archive import Archive
from owled_ros.pruning.lane import labels_of, Lane
from owled_ros.pruning.measuring import measure_outliers, outlier_shares, Subject, walk
from owled_ros.pruning.methods import METHODS
from owled_ros.pruning.patterns import Cut, parse_pattern
from owled_ros.pruning.processes import Processes, Stopped
from owled_ros.pruning.progress import (
    Forecast,
    Progress,
    put_in_place,
    read_record,
    RECORD,
    sync_files,
    write_durably,
)
from owled_ros.pruning.report import write_report
from owled_ros.pruning.settings import PruningSettings
from owled_ros.pruning.shards import hash_weights, INDEX, Shards
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector
from owled_ros.pruning.streaming import all_finite, find_device, StreamedModel
from owled_ros.pruning.structure import Block, Chain, ENTRY, find_chains, Projection
import safetensors
from safetensors import SafetensorError
import torch
import transformers

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
COMPARED = 4    # held-out samples whose hidden states are compared, dense with pruned
PRUNED_IN = 8   # the time that as many samples take to go forward, for the forecast alone
OTHER_WEIGHTS = ('.safetensors', '.bin', '.pt', '.pth', '.ckpt', '.gguf', '.onnx', '.h5',
                 '.msgpack', '.py')
RESULTS = (RECORD, 'report.html')


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
    :raises UserError: when something that was given cannot be used; nothing is left behind then.
        When a disk is full or a process has ended; what is done is kept, and the same call goes on

    Processes that torchrun has started share the work when each makes the same call; the first
    one writes and tells, and all return the same.
    """
    model_dir, output = Path(model_dir), Path(output).resolve()
    processes = Processes.join(find_device(settings.device))
    if not processes.is_first:
        progress = _silent
    try:
        _check(model_dir, inputs, settings, output)
        run = _Run(model_dir, inputs, held_out, settings, progress, processes)
        finished = processes.from_first(lambda: _finished(output, run.fingerprint))
        if finished:
            progress(f'{output} holds the result of this very run already')
            return finished
        record = _carry_out(run, output, dict(describe or {}))
    except Exception as error:
        processes.fail(error)
        raise
    progress(f'The pruned model is in {output}')
    return record


def _carry_out(run: '_Run', output: Path, describe: dict) -> dict:
    """Let a run write beside the output, and move what it wrote there when it is whole."""
    partial = output.parent / f'.{output.name}.partial'
    steps = None
    try:
        steps = Progress(partial, run.fingerprint, run.processes)
        record = steps.result() or run.carry_out(partial, steps, describe)
        if run.processes.is_first:
            steps.clear()
            put_in_place(partial, output)
        run.processes.gather()
    except Stopped:
        raise
    except UserError:
        if steps is not None and run.processes.is_first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    except (OSError, SafetensorError) as error:
        raise Stopped(f'Pruning into {output} stopped: {error}. Mend that and run it again: '
                      'it goes on after the last finished block.') from error
    finally:
        if steps is not None:
            steps.close()
    return record


def _silent(line: str) -> None:
    """Tell nobody: the first process tells for all."""


class _Run:
    """One run of ``prune``: what all of its steps share."""

    def __init__(self, model_dir, inputs, held_out, settings, report, processes):
        self.processes = processes
        self.settings = settings
        self.allocation = ALLOCATIONS[settings.allocation]
        self.method = METHODS[settings.method]
        self.report = report
        self.inputs = interleave(inputs)
        self.loss_on = 'held-out samples' if held_out else 'calibration samples'
        self.held_out = interleave(held_out) if held_out else self.inputs[:COMPARED]
        self.model = StreamedModel(model_dir, find_device(settings.device))
        richest = max(self.inputs, key=len)
        self.chains = find_chains(self.model, _on_device(richest, self.model.device))
        self.chosen = self._choose()
        self._check_predictions()
        if len(self.inputs) < processes.count:
            raise UserError(f'{len(self.inputs)} calibration samples cannot be shared by '
                            f'{processes.count} processes: start fewer, or give more samples.')
        self.origin, self.data = processes.from_first(lambda: [
            {'name': model_dir.resolve().name, 'architecture': type(self.model.module).__name__,
             'dense_sha256': hash_weights(model_dir)},
            {'samples': len(self.inputs), 'sha256': hash_samples(self.inputs),
             'held_out_sha256': hash_samples(self.held_out)}])
        self.fingerprint = hash_text(json.dumps([
            self.settings.record(), self.origin, self.data, _versions(), self.loss_on,
            processes.count, (model_dir / 'config.json').read_text()]))
        self.compared = len(processes.share(self.held_out[:COMPARED]))
        self.held_out_samples = len(self.held_out)
        self.inputs = processes.share(self.inputs)
        self.held_out = processes.share(self.held_out)

    def carry_out(self, partial: Path, steps: Progress, describe: dict) -> dict:
        """Do all there is to do in a directory, or what an interrupted run left to do."""
        self.steps = steps
        if self.processes.is_first:
            for left in steps.work.glob('activations*'):
                shutil.rmtree(left)
        self.processes.gather()
        self.stash = Stash(steps.work / f'activations{self.processes.rank}',
                           self.settings.activation_bytes)
        self.archive = None
        if self.settings.statistics == 'dense':
            self.archive = Archive(steps.work / 'statistics', self.method.statistic)
        self.subject = Subject(self.model, self.chains, self.chosen, self.inputs, self.stash,
                               self.settings, self.report, self.archive, self.processes)
        measuring, pruning = self._passes()
        self.subject = replace(self.subject, forecast=Forecast(measuring + pruning))
        try:
            evidence = self._measure()
            counts = self._plan(evidence)
            outliers = evidence if self.allocation.measure is measure_outliers else {}
            if self.processes.is_first:
                self.model.shards.copy(partial)
            self.processes.gather()
            self.written = Shards(partial)
            blocks, losses = self._prune_all(counts, outliers)
        finally:
            self.stash.close()
        self.processes.gather()     # all have cleared their activations away
        return self.processes.from_first(
            lambda: self._finish(partial, describe, blocks, losses))

    def _finish(self, partial: Path, describe: dict, blocks: list[dict], losses: dict) -> dict:
        """Write all that there is besides weights, the record last of all."""
        copy_companions(self.model.directory, partial)
        text = json.dumps(self._record(partial, describe, blocks, losses), indent=1,
                          ensure_ascii=False, allow_nan=False)
        record = json.loads(text)
        write_report(record, partial)
        sync_files(partial)
        write_durably(partial / RECORD, (text + '\n').encode())
        return record

    def _choose(self) -> dict[str, tuple[Projection, ...]]:
        """Return the projections to prune, for the name of each block that has some."""
        chosen = {}
        for block in self._blocks():
            if block.component in self.settings.pruned_components:
                projections = tuple(p for p in block.projections if self._may_prune(p))
                if projections:
                    chosen[block.name] = projections
        found = {block.component for block in self._blocks() if block.name in chosen}
        head = self.chains[-1].exit.projections
        if 'head' in self.settings.pruned_components and (
                'head' not in found or any(self.model.is_shared(p.weight) for p in head)):
            raise UserError(f'The output head of {self.model.directory} cannot be pruned: it is '
                            'tied to the embeddings, or no linear layer, or is excluded. Leave '
                            'the component head away.')
        if not chosen:
            raise UserError(
                f'There is nothing to prune in {self.model.directory}: the components '
                f'{self.settings.components!r} and the expressions leave no projection.')
        for component in self.settings.component_sparsity:
            if component not in found:
                raise UserError(f'The {component} of {self.model.directory} has nothing to prune, '
                                'but is given a sparsity of its own: leave that away.')
        return chosen

    def _check_predictions(self) -> None:
        """Refuse samples of which the loss cannot be measured."""
        for samples in (self.inputs, self.held_out):
            if not any((labels_of(sample, self.model.module.config)[0, 1:] != -100).any()
                       for sample in samples):
                raise UserError('No sample has a token to predict, so that no loss can be '
                                'measured: give labels, or longer samples.')

    def _requested(self, blocks: list[dict]) -> float:
        """Return the sparsity asked for, over all components that were pruned."""
        if not self.settings.component_sparsity:
            return self.settings.sparsity
        weights = sum(block['weights'] for block in blocks)
        return sum(self.settings.sparsity_of(block['component']) * block['weights']
                   for block in blocks) / weights

    def _may_prune(self, projection: Projection) -> bool:
        if not self.settings.chooses(projection.name) or self.model.is_shared(projection.weight):
            return False
        pattern = parse_pattern(self.settings.pattern)
        if pattern and projection.columns % pattern[1]:
            raise UserError(
                f'{projection.name} has {projection.columns} inputs, not a multiple of the '
                f'pattern {self.settings.pattern}: leave it dense with an exclude expression.')
        on_disk = self.model.disk_name(projection.weight)
        if on_disk is None or self.model.shards.type_of(on_disk) not in FLOATS:
            raise UserError(
                f'The weight {projection.weight} is stored in {self.model.directory} in a form '
                'that cannot be pruned: save it in bf16, fp16 or fp32 with save_pretrained.')
        return True

    def _blocks(self) -> list[Block]:
        return [block for chain in self.chains for _, block in chain.steps()]

    def _dense_outliers(self) -> bool:
        return self.archive is not None or self.allocation.measure is measure_outliers

    def _passes(self) -> tuple[float, float]:
        """Return how many forward passes measuring and pruning take as long as, roughly."""
        measuring = 1.0 if self.archive else 0.0
        if self.allocation.measure and self.allocation.runs:
            measuring = self.allocation.passes(self.subject)
        held_out = (2 * len(self.held_out) + PRUNED_IN) / max(len(self.inputs), 1)
        return measuring, held_out + (0 if self.archive else 2)

    def _measure(self) -> dict:
        """Return what the allocation measures on the dense model, by block or projection."""
        measure = self.allocation.measure
        if measure is None and self.archive is None:
            return {}
        if (evidence := self.steps.load('evidence')) is None:
            evidence = measure(self.subject) if measure else {}
            if self.archive and not (measure and self.allocation.runs):
                measure_outliers(self.subject)      # fills the archive on its way
            evidence = self.processes.from_first(lambda: evidence)
            self.steps.save('evidence', evidence)
        else:
            self.subject.forecast.skip(self._passes()[0])
        return evidence

    def _plan(self, evidence: dict) -> dict[str, int]:
        """Return how many weights of each projection are pruned."""
        members = self._sharers()
        shares = [Share(component, sum(p.count for p in projections), evidence.get(name))
                  for name, component, projections in members]
        budgets = {}
        for (_, component, projections), sparsity in zip(
                members, allocate(shares, self.settings)):
            budget = budgets.setdefault(None if self.settings.joint else component, [])
            budget += [(projection, sparsity) for projection in projections]
        counts = {}
        for component, budget in budgets.items():
            limits = [p.count for p, _ in budget]
            total = round(self.settings.sparsity_of(component) * sum(limits))
            whole = share_out([p.count * sparsity for p, sparsity in budget], limits, total)
            counts |= {p.name: count for (p, _), count in zip(budget, whole)}
        return counts

    def _sharers(self) -> list[tuple[str, str, tuple[Projection, ...]]]:
        """Return what gets a share of the budget: its name, component and projections."""
        blocks = [block for block in self._blocks() if block.name in self.chosen]
        if self.allocation.by_projection:
            return [(projection.name, block.component, (projection,))
                    for block in blocks for projection in self.chosen[block.name]]
        return [(block.name, block.component, self.chosen[block.name]) for block in blocks]

    def _prune_all(self, counts, outliers) -> tuple[list[dict], dict]:
        """Prune block by block; return what is reported of the blocks, and the losses."""
        # With dense statistics no sample has to go through the pruned blocks to calibrate.
        calibration = Lane('calibration', self.model, self.chains,
                           [] if self.archive else self.inputs, self.stash)
        dense = Lane('dense', self.model, self.chains, self.held_out, self.stash)
        pruned = Lane('pruned', self.model, self.chains, self.held_out, self.stash)
        reports = []
        passed = []     # outside of blocks: runs again on the way to later chains and the loss
        last, measured = list(self.chosen)[-1], False
        for chain, position, block in walk(self.subject, 'pruning', self._passes()[1]):
            dense.advance(chain, position)
            if block not in chain.blocks:
                self._load_pruned(*passed)
                passed.append(block)
            report = self.steps.load(block.name)
            if report:
                self._load_pruned(block)
            elif block.name in self.chosen:
                report = self._prune_block(calibration, chain, position, counts, outliers)
            measured = measured or block.name == last   # nothing more is, behind it
            if not measured:
                calibration.advance(chain, position)
            pruned.advance(chain, position)
            if report:
                report['output_error'] = self._difference(dense, pruned, chain, position)
                self.steps.save(block.name, report)
                reports.append(report)
        losses = {}
        for lane in (dense, pruned):
            if lane is pruned:
                self._load_pruned(*passed)
            total, tokens = self.processes.sum_numbers(*lane.losses())
            losses |= {lane.name: total / max(tokens, 1), 'tokens': int(tokens)}
        return reports, losses | {'measured_on': self.loss_on, 'samples': self.held_out_samples}

    def _load_pruned(self, *blocks: Block) -> None:
        """Put the weights that were written in the place of the dense ones."""
        for projection in (p for block in blocks for p in self.chosen.get(block.name, ())):
            stored = self.written.read(self.model.disk_name(projection.weight))
            weight = self._weight(projection)
            weight.data = stored.to(weight.device, weight.dtype)

    def _prune_block(self, lane: Lane, chain: Chain, position: int, counts, outliers) -> dict:
        """
        Prune a block and write it; return what is reported of it.

        :param outliers: shares by name, if they were measured already
        """
        block = chain.at(position)
        projections = self.chosen[block.name]
        collector = self._statistics(lane, chain, position)
        if block.name in outliers:
            together, own = outliers[block.name], [outliers[p.name] for p in projections]
        else:
            together, own = outlier_shares(self.subject, projections, collector)
        pruned = self._prune_projections(projections, collector, counts)
        entries = [{
            'name': projection.name, 'shape': [projection.rows, projection.columns],
            **_tally([projection.count], [zeros]), 'outlier_share': outliers}
            for projection, zeros, outliers in zip(projections, pruned, own)]
        return {
            'name': block.name, 'component': block.component,
            **_tally([e['weights'] for e in entries], [e['pruned'] for e in entries]),
            'outlier_share': together, 'projections': entries}

    def _prune_projections(self, projections, collector, counts) -> list[int]:
        """Prune and write projections; return of how many weights. Processes take turns."""
        pattern = parse_pattern(self.settings.pattern)
        processes, found = self.processes, {}
        for projection in processes.share(projections):
            weight = self._weight(projection).data
            cut = Cut(counts[projection.name], pattern, self._seed(projection.name))
            new, mask = self.method.prune(weight, collector.of(projection), cut)
            new = new.to(self._type(projection))
            if not all_finite(new):
                raise UserError(f'The refitted weights of {projection.name} are too large for '
                                f'{str(new.dtype).removeprefix("torch.")}: save the model in '
                                'bf16, or choose a method that keeps weights, as wanda.')
            found[projection] = new, int(mask.sum())
        pruned = {}
        for known in processes.gather({p.name: count for p, (_, count) in found.items()}):
            pruned |= known
        for number, projection in enumerate(projections):
            weight = self._weight(projection)
            stored = (found.pop(projection)[0] if projection in found
                      else torch.empty_like(weight, dtype=self._type(projection)))
            processes.spread(stored, number % processes.count)
            if processes.is_first:
                self.written.write(self.model.disk_name(projection.weight), stored)
            weight.data = stored.float()
        return [pruned[projection.name] for projection in projections]

    def _weight(self, projection: Projection) -> torch.nn.Parameter:
        return self.model.module.get_submodule(projection.name).weight

    def _type(self, projection: Projection) -> torch.dtype:
        return self.model.shards.type_of(self.model.disk_name(projection.weight))

    def _difference(self, dense: Lane, pruned: Lane, chain: Chain, position: int) -> float | None:
        """
        Return the relative error of hidden states, over the first samples that have some.

        At a chain's entry these are what its first block is given; at its exit there are none.
        """
        if position == chain.end:
            return None
        errors, sizes = 0.0, 0.0
        for index in range(self.compared):
            expected, found = (lane.given(index, chain) if position == ENTRY
                               else lane.hidden(index) for lane in (dense, pruned))
            if expected is not None:
                errors += (found - expected).double().square().sum().item()
                sizes += expected.double().square().sum().item()
        errors, sizes = self.processes.sum_numbers(errors, sizes)
        return (errors / sizes) ** 0.5 if sizes else None

    def _statistics(self, lane: Lane, chain: Chain, position: int):
        """Return the statistics of a block's inputs; those of the dense model were kept."""
        block = chain.at(position)
        if self.archive:
            return self.archive.get(block, self.model.device)
        collector = Collector(self.model.module, self.chosen[block.name], self.method.statistic)
        lane.observe(chain, position, collector)
        collector.add_up(self.processes)
        return collector

    def _seed(self, name: str) -> int:
        """Return a seed that is the projection's own, in whatever order they are pruned."""
        return int(hash_text(f'{self.settings.seed} {name}')[:15], 16)

    def _record(self, partial: Path, describe: dict, blocks: list[dict], losses: dict) -> dict:
        total = _tally([b['weights'] for b in blocks], [b['pruned'] for b in blocks])
        return {
            'format': 1,
            'run': self.fingerprint,
            'settings': self.settings.record(),
            'processes': self.processes.count,
            'python': f'prune(MODEL, inputs, {self.settings.code()}, OUTPUT'
                      f'{", held_out=held_out" if self.loss_on.startswith("held") else ""})',
            'model': {**self.origin, 'sha256': hash_weights(partial)},
            'data': {**self.data, **describe},
            'sparsity': {
                'requested': self._requested(blocks),
                'measured': total['sparsity'],
                'prunable_weights': total['weights'],
                'pruned_weights': total['pruned'],
                'weights': self.model.shards.count(),
                'outliers_measured_on': 'the dense model' if self._dense_outliers()
                                        else 'the model as it is pruned',
            },
            'loss': losses,
            'blocks': blocks,
            'bytes': {'dense': self.model.shards.bytes(), 'pruned': self.written.bytes()},
            'versions': _versions(),
        }


def interleave(samples: Sequence) -> list:
    """
    Return samples in an order whose beginning, however short, is spread over all of them.

    Multiples of the golden ratio, modulo 1, never lie close together.
    """
    order = sorted(range(len(samples)), key=lambda index: (index + 1) * 0.6180339887498949 % 1)
    return [samples[index] for index in order]


def _tally(weights: list[int], pruned: list[int]) -> dict:
    return {'weights': sum(weights), 'pruned': sum(pruned), 'sparsity': sum(pruned) / sum(weights)}


def _versions() -> dict:
    return {
        'owled_ros': _own_version(),
        'safetensors': safetensors.__version__,
        'torch': torch.__version__,
        'transformers': transformers.__version__,
    }


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


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
    if not (output / RECORD).is_file():     # an earlier result is judged later
        check_free(output)
    check_place(output)
    if len(inputs) < settings.minimum_samples:
        raise UserError(f'{len(inputs)} calibration samples are too few: '
                        f'give at least {settings.minimum_samples}.')


def check_place(output: Path) -> None:
    """Refuse an output that could not be put in place as a whole."""
    if not output.parent.is_dir():
        raise UserError(f'There is no directory {output.parent} to put the output in.')
    if output.is_mount():
        raise UserError(f'The output {output} is a mount point, which cannot be put in place as a '
                        'whole: name a directory in it.')


def check_free(output: Path) -> None:
    """Refuse an output that holds something."""
    if _is_occupied(output):
        raise _occupied(output)


def _finished(output: Path, fingerprint: str) -> dict | None:
    """Return the record in an output that this very run has made; refuse any other content."""
    if not _is_occupied(output):
        return None
    record = read_record(output)
    if record is None or record['run'] != fingerprint:
        raise _occupied(output)
    return record


def _is_occupied(output: Path) -> bool:
    return output.exists() and (not output.is_dir() or any(output.iterdir()))


def _occupied(output: Path) -> UserError:
    return UserError(f'The output {output} already holds something: '
                     'choose another place or remove it.')


def copy_companions(source: Path, target: Path, *, results: bool = False) -> None:
    """
    Copy what belongs to a model besides its weights: config, tokenizer, processor, licence.

    :param results: the record and the report of an earlier run too
    """
    for path in sorted(source.iterdir()):
        if path.is_dir() and path.name == 'additional_chat_templates':
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        elif (path.is_file() and path.suffix not in OTHER_WEIGHTS and path.name != INDEX
                and not path.name.startswith('.') and (results or not _is_result(path))):
            shutil.copyfile(path, target / path.name)


def _is_result(path: Path) -> bool:
    return path.suffix == '.png' or path.name in RESULTS


def _on_device(sample: dict, device: torch.device) -> dict:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in sample.items() if name != 'labels'}


def _own_version() -> str:
    try:
        return importlib.metadata.version('owled_ros')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
