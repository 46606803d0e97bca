"""
The weight update by ADMM, with a mask that is tightened gradually.

Boza 2024, arXiv 2401.02938, sec. 3: among all matrices with a given mask, the one whose outputs on
the calibration inputs are nearest to the dense ones; the mask grows by the cubic schedule of its
sec. 3.3 while the solution is approached.
"""

from owled_ros.pruning.patterns import choose, Cut, lowest_of_all
import torch

STEPS = 20
TIGHTENING = 15     # of the steps, during which the mask still grows
DAMPING = 0.1       # of the mean of the scaled Hessian's diagonal
PENALTY = 1.0       # rho


def prune_by_admm(weight: torch.Tensor, statistic, cut: Cut):
    """
    Prune by the magnitude of scaled weights, and refit those that stay.

    :param weight: rows x columns
    :param statistic: ``InputHessian``, H = X^T X (columns x columns)
    """
    norms = statistic.norms()
    norms = torch.where(norms == 0, torch.ones_like(norms), norms)
    hessian = statistic.matrix() / norms / norms[:, None]
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    scaled = weight * norms             # with unit inputs its magnitudes are Wanda's scores
    target = scaled @ hessian
    hessian.diagonal().add_(PENALTY)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    dual = torch.zeros_like(scaled)
    for step in range(STEPS):
        if step < TIGHTENING:
            mask = _mask(scaled + dual, cut, (step + 1) / TIGHTENING)
        sparse = (scaled + dual).masked_fill(mask, 0)
        dual += scaled - sparse
        scaled = (target + PENALTY * (sparse - dual)) @ inverse
    return (scaled + dual).masked_fill(mask, 0) / norms, mask


def _mask(weight: torch.Tensor, cut: Cut, progress: float) -> torch.Tensor:
    """
    Return what is pruned when a part of the schedule, in (0, 1], is done.

    An n:m pattern is kept to from the first step on.
    """
    if cut.pattern is not None:
        return choose(weight.abs(), cut)
    share = 1 - (1 - progress) ** 3
    return lowest_of_all(weight.abs(), round(cut.count * share))
