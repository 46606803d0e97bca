"""What allocations measure on the dense model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from owled_ros.pruning.lane import Lane
from owled_ros.pruning.patterns import Cut, choose
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector, InputNorms, wanda_scores
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import Chain, Projection

ABLATED_WITH = 8    # samples: every block has a run of its own


@dataclass(frozen=True)
class Subject:
    """
    The dense model and its calibration samples.

    :param chosen: the projections to prune, for the name of each block that has some
    :param tell: is told in a line what goes on
    """

    model: StreamedModel
    chains: list[Chain]
    chosen: dict[str, tuple[Projection, ...]]
    samples: list[dict]
    stash: Stash
    settings: object
    tell: Callable


def walk(subject: Subject, lanes: Sequence[Lane], what: str):
    """
    Go through all blocks with some lanes, each block's weights loaded for its step.

    :return: yields chain, position in it, and block
    """
    done, total = 0, sum(len(chain.blocks) for chain in subject.chains)
    for chain in subject.chains:
        for lane in lanes:
            lane.enter(chain)
        for position, block in enumerate(chain.blocks):
            done += 1
            subject.tell(f'{what} {block.component} block {block.name} ({done}/{total})')
            subject.model.load(block.name)
            yield chain, position, block
            subject.model.release(block.name)


def measure_outliers(subject: Subject) -> dict[str, float]:
    """Return the outlier share of every block, and of every projection by itself."""
    lane = Lane('measure', subject.model, subject.chains, subject.samples, subject.stash)
    outliers = {}
    for chain, position, block in walk(subject, [lane], 'measuring'):
        projections = subject.chosen.get(block.name, ())
        with Collector(subject.model.module, projections, InputNorms) as collector:
            lane.advance(chain, position)
        if projections:
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
    scores = [wanda_scores(subject.model.module.get_submodule(p.name).weight.data,
                           collector.of(p).norms()) for p in projections]
    sums = [s.sum(dtype=torch.float64) for s in scores]
    count = sum(p.count for p in projections)
    mean = sum(sums) / count
    together = sum(int((s > above * mean).sum()) for s in scores) / count
    own = [int((s > above * total / s.numel()).sum()) / s.numel()
           for s, total in zip(scores, sums)]
    return together, own


def measure_ablation(subject: Subject) -> dict[str, float]:
    """
    Return by how much the loss rises when one block alone is pruned, for each block.

    Only forward passes: every block that was reached so far has a lane in which it was the one
    that was pruned, by Wanda at the target sparsity, and all lanes go on through the dense rest.
    """
    samples = subject.samples[:ABLATED_WITH]
    dense = Lane('dense', subject.model, subject.chains, samples, subject.stash)
    lanes = [dense]
    for chain, position, block in walk(subject, lanes, 'ablating'):
        forks = []
        if block.name in subject.chosen:
            collector = Collector(subject.model.module, subject.chosen[block.name], InputNorms)
            dense.observe(chain, position, collector)
            forks.append(dense.fork(block.name))
        for lane in lanes:
            lane.advance(chain, position)
        for lane in forks:
            _prune_in_memory(subject, block, collector)
            lane.advance(chain, position)
        lanes += forks
    losses = {}
    for lane in lanes:
        total, tokens = lane.losses()
        losses[lane.name] = total / max(tokens, 1)
        lane.close()
    return {name: loss - losses['dense'] for name, loss in losses.items() if name != 'dense'}


def _prune_in_memory(subject: Subject, block, collector: Collector) -> None:
    sparsity = subject.settings.sparsity_of(block.component)
    for projection in subject.chosen[block.name]:
        weight = subject.model.module.get_submodule(projection.name).weight
        scores = wanda_scores(weight.data, collector.of(projection).norms())
        weight.data = weight.data.masked_fill(
            choose(scores, Cut(round(sparsity * projection.count))), 0)
