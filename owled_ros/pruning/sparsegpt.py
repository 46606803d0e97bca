"""
SparseGPT: pruning with a weight update that undoes what it can of each weight's loss.

Frantar and Alistarh 2023, arXiv 2301.00774, sec. 3 and algorithm 1.
"""

from contextlib import contextmanager

from owled_ros.pruning.patterns import choose, Cut, lowest_of_all
import torch

WIDTH = 128     # columns between which errors are spread one by one, as in the paper
DAMPING = 0.01  # of the mean of the Hessian's diagonal


def prune_by_sparsegpt(weight: torch.Tensor, statistic, cut: Cut):
    """
    Prune column by column, each weight's error spread over the columns to its right.

    :param weight: rows x columns
    :param statistic: ``InputHessian``, H = X^T X (columns x columns)
    """
    columns = weight.shape[1]
    weight = weight.clone()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    factor = inverse_factor(statistic.matrix())
    unused = statistic.norms() == 0
    group = cut.pattern[1] if cut.pattern else WIDTH    # columns whose mask is chosen together
    width = max(WIDTH // group, 1) * group
    for start in range(0, columns, width):
        end = min(start + width, columns)
        quota = end * cut.count // columns - start * cut.count // columns

        def choose_some(values, part):
            scores = (values / factor.diagonal()[start:end][part]).square()
            scores[:, unused[start:end][part]] = -1     # inputs that are always zero cost nothing
            return choose(scores, cut) if cut.pattern else lowest_of_all(scores, quota)

        mask[:, start:end], errors = _clear(
            weight[:, start:end], factor[start:end, start:end], group, choose_some)
        weight[:, end:] -= errors @ factor[start:end, end:]
    return weight.masked_fill(mask, 0), mask


def inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """
    Return the upper Cholesky factor of the inverse of a damped Hessian (sec. 3.3).

    Inputs that are always zero get a diagonal of one, so that the inverse exists. Where rounding
    makes the matrix indefinite the damping grows.
    """
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1
    step = DAMPING * diagonal.mean()
    for _ in range(8):
        diagonal += step
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            factor, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return factor
        step *= 10
    raise ArithmeticError('the Hessian of a projection cannot be inverted')


def _clear(weight: torch.Tensor, factor: torch.Tensor, group: int, choose_some):
    """
    Spread the errors of some columns' masked weights over the columns to their right, in place.

    :param group: columns whose mask is chosen at the first of them, with what was spread so far
    :param choose_some: (values of a group, rows x columns, and its slice) -> its mask
    :return: the mask and the errors (rows x columns), left to be spread beyond these columns
    """
    spread = weight.T.contiguous()      # columns x rows: what a step works on lies together
    mask = torch.zeros_like(spread, dtype=torch.bool)
    errors = torch.zeros_like(spread)
    with _one_thread():
        for column in range(len(spread)):
            if column % group == 0:
                part = slice(column, column + group)
                values = spread[part] - factor[:column, part].T @ errors[:column]
                mask[part] = choose_some(values.T, part).T
            spread[column] -= factor[:column, column] @ errors[:column]
            errors[column] = spread[column] * mask[column] / factor[column, column]
    weight.copy_(spread.T)
    return mask.T, errors.T


@contextmanager
def _one_thread():
    """Run in one thread: for steps this small several wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
