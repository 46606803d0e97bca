"""What allocations measure on the dense model."""

from collections.abc import Callable
from dataclasses import dataclass

from owled_ros.pruning.archive import Archive
from owled_ros.pruning.lane import Lane
from owled_ros.pruning.patterns import choose, Cut
from owled_ros.pruning.processes import ALONE, Processes
from owled_ros.pruning.progress import Forecast
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector, InputNorms, wanda_scores
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import Block, Chain, Projection
import torch

SCORED = 1 << 17    # weights whose scores are made together: they stay in a core's cache
ABLATED_WITH = 8    # samples: every block has a run of its own


@dataclass(frozen=True)
class Subject:
    """
    The dense model and its calibration samples.

    :param chosen: the projections to prune, for the name of each block that has some
    :param archive: where the statistics of all blocks are kept while they are gone through; None
        when they are not needed afterwards
    :param tell: is told in a line what goes on
    :param processes: that go through the model together, each with samples of its own
    :param forecast: is told what is done, in forward passes of all samples
    """

    model: StreamedModel
    chains: list[Chain]
    chosen: dict[str, tuple[Projection, ...]]
    samples: list[dict]
    stash: Stash
    settings: object
    tell: Callable
    archive: Archive | None = None
    processes: Processes = ALONE
    forecast: Forecast | None = None

    def ablated_with(self) -> int:
        """Return how many of the first samples here are among those of the ablation."""
        return len(self.processes.share(range(ABLATED_WITH)))

    def begin(self, what: str) -> None:
        """Tell what is begun, and how long all will take."""
        self.tell(what + (self.forecast.left() if self.forecast else ''))

    def end(self, block: Block, passes: float) -> None:
        """Note that a block is done, in the time that it takes to go forward so often."""
        if self.forecast:
            weights = sum(block.count for chain in self.chains for block in chain.blocks)
            self.forecast.add(passes * block.count / weights)


def walk(subject: Subject, what: str, passes: float = 1.0):
    """
    Go through all chains, each block's dense weights loaded for its step.

    Lanes have to be advanced by the caller, at the entry of each chain too.

    :param passes: that it takes as long as, of all samples, for the time left
    :return: yields chain, position in it (``ENTRY`` first, ``end`` last), and block
    """
    steps = [(chain, *step) for chain in subject.chains for step in chain.steps()]
    told = [block.name for chain, _, block in steps
            if block in chain.blocks or block.name in subject.chosen]
    for chain, position, block in steps:
        if block.name in told:
            subject.begin(f'{what} {block.component} block {block.name} '
                          f'({told.index(block.name) + 1}/{len(told)})')
        if block in chain.blocks:
            subject.model.load(block.name)
            yield chain, position, block
            subject.model.release(block.name)
            subject.end(block, passes)
        else:
            yield chain, position, block
            _restore_outside(subject)


def _restore_outside(subject: Subject) -> None:
    """Load the dense weights outside of blocks again: they stay in memory, and may be pruned."""
    for block in (block for chain in subject.chains for block in (chain.entry, chain.exit)):
        for projection in subject.chosen.get(block.name, ()):
            subject.model.load(projection.name)


def advance_and_collect(subject: Subject, lane: Lane, chain: Chain, position: int) -> Collector:
    """Take a lane through a block of the dense model; return the statistics of its inputs."""
    block = chain.at(position)
    projections = subject.chosen.get(block.name, ())
    statistic = subject.archive.statistic if subject.archive else InputNorms
    collector = Collector(subject.model.module, projections, statistic)
    if projections and position == chain.end:
        lane.observe(chain, position, collector)
    with collector:
        lane.advance(chain, position)
    collector.add_up(subject.processes)
    if subject.archive and projections and subject.processes.is_first:
        subject.archive.put(block, projections, collector)
    return collector


def measure_outliers(subject: Subject) -> dict[str, float]:
    """Return the outlier share of every block, and of every projection by itself."""
    lane = Lane('measure', subject.model, subject.chains, subject.samples, subject.stash)
    outliers = {}
    for chain, position, block in walk(subject, 'measuring'):
        collector = advance_and_collect(subject, lane, chain, position)
        if (projections := subject.chosen.get(block.name)):
            outliers[block.name], own = outlier_shares(subject, projections, collector)
            outliers |= {p.name: share for p, share in zip(projections, own)}
    lane.close()
    return outliers


def outlier_shares(subject: Subject, projections, collector) -> tuple[float, list[float]]:
    """
    Return the share of Wanda scores above M times their mean (OWL, arXiv 2310.05175, sec. 3.2).

    :param projections: of a block whose weights are loaded
    :param collector: has seen the block's inputs
    :return: over the block's projections together (D), and for each by itself
    """
    above = subject.settings.outlier_threshold

    def scores(projection):
        weight = subject.model.module.get_submodule(projection.name).weight.data
        norms = collector.of(projection).norms()
        buffer = torch.empty_like(weight[:max(SCORED // projection.columns, 1)])
        for rows in weight.split(len(buffer)):
            yield wanda_scores(rows, norms, out=buffer[:len(rows)])

    sums = [sum(part.sum(dtype=torch.float64) for part in scores(p)) for p in projections]
    count = sum(p.count for p in projections)
    mean = sum(sums) / count
    together, own = 0, []
    for projection, total in zip(projections, sums):
        alone = 0
        for part in scores(projection):
            together += int(torch.count_nonzero(part > above * mean))
            alone += int(torch.count_nonzero(part > above * total / projection.count))
        own.append(alone / projection.count)
    return together / count, own


def measure_ablation(subject: Subject) -> dict[str, float]:
    """
    Return by how much the loss rises when one block alone is pruned, for each block.

    Only forward passes, and no paper's: the plainest measure of what a block is worth. Every
    block that was reached so far has a lane in which it was the one that was pruned, by Wanda at
    the target sparsity, and all lanes go on through the dense rest.
    """
    samples = subject.samples if subject.archive else subject.samples[:subject.ablated_with()]
    dense = Lane('dense', subject.model, subject.chains, samples, subject.stash)
    lanes = [dense]
    for chain, position, block in walk(subject, 'ablating', ablation_passes(subject)):
        ablated = None
        if block.name in subject.chosen and block in chain.blocks:
            ablated = dense.fork(block.name, subject.ablated_with())
        collector = advance_and_collect(subject, dense, chain, position)
        for lane in lanes[1:]:
            lane.advance(chain, position)
        if ablated:
            _prune_in_memory(subject, block, collector)
            ablated.advance(chain, position)
            lanes.append(ablated)
    lanes[0] = dense.fork('all dense', subject.ablated_with())
    dense.close()
    losses = []
    for lane in lanes:
        total, tokens = subject.processes.sum_numbers(*lane.losses())
        losses.append(total / max(tokens, 1))
        lane.close()
    return {lane.name: loss - losses[0] for lane, loss in zip(lanes[1:], losses[1:])}


def ablation_passes(subject: Subject) -> float:
    """Return how many forward passes of all samples an ablation takes as long as."""
    count = max(len(subject.samples), 1)
    dense = 1 if subject.archive else min(ABLATED_WITH / count, 1)
    return dense + min(ABLATED_WITH, count) / count * len(subject.chosen) / 2


def _prune_in_memory(subject: Subject, block, collector: Collector) -> None:
    sparsity = subject.settings.sparsity_of(block.component)
    for projection in subject.chosen[block.name]:
        weight = subject.model.module.get_submodule(projection.name).weight
        scores = wanda_scores(weight.data, collector.of(projection).norms())
        weight.data = weight.data.masked_fill(
            choose(scores, Cut(round(sparsity * projection.count))), 0)
