"""
Allocation by the loss itself: one threshold over W^2 F for all projections.

F is the mean over sequences of the squared gradient of the loss, so that W^2 F / 2 is what
clearing a weight costs to second order (Optimal Brain Damage, LeCun et al. 1990; with the Fisher
information for the Hessian, arXiv 1801.05787, sec. 2). The backward pass is streamed as the
forward pass is: block outputs are put aside on the way up, and blocks are taken in reverse.
"""

from collections.abc import Sequence
from dataclasses import replace

from owled_ros.pruning.lane import Lane
from owled_ros.pruning.measuring import advance_and_collect, Subject, walk
from owled_ros.pruning.structure import Block, Chain
import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

BACKWARD = 3.0      # forward passes that going back takes as long as: once forward again, two back
LOWEST, HIGHEST, BINS = -40.0, 10.0, 1000   # of log10(W^2 F)
BINNED = 1 << 20    # values that are binned together: a bin's number takes eight bytes


def fisher_passes(subject: Subject) -> float:
    """Return how many forward passes of all samples measuring takes as long as."""
    return 1 + BACKWARD


def measure_fisher(subject: Subject) -> dict[str, list[int]]:
    """Return a histogram of log10(W^2 F) for every projection to be pruned."""
    everything = [replace(chain, taps=tuple(range(len(chain.blocks))))
                  for chain in subject.chains]
    lane = Lane('fisher', subject.model, everything, subject.samples, subject.stash)
    for chain, position, _ in walk(replace(subject, chains=everything), 'forward through'):
        advance_and_collect(subject, lane, chain, position)
    backward = _Backward(subject, lane)
    histograms = backward.through_head()
    sought = sum(len(projections) for projections in subject.chosen.values())
    for number in reversed(range(len(everything))):
        if len(histograms) == sought:   # nothing below is going to be pruned
            backward.leave(everything[:number + 1])
            break
        histograms |= backward.through_chain(number)
        histograms |= backward.through_glue(number)
    lane.close()
    return histograms


