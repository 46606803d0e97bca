"""
How the budget is shared among blocks.

An allocation looks at the dense model as far as it needs to, and gives every prunable projection
a sparsity; ``share_out`` turns these into whole numbers of weights that meet the budget exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from owled_ros.errors import UserError
from owled_ros.pruning.alphapruning import measure_alpha
from owled_ros.pruning.fisher import fisher, fisher_passes, measure_fisher
from owled_ros.pruning.measuring import ablation_passes, measure_ablation, measure_outliers
from owled_ros.pruning.structure import OUTSIDE
import torch

HIGHEST = 0.99  # no block is pruned beyond this


@dataclass(frozen=True)
class Share:
    """
    A block, or a projection, that gets a share of a budget.

    :param count: its prunable weights
    :param evidence: what was measured of it on the dense model; None if nothing was
    """

    component: str
    count: int
    evidence: object = None


@dataclass(frozen=True)
class Allocation:
    """
    A way to share a budget among blocks.

    :param sparsities: (shares of the blocks of one budget, sparsity, settings) -> sparsity of
        each block, before clamping
    :param measure: (subject) -> evidence by name of block or projection, if it needs some
    :param by_projection: it is projections that get a share each, not blocks
    :param runs: measuring takes all samples through the model
    :param passes: (subject) -> how many forward passes of all samples that takes as long as
    :param compares_outside: projections of projector and output head are among those that are
        compared; else all of these get the sparsity asked for
    """

    sparsities: Callable
    measure: Callable | None = None
    by_projection: bool = False
    runs: bool = True
    passes: Callable = lambda subject: 1.0
    compares_outside: bool = False


def uniform(shares: Sequence[Share], sparsity: float, settings) -> list[float]:
    """Give every block the same sparsity."""
    return [sparsity] * len(shares)


def owl(shares: Sequence[Share], sparsity: float, settings) -> list[float]:
    """
    Keep more of the blocks with more outliers (OWL, arXiv 2310.05175, sec. 3.2).

    The outlier shares D are scaled to [0, 2 lambda]; block l keeps D_l - mean(D) + 1 - S. The
    original takes the plain mean; here blocks are weighted by their number of weights, which is
    the same when they are equal, and keeps the budget when they are not. Other evidence than
    outliers, where more of it asks for more to be kept, is mapped in the same way.
    """
    evidence = torch.tensor([share.evidence for share in shares], dtype=torch.float64)
    weights = torch.tensor([share.count for share in shares], dtype=torch.float64)
    spread = evidence.max() - evidence.min()
    if spread == 0:
        return uniform(shares, sparsity, settings)
    scaled = (evidence - evidence.min()) / spread * 2 * settings.outlier_width
    mean = (scaled * weights).sum() / weights.sum()
    return (sparsity - scaled + mean).tolist()


def shuffled(shares: Sequence[Share], sparsity: float, settings) -> list[float]:
    """Deal OWL's sparsities out to other blocks: the control that OWL has to beat."""
    order = torch.randperm(len(shares), generator=torch.Generator().manual_seed(settings.seed))
    found = owl(shares, sparsity, settings)
    return [found[i] for i in order.tolist()]


def at_random(shares: Sequence[Share], sparsity: float, settings) -> list[float]:
    """Draw sparsities within lambda of the target: another control."""
    draw = torch.rand(len(shares), generator=torch.Generator().manual_seed(settings.seed))
    return [sparsity + settings.outlier_width * (2 * value - 1) for value in draw.tolist()]


def rising(shares: Sequence[Share], sparsity: float, settings) -> list[float]:
    """
    Prune evenly more with depth, from lambda below the target to lambda above it.

    After ATP, arXiv 2502.14770, sec. 3.3.
    """
    steps = max(len(shares) - 1, 1)
    return [sparsity + settings.outlier_width * (2 * index / steps - 1)
            for index in range(len(shares))]


ALLOCATIONS = {
    'fisher': Allocation(fisher, measure_fisher, by_projection=True, compares_outside=True,
                         passes=fisher_passes),
    'owl': Allocation(owl, measure_outliers),
    'owl-projection': Allocation(owl, measure_outliers, by_projection=True),
    'ablation': Allocation(owl, measure_ablation, passes=ablation_passes),
    'alphapruning': Allocation(owl, measure_alpha, runs=False),
    'rising': Allocation(rising),
    'uniform': Allocation(uniform),
    'random': Allocation(at_random),
    'shuffled': Allocation(shuffled, measure_outliers),
}


def allocate(shares: Sequence[Share], settings) -> list[float]:
    """
    Return every block's sparsity, within [0, 0.99] and with the exact mean, weighted by count.

    Every component has a budget of its own, unless they share one (``settings.joint``).

    :raises UserError: when the clamps leave no way to meet a budget
    """
    allocation = ALLOCATIONS[settings.allocation]
    compared = [i for i, share in enumerate(shares)
                if share.component not in OUTSIDE or allocation.compares_outside]
    budgets = [None] if settings.joint else dict.fromkeys(shares[i].component for i in compared)
    result = [settings.sparsity_of(share.component) for share in shares]
    for component in budgets if compared else ():
        chosen = [i for i in compared if component in (None, shares[i].component)]
        sparsity = settings.sparsity_of(component)
        group = [shares[i] for i in chosen]
        clamped = clamp(allocation.sparsities(group, sparsity, settings),
                        [s.count for s in group], sparsity)
        for i, value in zip(chosen, clamped):
            result[i] = value
    return result


def clamp(sparsities: Sequence[float], counts: Sequence[int], target: float) -> list[float]:
    """
    Bring sparsities into [0, 0.99], and shift those inside so that their mean is the target.

    :param counts: weights of the mean
    :raises UserError: when the target is above what the clamps allow
    """
    if target > HIGHEST:
        raise UserError(f'A sparsity of {target} cannot be met, since no block is pruned beyond '
                        f'{HIGHEST}: give a lower one.')
    values = torch.tensor(sparsities, dtype=torch.float64)
    weights = torch.tensor(counts, dtype=torch.float64)
    weights /= weights.sum()

    def mean(shift):
        return ((values + shift).clamp(0, HIGHEST) * weights).sum().item()

    low, high = -values.max().item(), HIGHEST - values.min().item()
    if abs(mean(0.0) - target) > 1e-12:
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if mean(middle) < target else (low, middle)
        values = values + (low + high) / 2
    return values.clamp(0, HIGHEST).tolist()


def share_out(wanted: Sequence[float], limits: Sequence[int], total: int) -> list[int]:
    """
    Round numbers to whole ones with an exact sum: the largest remainders are rounded up.

    :param wanted: numbers whose sum is near ``total``
    :param limits: the most that each may become
    :raises ValueError: when the limits do not allow the total
    """
    if not 0 <= total <= sum(limits):
        raise ValueError(f'{total} cannot be shared out below limits of {sum(limits)} in all')
    shared = [min(int(number), limit) for number, limit in zip(wanted, limits)]
    order = sorted(range(len(shared)), key=lambda i: shared[i] - wanted[i])
    step = 1 if sum(shared) <= total else -1
    while (missing := abs(total - sum(shared))):
        movable = [i for i in order if 0 <= shared[i] + step <= limits[i]]
        for i in movable[:missing]:
            shared[i] += step
    return shared
