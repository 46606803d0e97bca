"""Whether the paper's claims hold, from numbers that were made up for the test."""

import numpy as np
from owled_ros.evaluation.claims import CLAIMED, claims
from owled_ros.evaluation.findings import over_seeds, pairs
from owled_ros.evaluation.table import Cell, OURS, Plan
from owled_ros.evaluation.table_report import claim_lines

PLAN = Plan(methods=('random', 'magnitude', 'Wanda', 'OWL+Wanda', OURS), sparsities=(0.5,),
            seeds=(0, 1))
HARD = np.random.default_rng(0).random(300)


def scores(level):
    """Errors around `level`, and lights told right the less often the larger it is."""
    return {'E_lon': level * (0.5 + HARD), 'L_token': level * (1 + HARD),
            'Acc_TL': (HARD > level / 10).astype(float)}


def by_text(found, start):
    claim, = [claim for claim in found if claim.text.startswith(start)]
    return claim


def test_a_claim_holds_where_the_errors_are_smaller_and_the_accuracies_larger():
    table = {Cell('Wanda', 0.5).name: scores(2.0), Cell('OWL+Wanda', 0.5).name: scores(1.0)}
    claim, = claims(table, PLAN)
    pair, = claim.pairs
    assert 'outliers' in claim.text and pair.title == 'OWL+Wanda against Wanda'
    assert [pair.outcome(metric) for metric in CLAIMED] == ['holds'] * 3
    assert pair.comparisons['E_lon'].difference < 0 < pair.comparisons['Acc_TL'].difference


def test_the_opposite_and_what_is_open_are_told():
    table = {Cell('Wanda', 0.5).name: scores(1.0),
             Cell('OWL+Wanda', 0.5).name: {**scores(2.0), 'E_lon': 1.0 * (0.5 + HARD[::-1])}}
    claim, = claims(table, PLAN)
    assert claim.counts('L_token') == {'holds': 0, 'opposite': 1, 'open': 0}
    assert claim.counts('Acc_TL') == {'holds': 0, 'opposite': 1, 'open': 0}
    assert claim.counts('E_lon') == {'holds': 0, 'opposite': 0, 'open': 1}
    text = '\n'.join(claim_lines([claim]))
    assert 'L_token: holds in 0 of 1 pairs, the opposite in 1, 0 open' in text
    assert '| *+1.' in text     # L_token grew by about 1.5


def test_data_and_components_are_compared_for_every_method():
    table = {Cell(method, 0.5, components, data).name: scores(
        1.0 + (data == 'other') + 2 * (components == 'vision'))
        for method in PLAN.methods for components in PLAN.components for data in PLAN.data}
    found = claims(table, PLAN)
    calibrated = by_text(found, 'Calibration')
    assert [pair.title for pair in calibrated.pairs] == ['Wanda', 'OWL+Wanda', OURS]
    assert calibrated.counts('E_lon')['holds'] == 3
    parts = by_text(found, 'The encoder')
    assert [pair.title for pair in parts.pairs] == list(PLAN.methods)[1:]
    assert parts.counts('Acc_TL')['holds'] == 4


def test_what_was_not_measured_claims_nothing():
    assert claims({Cell('Wanda', 0.5).name: scores(1.0)}, PLAN) == []


def test_one_seed_alone_does_not_decide():
    table = {Cell(OURS, 0.5, seed=0).name: scores(3.0), Cell(OURS, 0.5, seed=1).name: scores(1.0),
             Cell('magnitude', 0.5).name: scores(2.5)}
    assert np.allclose(over_seeds(table, OURS, 0.5, PLAN)['E_lon'], 2.0 * (0.5 + HARD))
    assert pairs(table, {}, PLAN)[0]['verdict'] == 'better'
    # Seeds with fewer scenes: those that all have.
    table[Cell(OURS, 0.5, seed=1).name] = {name: column[:200]
                                           for name, column in scores(1.0).items()}
    assert len(over_seeds(table, OURS, 0.5, PLAN)['E_lon']) == 200
    assert over_seeds(table, 'Wanda', 0.5, PLAN) == {}