class _Backward:
    """The gradients on their way down, put aside between steps like activations."""

    def __init__(self, subject: Subject, lane: Lane):
        self._subject = subject
        self._lane = lane
        self._stash = subject.stash

    def through_head(self) -> dict[str, list[int]]:
        """
        Bring every sample's loss to the block outputs that the head reads.

        :return: the histograms of the head's projections
        """
        chosen, weights, squares = self._sought(self._subject.chains[-1].exit)
        for index in range(len(self._lane.samples)):
            leaves = self._tap_leaves(index, self._subject.chains)
            parts = self._lane.predicted(index)
            gradients = [None] * len(weights)
            for places in parts:
                with torch.enable_grad():
                    loss = self._lane.loss(index, places, leaves) / sum(map(len, parts))
                found = self._push(index, leaves, [loss], None, weights)
                gradients = [_sum(one, other) for one, other in zip(gradients, found)]
            _add_squares(squares, gradients)
        return self._histograms(chosen, weights, squares)

    def through_chain(self, number: int) -> dict[str, list[int]]:
        """Go down a chain block by block; return the histograms of its projections."""
        chain = self._lane.chains[number]
        model = self._subject.model
        self._lane.enter(chain)
        histograms = {}
        for position in reversed(range(len(chain.blocks))):
            block = chain.blocks[position]
            self._subject.begin(f'backward through {block.component} block {block.name}')
            model.load(block.name)
            histograms |= self._through_block(chain, position, block, keep_call=number > 0)
            model.release(block.name)
            self._subject.end(block, BACKWARD)
        return histograms

    def through_glue(self, number: int) -> dict[str, list[int]]:
        """
        Go down from what a chain was called with to the chains before it.

        :return: the histograms of the projections on this way
        """
        if number == 0:
            return {}
        chain = self._lane.chains[number]
        chosen, weights, squares = self._sought(chain.entry)
        for index in range(len(self._lane.samples)):
            key = ('fisher', 'call gradients', index)
            if key not in self._stash:
                continue
            leaves = self._tap_leaves(index, self._subject.chains[:number])
            with torch.enable_grad():
                call = self._lane.run_to_root(index, chain, leaves)
            pairs = [(tensor, gradient) for tensor, gradient in zip(
                _floats(call), self._stash.get(key)) if gradient is not None
                and tensor.requires_grad]
            if pairs and leaves:
                _add_squares(squares, self._push(
                    index, leaves, *map(list, zip(*pairs)), weights))
            self._stash.drop(key)
        return self._histograms(chosen, weights, squares)

    def leave(self, chains: list[Chain]) -> None:
        """Forget the gradients of chains that are not gone through."""
        for chain in chains:
            for position, block in enumerate(chain.blocks):
                for index in range(len(self._lane.samples)):
                    self._stash.drop(('fisher', 'gradient', index, chain.root, position))
                self._subject.end(block, BACKWARD)

    def _through_block(self, chain: Chain, position: int, block: Block, keep_call: bool) -> dict:
        chosen, weights, squares = self._sought(block)
        for index in self._lane.present():
            arriving = self._arriving(index, chain, position)
            if arriving is None:
                continue
            call = self._lane.call(index)
            floats = [tensor.requires_grad_() for tensor in _floats(call)] if keep_call else []
            below = None
            if position:
                below = self._lane.output(index, chain, position - 1).requires_grad_()
            with torch.enable_grad():
                hidden = self._lane.run_block(call, chain, position, below)
            wanted = [*weights, *floats, *([below] if position else [])]
            if not wanted:
                continue
            found = torch.autograd.grad(hidden, wanted, arriving, allow_unused=True)
            _add_squares(squares, found[:len(weights)])
            self._keep_call_gradients(index, found[len(weights):len(weights) + len(floats)])
            if position and found[-1] is not None:
                self._add(index, chain, position - 1, found[-1])
        return self._histograms(chosen, weights, squares)

    def _sought(self, block: Block) -> tuple:
        """Return a block's projections, their weights and zeros to add squared gradients to."""
        module = self._subject.model.module
        chosen = self._subject.chosen.get(block.name, ())
        weights = [module.get_submodule(p.name).weight.requires_grad_() for p in chosen]
        return chosen, weights, [torch.zeros_like(weight) for weight in weights]

    def _histograms(self, chosen, weights, squares) -> dict[str, list[int]]:
        for weight in weights:
            weight.requires_grad_(False)    # outside of blocks it stays in memory
        processes = self._subject.processes
        count, = processes.sum_numbers(len(self._lane.samples))
        return {p.name: histogram(weight.detach().square() * processes.sum(square) / count)
                for p, weight, square in zip(chosen, weights, squares)}

    def _keep_call_gradients(self, index: int, found) -> None:
        if not found:
            return
        key = ('fisher', 'call gradients', index)
        before = self._stash.get(key) if key in self._stash else [None] * len(found)
        self._stash.put(key, [_sum(one, other) for one, other in zip(before, found)])

    def _tap_leaves(self, index: int, chains: list[Chain]) -> dict:
        found = {(chain.root, position): self._lane.output(index, chain, position)
                 for chain in chains for position in chain.taps}
        return {key: tensor.requires_grad_() for key, tensor in found.items()
                if tensor is not None}

    def _push(self, index: int, leaves: dict, outputs: list, gradients: list | None,
              weights: Sequence[torch.Tensor] = ()) -> Sequence[torch.Tensor | None]:
        """Bring gradients to leaves, where they are kept; return those of weights."""
        found = torch.autograd.grad(outputs, [*leaves.values(), *weights], gradients,
                                    allow_unused=True)
        roots = {chain.root: chain for chain in self._lane.chains}
        for (root, position), gradient in zip(leaves, found):
            if gradient is not None:
                self._add(index, roots[root], position, gradient)
        return found[len(leaves):]

    def _arriving(self, index: int, chain: Chain, position: int) -> torch.Tensor | None:
        key = ('fisher', 'gradient', index, chain.root, position)
        if key not in self._stash:
            return None
        gradient = self._stash.get(key)
        self._stash.drop(key)
        return gradient

    def _add(self, index: int, chain: Chain, position: int, gradient: torch.Tensor) -> None:
        key = ('fisher', 'gradient', index, chain.root, position)
        before = self._stash.get(key) if key in self._stash else None
        self._stash.put(key, _sum(before, gradient))


def fisher(shares, sparsity: float, settings) -> list[float]:
    """
    Prune what costs least, whatever projection it is in.

    The threshold on W^2 F is bisected until the mean sparsity is the target; every projection's
    sparsity stays within 2 lambda below and lambda above it.
    """
    low = max(0.0, sparsity - 2 * settings.outlier_width)
    high = sparsity + settings.outlier_width
    histograms = torch.tensor([share.evidence for share in shares], dtype=torch.float64)
    below = functional.pad(histograms.cumsum(1), (1, 0)) / histograms.sum(1, keepdim=True)
    weights = torch.tensor([share.count for share in shares], dtype=torch.float64)
    weights /= weights.sum()

    def sparsities(threshold: float) -> torch.Tensor:
        whole = min(int(threshold), BINS - 1)
        part = threshold - whole
        return (below[:, whole] * (1 - part) + below[:, whole + 1] * part).clamp(low, high)

    start, end = 0.0, float(BINS)
    for _ in range(60):
        middle = (start + end) / 2
        if (sparsities(middle) * weights).sum() < sparsity:
            start = middle
        else:
            end = middle
    return sparsities(end).tolist()


def histogram(costs: torch.Tensor) -> list[int]:
    """Return how many values lie in each of the bins of their logarithm."""
    counts = torch.zeros(BINS, dtype=torch.int64, device=costs.device)
    for part in costs.flatten().split(BINNED):
        scaled = (part.log10() - LOWEST) / (HIGHEST - LOWEST) * BINS
        counts += torch.bincount(scaled.clamp_(0, BINS - 1).long(), minlength=BINS)
    return counts.tolist()


def _add_squares(squares: Sequence[torch.Tensor], gradients: Sequence) -> None:
    for square, gradient in zip(squares, gradients):
        if gradient is not None:
            square += gradient.square()


def _floats(tree) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree)
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _sum(one, other):
    if one is None or other is None:
        return other if one is None else one
    return one + other
