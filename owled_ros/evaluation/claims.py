"""OWLed's claims (arXiv 2411.07711, abstract and section IV), compared in pairs in a table."""

from dataclasses import dataclass

from owled_ros.evaluation.comparing import compare
from owled_ros.evaluation.findings import ERRORS, over_seeds
from owled_ros.evaluation.table import Cell, RANDOM, WITHOUT_DATA

# One metric for each thing that is claimed: perception, action, language.
CLAIMED = ('Acc_TL', 'E_lon', 'L_token')


@dataclass(frozen=True)
class Pair:
    """Two models of equal sparsity of which the claim says that the first is the better one."""

    title: str
    sparsity: float
    comparisons: dict   # metric -> Comparison of first less second

    def outcome(self, metric):
        """Return 'holds', 'opposite', or 'open' where the 95 % interval has both signs."""
        found = self.comparisons[metric]
        low, high = (-found.high, -found.low) if metric in ERRORS else (found.low, found.high)
        return 'holds' if low > 0 else 'opposite' if high < 0 else 'open'


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, with the pairs of cells that it speaks of."""

    text: str
    compared: str   # what the pairs are
    pairs: list

    def counts(self, metric):
        """Outcome -> in how many of the pairs."""
        found = [pair.outcome(metric) for pair in self.pairs]
        return {outcome: found.count(outcome) for outcome in ('holds', 'opposite', 'open')}


def claims(table, plan):
    """Return the Claims that a table (name of a cell -> metric -> scores) has pairs for."""
    found = [
        Claim('Layers with more outliers must keep more',
              'OWL as published against uniform layers; both components, driving data, mean over '
              'the calibration seeds.', list(owl_pairs(table, plan))),
        Claim('Calibration must see driving data',
              'Driving against other data, which is coloured noise with random answers: data that '
              'is real, but not of driving, was not tried. Both components, seed 0.',
              list(data_pairs(table, plan))),
        Claim('The encoder is the more sensitive part',
              'Language model alone against encoder alone, driving data, seed 0. Each loses the '
              'same share of its own weights, not the same number.',
              list(component_pairs(table, plan)))]
    return [claim for claim in found if claim.pairs]


def owl_pairs(table, plan):
    for method in ('Wanda', 'SparseGPT'):
        for sparsity in plan.sparsities:
            yield from paired(f'OWL+{method} against {method}', sparsity,
                              over_seeds(table, f'OWL+{method}', sparsity, plan),
                              over_seeds(table, method, sparsity, plan))


def data_pairs(table, plan):
    for method in plan.methods:
        if method not in WITHOUT_DATA:
            for sparsity in plan.sparsities:
                yield from paired(method, sparsity, *(
                    table.get(Cell(method, sparsity, data=data).name)
                    for data in ('driving', 'other')))


def component_pairs(table, plan):
    for method in (method for method in plan.methods if method != RANDOM):  # it breaks either
        for sparsity in plan.sparsities:
            yield from paired(method, sparsity, *(
                table.get(Cell(method, sparsity, components).name)
                for components in ('language', 'vision')))


def paired(title, sparsity, first, second):
    """Yield the Pair, or nothing where one of the two was not measured."""
    if first and second:
        yield Pair(title, sparsity, {metric: compare(first[metric], second[metric])
                                     for metric in CLAIMED})
