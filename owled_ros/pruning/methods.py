"""
Which weights of a projection go, and how the others are updated.

A method is a function of a weight matrix W (rows = outputs x columns = inputs, float32), what was
accumulated of its inputs, and the number of weights to prune. It returns the new weights and the
mask of those pruned (same shape, bool), exactly as many as asked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from owled_ros.pruning.statistics import InputNorms


@dataclass(frozen=True)
class Method:
    """
    A way to prune a projection.

    :param prune: (weight, statistic, number of weights to prune) -> (new weight, pruned mask)
    :param statistic: what it needs to know of the inputs
    """

    prune: Callable
    statistic: type = InputNorms


def wanda_scores(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Return |W_ij| * ||X_j||_2 (rows x columns) for input norms (columns,)."""
    return weight.abs() * norms


def prune_by_magnitude(weight, statistic, count):
    """Prune the smallest |W_ij| of the matrix (Han et al. 2015, arXiv 1506.02626, sec. 3)."""
    mask = lowest(weight.abs().reshape(1, -1), count).reshape(weight.shape)
    return weight.masked_fill(mask, 0), mask


def prune_by_wanda(weight, statistic, count):
    """
    Prune the smallest |W_ij| * ||X_j||_2 within every output row (Wanda, arXiv 2306.11695,
    sec. 3, eq. 1).
    """
    mask = lowest(wanda_scores(weight, statistic.norms()), count)
    return weight.masked_fill(mask, 0), mask


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """
    Choose the lowest scores within every row; ties go to the lower column.

    :param scores: rows x columns
    :param count: how many in all; a remainder goes to rows spread evenly over the matrix
    :return: mask (rows x columns, bool) with exactly ``count`` places set
    """
    rows, columns = scores.shape
    index = torch.arange(rows, device=scores.device)
    quota = (index + 1) * count // rows - index * count // rows     # (rows,), sums to count
    order = torch.argsort(scores, dim=1, stable=True)
    chosen = torch.arange(columns, device=scores.device) < quota[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, chosen)


METHODS = {
    'wanda': Method(prune_by_wanda),
    'magnitude': Method(prune_by_magnitude),
}
