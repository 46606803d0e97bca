"""
Which weights of a projection go, and how the others are updated.

A method is a function of a weight matrix W (rows = outputs x columns = inputs, float32), what was
accumulated of its inputs, and the cut to make. It returns the new weights and the mask of those
pruned (same shape, bool), exactly as many as asked.
"""

from collections.abc import Callable
from dataclasses import dataclass

from owled_ros.pruning.admm import prune_by_admm
from owled_ros.pruning.patterns import choose, Cut, lowest_of_all
from owled_ros.pruning.sparsegpt import prune_by_sparsegpt
from owled_ros.pruning.statistics import InputHessian, InputNorms, wanda_scores
import torch


@dataclass(frozen=True)
class Method:
    """
    A way to prune a projection.

    :param prune: (weight, statistic, cut) -> (new weight, pruned mask)
    :param statistic: what it needs to know of the inputs
    """

    prune: Callable
    statistic: type = InputNorms


def prune_by_magnitude(weight, statistic, cut: Cut):
    """Prune the smallest |W_ij| of the matrix (Han et al. 2015, arXiv 1506.02626, sec. 3)."""
    scores = weight.abs()
    mask = choose(scores, cut) if cut.pattern else lowest_of_all(scores, cut.count)
    return weight.masked_fill(mask, 0), mask


def prune_by_wanda(weight, statistic, cut: Cut):
    """
    Prune the smallest |W_ij| * ||X_j||_2 within every output row.

    Wanda, arXiv 2306.11695, sec. 3, eq. 1.
    """
    mask = choose(wanda_scores(weight, statistic.norms()), cut)
    return weight.masked_fill(mask, 0), mask


def prune_at_random(weight, statistic, cut: Cut):
    """Prune weights drawn within every output row: the control that a method has to beat."""
    draw = torch.Generator().manual_seed(cut.seed)
    mask = choose(torch.rand(weight.shape, generator=draw).to(weight.device), cut)
    return weight.masked_fill(mask, 0), mask


METHODS = {
    'admm': Method(prune_by_admm, InputHessian),
    'sparsegpt': Method(prune_by_sparsegpt, InputHessian),
    'wanda': Method(prune_by_wanda),
    'magnitude': Method(prune_by_magnitude),
    'random': Method(prune_at_random),
}
