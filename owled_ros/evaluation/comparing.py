"""Is one model better than another, on the same frames or drives? Bootstrap and Holm.

Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16; Holm, A Simple
Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979).
"""

from dataclasses import dataclass
import math

import numpy as np

RESAMPLES = 4000
CHUNK = 200  # resamples drawn at a time, to bound the memory


@dataclass(frozen=True)
class Comparison:
    """How a model's mean differs from another's, over `pairs` that both have a score for.

    difference and its two-sided 95 % interval (low, high); the one-sided 95 % bounds
    (at_least, at_most); the same bound of the ratio of the means less 1; p, two-sided, of no
    difference, which is exact where all scores are 0 or 1.
    """

    pairs: int
    difference: float
    low: float
    high: float
    at_least: float
    at_most: float
    ratio: float
    ratio_at_most: float
    p: float


def interval(column, seed=0):
    """Return the mean of an array (NaN left out) and its 95 % interval: (mean, low, high)."""
    counted = column[~np.isnan(column)]
    if not len(counted):
        return (math.nan,) * 3
    means = resampled_means(counted[:, None], seed)[:, 0]
    return float(counted.mean()), *map(float, np.percentile(means, (2.5, 97.5)))


def compare(ours, theirs, seed=0):
    """Return the Comparison of two arrays of scores of the same frames; NaN where one has none.

    The longer one is cut: frames come in the same order for every model.
    """
    count = min(len(ours), len(theirs))
    pairs = np.stack([ours[:count], theirs[:count]], 1)
    pairs = pairs[~np.isnan(pairs).any(1)]
    if not len(pairs):
        return Comparison(0, *(math.nan,) * 8)
    means = resampled_means(pairs, seed)
    differences = means[:, 0] - means[:, 1]
    ours_mean, theirs_mean = pairs.mean(0)
    with np.errstate(divide='ignore', invalid='ignore'):
        ratios = means[:, 0] / means[:, 1] - 1
        ratio = ours_mean / theirs_mean - 1
        # Both without an error: no growth. Theirs without one alone: growth without a bound.
        ratio_at_most = np.percentile(np.nan_to_num(ratios, nan=0.0, posinf=np.inf), 95,
                                      method='higher')  # between infinities there is nothing
    low, at_least, at_most, high = np.percentile(differences, (2.5, 5, 95, 97.5))
    return Comparison(
        len(pairs), float(ours_mean - theirs_mean), float(low), float(high), float(at_least),
        float(at_most), float(ratio), float(ratio_at_most),
        sign_test(pairs[:, 0] - pairs[:, 1]) if np.isin(pairs, (0, 1)).all()
        else p_value(differences))


def resampled_means(columns, seed):
    """Means of rows drawn again with replacement: (n, k) -> (RESAMPLES, k)."""
    random, means = np.random.default_rng(seed), []
    for _ in range(RESAMPLES // CHUNK):
        rows = random.integers(0, len(columns), (CHUNK, len(columns)))
        means.append(columns[rows].mean(1))
    return np.concatenate(means)


def p_value(differences):
    """Two-sided p of no difference, from resampled differences; never 0."""
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))


def sign_test(differences):
    """
    Return the exact two-sided p of no difference between pairs that succeed or fail.

    McNemar's test: where pairs differ, either is as often the better one. Few drives fail, and
    what a bootstrap says of those few is too sure.
    """
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2 ** count)


def holm(p_values):
    """Return the p values adjusted by Holm's step-down procedure, in the order given."""
    count, adjusted, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
