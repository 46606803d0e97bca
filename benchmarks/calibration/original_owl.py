"""
OWL with Wanda as its papers describe it: the procedure that ``calibration_cost.py`` compares with.

Written from the texts alone (Wanda, arXiv 2306.11695, sec. 3 and algorithm 1; OWL, arXiv
2310.05175, sec. 3.2). The whole model is in memory, and so are the inputs and the outputs of the
current block for all samples. The dense model is measured in one pass over all blocks; then every
block is run twice, for its statistics and, once pruned, for the inputs of the next. That makes
three forward passes.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM


class _Caught(Exception):
    """The inputs of the first block have been seen."""


class OriginalOwl:
    """
    A decoder of the Llama family, in float32 as a whole, and its calibration samples.

    :param directory: a model that transformers loads
    :param samples: token ids (1 x tokens each), all of the same length
    :param passed: is told whenever a block is finished, in either pass
    :param only_blocks: go through so many blocks and then leave; None for all
    """

    def __init__(self, directory: Path, samples: list[torch.Tensor], passed=lambda step: None,
                 only_blocks: int | None = None):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.model.config.use_cache = False
        self.samples = samples
        self._passed = passed
        self._blocks = list(self.model.model.layers)[:only_blocks]

    @torch.no_grad()
    def prune(self, sparsity: float, *, threshold: float = 5.0, width: float = 0.08) -> None:
        """
        Prune in place.

        :param sparsity: mean over the blocks
        :param threshold: M
        :param width: lambda
        """
        shares = self._measure_outliers(threshold)
        for block, share in zip(self._run_twice(), allocate(shares, sparsity, width)):
            for linear, squares in block:
                _prune(linear, squares, share)

    def _measure_outliers(self, threshold: float) -> list[float]:
        """Return D of every block, on the dense model."""
        inputs, call = self._inputs_of_first_block()
        outputs = torch.zeros_like(inputs)
        shares = []
        for number, block in enumerate(self._blocks):
            squares = self._run(block, inputs, outputs, call, watched=True)
            scores = torch.cat([_scores(linear, s).flatten() for linear, s in squares.items()])
            shares.append((scores > threshold * scores.mean()).float().mean().item())
            inputs, outputs = outputs, inputs
            self._passed(f'measured block {number}')
        return shares

    def _run_twice(self):
        """Yield, for every block, its linear layers with the squared norms of their inputs."""
        inputs, call = self._inputs_of_first_block()
        outputs = torch.zeros_like(inputs)
        for number, block in enumerate(self._blocks):
            yield self._run(block, inputs, outputs, call, watched=True).items()
            self._run(block, inputs, outputs, call, watched=False)
            inputs, outputs = outputs, inputs
            self._passed(f'pruned block {number}')

    def _inputs_of_first_block(self) -> tuple[torch.Tensor, dict]:
        """Return the hidden states (samples x tokens x width) and what else a block is given."""
        config = self.model.config
        shape = (len(self.samples), self.samples[0].shape[1], config.hidden_size)
        inputs, call = torch.zeros(shape), {}
        rows = iter(inputs)

        def catch(module, args, kwargs):
            next(rows).copy_(args[0][0])
            call.update(kwargs)
            raise _Caught

        hook = self._blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
        for sample in self.samples:
            try:
                self.model(sample)
            except _Caught:
                pass
        hook.remove()
        return inputs, call

    def _run(self, block, inputs, outputs, call, *, watched: bool) -> dict:
        """Run a block on all samples; return ||X_j||^2 of its linear layers if it is watched."""
        squares, hooks = {}, []

        def add(linear, args):
            squares[linear] += args[0].flatten(0, 1).square().sum(0)

        for linear in block.modules():
            if watched and isinstance(linear, nn.Linear):
                squares[linear] = torch.zeros(linear.in_features)
                hooks.append(linear.register_forward_pre_hook(add))
        for index in range(len(self.samples)):
            result = block(inputs[index][None], **call)
            outputs[index] = (result[0] if isinstance(result, tuple) else result)[0]
        for hook in hooks:
            hook.remove()
        return squares


def allocate(shares: list[float], sparsity: float, width: float) -> list[float]:
    """Return every block's sparsity: outlier shares scaled to [0, 2 lambda], mean kept."""
    found = torch.tensor(shares, dtype=torch.float64)
    spread = found.max() - found.min()
    if spread == 0:     # the paper does not say: nothing tells the blocks apart
        return [sparsity] * len(shares)
    scaled = (found - found.min()) / spread * 2 * width
    return (sparsity - scaled + scaled.mean()).tolist()


def _scores(linear: nn.Linear, squares: torch.Tensor) -> torch.Tensor:
    """Return |W_ij| ||X_j|| (rows x columns)."""
    return linear.weight.abs() * squares.sqrt()


def _prune(linear: nn.Linear, squares: torch.Tensor, sparsity: float) -> None:
    """Clear the lowest scores of every row."""
    order = _scores(linear, squares).sort(dim=1, stable=True).indices
    linear.weight.data.scatter_(1, order[:, :int(linear.in_features * sparsity)], 0)
