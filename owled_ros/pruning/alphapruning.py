"""
Allocation by the shape of the weights' spectra, without any data.

After AlphaPruning (Lu et al. 2024, arXiv 2410.10912, sec. 3): a trained layer's spectrum has a
heavy tail, the heavier the better it was trained, and such a layer can spare the fewest weights.
"""

from owled_ros.pruning.measuring import Subject
import torch

SMALLEST = 1e-6     # of the largest eigenvalue: below it is rounding


def measure_alpha(subject: Subject) -> dict[str, float]:
    """
    Return minus the exponent of the tail for every block: the mean over its projections.

    The heavier the tail, the smaller the exponent, and the more of the block is kept.
    """
    evidence = {}
    for block in (block for chain in subject.chains for block in chain.blocks):
        projections = subject.chosen.get(block.name, ())
        if projections:
            subject.tell(f'reading the weights of {block.component} block {block.name}')
            exponents = [hill_exponent(subject.model.read(p.weight)) for p in projections]
            evidence[block.name] = -sum(exponents) / len(exponents)
    return evidence


def hill_exponent(weight: torch.Tensor) -> float:
    """
    Return Hill's estimate of the exponent of the power law of a weight's spectrum (eq. 3).

    With the eigenvalues e_1 <= ... <= e_n of W^T W it is 1 + k / sum_i ln(e_(n-i+1) / e_(n-k))
    for the k largest. The tail is the upper half of the eigenvalues here; the paper lets it begin
    at the peak of their histogram, which says little about the few eigenvalues of small layers.

    :param weight: rows x columns
    """
    small = weight if weight.shape[0] <= weight.shape[1] else weight.T
    values = torch.linalg.eigvalsh(small @ small.T).double()     # ascending
    values = values[values > SMALLEST * values[-1]]
    k = len(values) // 2
    if k == 0:
        return 1.0
    spread = (values[-k:] / values[-k - 1]).log().sum().item()
    return 1 + k / max(spread, 1e-3 * k)
