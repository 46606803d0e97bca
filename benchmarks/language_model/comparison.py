"""What a difference between two pruned models is worth: means, intervals, percentiles."""

from collections.abc import Sequence
import random
from statistics import mean

DRAWS = 10_000


def paired_interval(ours: Sequence[float], theirs: Sequence[float],
                    share: float = 0.95) -> tuple[float, float]:
    """
    Return the bootstrap interval of the mean of ``theirs - ours``, documents drawn in pairs.

    :param ours: loss of each document [nats per token]; lower is better
    :param theirs: the other model's, of the same documents in the same order
    :raises ValueError: when the documents are not the same number
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f'{len(ours)} and {len(theirs)} losses are no pairs')
    gains = [b - a for a, b in zip(ours, theirs)]
    draw = random.Random(0)
    means = sorted(mean(draw.choices(gains, k=len(gains))) for _ in range(DRAWS))
    cut = round((1 - share) / 2 * DRAWS)
    return means[cut], means[-1 - cut]


def percentile(value: float, others: Sequence[float]) -> float:
    """Return the percentage of others that are above a value; half of those that are equal."""
    above = sum(other > value for other in others) + sum(o == value for o in others) / 2
    return 100 * above / len(others)


def spread(values: Sequence[float]) -> float:
    """Return half the range of some values: with three seeds no more can be said."""
    return (max(values) - min(values)) / 2
