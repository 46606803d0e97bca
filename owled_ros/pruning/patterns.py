"""Which places of a matrix of scores are chosen: the lowest, in the number and pattern asked."""

from dataclasses import dataclass

from owled_ros.errors import UserError
import torch


@dataclass(frozen=True)
class Cut:
    """
    How much of a weight matrix is pruned.

    :param count: number of weights to prune, exactly
    :param pattern: (n, m) when n of every m neighbours in a row are kept, else None
    :param seed: for methods that draw
    """

    count: int
    pattern: tuple[int, int] | None = None
    seed: int = 0


def parse_pattern(text: str) -> tuple[int, int] | None:
    """
    Read a pattern as 'n:m', n of m neighbours kept; '' and 'unstructured' are None.

    :raises UserError: when it is neither
    """
    if text in ('', 'unstructured'):
        return None
    kept, _, of = text.partition(':')
    if kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of):
        return int(kept), int(of)
    raise UserError(f'The pattern {text!r} cannot be read: write unstructured, or n:m with n '
                    'below m, as in 2:4.')


def choose(scores: torch.Tensor, cut: Cut) -> torch.Tensor:
    """
    Choose what is pruned within every row, or within every group of a pattern.

    :param scores: rows x columns, the lowest go
    :return: mask (rows x columns, bool) with exactly ``cut.count`` places set
    """
    if cut.pattern is None:
        return lowest(scores, cut.count)
    kept, of = cut.pattern
    groups = scores.reshape(-1, of)
    return lowest(groups, groups.shape[0] * (of - kept)).reshape(scores.shape)


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """
    Choose the lowest scores within every row; ties go to the lower column.

    :param scores: rows x columns
    :param count: how many in all; a remainder goes to rows spread evenly over the matrix
    :return: mask (rows x columns, bool) with exactly ``count`` places set
    """
    rows = scores.shape[0]
    index = torch.arange(rows, device=scores.device)
    quota = (index + 1) * count // rows - index * count // rows     # (rows,), sums to count
    sizes = quota.unique().tolist()
    if len(sizes) == 1 and sizes[0]:
        return _lowest_of_rows(scores, sizes[0])
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for size in sizes:
        if size:
            chosen = quota == size
            mask[chosen] = _lowest_of_rows(scores[chosen], size)
    return mask


def _lowest_of_rows(scores: torch.Tensor, size: int) -> torch.Tensor:
    """Choose the ``size`` lowest of every row: selecting takes half the time of sorting."""
    highest = scores.kthvalue(size, dim=1, keepdim=True).values
    mask = scores <= highest
    tied = (torch.count_nonzero(mask, 1) > size).nonzero()[:, 0]
    if len(tied):
        some, limit = scores[tied], highest[tied]
        below, equal = some < limit, some == limit
        mask[tied] = below | equal & (equal.cumsum(1) <= size - below.sum(1, keepdim=True))
    return mask


def lowest_of_all(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Choose the ``count`` lowest scores of a whole matrix; ties go to the first."""
    return lowest(scores.reshape(1, -1), count).reshape(scores.shape)
