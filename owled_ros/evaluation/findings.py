"""What a table says: intervals of its cells, comparisons in pairs, and which bars are met."""

from dataclasses import dataclass
import math

import numpy as np
from owled_ros.evaluation.comparing import compare, holm, interval
from owled_ros.evaluation.table import Cell, DENSE, OURS

ACCURACIES = ('Acc_TL', 'maneuver_accuracy', 'cause_accuracy', 'slot_accuracy', 'parse_rate',
              'pedestrian_in_lane_found')
ERRORS = ('E_car', 'E_ped', 'D_TL', 'D_lead', 'E_lon', 'E_lat', 'L_token')
LEVEL = 0.05         # of the tests, after Holm's correction
DENSE_SUCCESS = 0.9
SUCCESS_LOSS = 0.05  # of closed-loop success that may be lost at the bar's sparsity
ACCURACY_LOSS = 0.01
ERROR_GROWTH = 0.03
KEPT_SUCCESS = 0.95  # of the dense model's, up to which a sparsity counts as driving on


@dataclass(frozen=True)
class Bar:
    """A bar of the project, what was found, and whether it is met (None: not measured)."""

    name: str
    value: str
    bar: str
    met: bool


def columns(opened):
    """Name of a cell -> metric -> array of its scores, from the cells' records."""
    return {name: {metric: np.array([math.nan if value is None else value for value in values])
                   for metric, values in found['scores'].items()}
            for name, found in opened.items()}


def successes(closed):
    """Name of a cell -> array of the success of every drive."""
    return {name: np.array([float(outcome['success']) for outcome in found['outcomes']])
            for name, found in closed.items()}


def intervals(table):
    """Name of a cell -> metric -> (mean, low, high), 95 %."""
    return {name: {metric: interval(column) for metric, column in found.items()}
            for name, found in table.items()}


def pairs(opened, closed, plan):
    """Ours against every other method, on the two primary metrics, with Holm's correction.

    Returns a list of dicts: metric, sparsity, against, the Comparison, the adjusted p, and the
    verdict: 'better', 'worse' or 'tie'. Both components, driving data; E_lon is the mean over the
    calibration seeds, of which the closed loop has the first alone.
    """
    rows, closed = [], {name: {'success': column} for name, column in closed.items()}
    for metric, table, sign in (('E_lon', opened, -1), ('success', closed, 1)):
        for sparsity in plan.sparsities:
            ours = over_seeds(table, OURS, sparsity, plan)
            for method in plan.methods:
                theirs = over_seeds(table, method, sparsity, plan)
                if method != OURS and ours and theirs:
                    rows.append({'metric': metric, 'sparsity': sparsity, 'against': method,
                                 'sign': sign, 'comparison': compare(ours[metric],
                                                                     theirs[metric])})
    for row, p in zip(rows, holm([row['comparison'].p for row in rows])):
        gain = row.pop('sign') * row['comparison'].difference
        row['p'] = p
        row['verdict'] = 'tie' if p > LEVEL else 'better' if gain > 0 else 'worse'
    return rows


def over_seeds(table, method, sparsity, plan):
    """Return metric -> scores, the mean over those calibration seeds that a table has; or {}."""
    cells = [Cell(method, sparsity, seed=seed).name for seed in plan.seeds]
    found = [table[name] for name in cells if name in table]
    count = min((len(column) for scores in found for column in scores.values()), default=0)
    return {metric: np.mean([scores[metric][:count] for scores in found], 0)
            for metric in (found[0] if found else ())}


def bars(opened, closed, plan):
    """Return the bars of the table, from columns and successes."""
    return [dense_bar(closed), success_bar(closed, plan), *accuracy_bars(opened, plan),
            pairs_bar(pairs(opened, closed, plan)), reach_bar(closed, plan)]


def dense_bar(closed):
    """Without a dense model that drives, what is kept of its success says nothing."""
    name = 'closed-loop success of the dense model'
    if DENSE not in closed:
        return Bar(name, 'not measured', f'at least {DENSE_SUCCESS:.0%}', None)
    share = float(closed[DENSE].mean())
    return Bar(name, f'{share:.1%}', f'at least {DENSE_SUCCESS:.0%}', share >= DENSE_SUCCESS)


def success_bar(closed, plan):
    name = f'closed-loop success at {plan.bar_sparsity:.0%} against dense, one-sided 95 %'
    ours = closed.get(Cell(OURS, plan.bar_sparsity).name)
    if ours is None or DENSE not in closed:
        return Bar(name, 'not measured', f'above {-100 * SUCCESS_LOSS:.0f} points', None)
    found = compare(ours, closed[DENSE])
    return Bar(name, f'{100 * found.difference:+.1f} points, at least '
                     f'{100 * found.at_least:+.1f}', f'above {-100 * SUCCESS_LOSS:.0f} points',
               found.at_least > -SUCCESS_LOSS)


def accuracy_bars(opened, plan):
    ours, dense = opened.get(Cell(OURS, plan.bar_sparsity).name), opened.get(DENSE)
    if ours is None or dense is None:
        return []
    found = []
    for metric in ACCURACIES:
        against = compare(ours[metric], dense[metric])
        found.append(Bar(f'{metric} at {plan.bar_sparsity:.0%} against dense',
                         f'{100 * against.difference:+.2f} points, at least '
                         f'{100 * against.at_least:+.2f}', f'above {-100 * ACCURACY_LOSS:.0f} '
                         'point', against.at_least > -ACCURACY_LOSS if against.pairs else None))
    for metric in ERRORS:
        against = compare(ours[metric], dense[metric])
        found.append(Bar(f'{metric} at {plan.bar_sparsity:.0%} against dense',
                         f'{against.ratio:+.1%}, at most {against.ratio_at_most:+.1%}',
                         f'below {ERROR_GROWTH:+.0%}',
                         against.ratio_at_most < ERROR_GROWTH if against.pairs else None))
    return found


def pairs_bar(rows):
    worse = [f'{row["against"]} in {row["metric"]} at {row["sparsity"]:.0%}' for row in rows
             if row['verdict'] == 'worse']
    wins = sum(row['verdict'] == 'better' for row in rows)
    return Bar('ours against the other methods, primary metrics, Holm',
               f'{wins} better, {len(rows) - wins - len(worse)} ties, {len(worse)} worse'
               + (f' ({"; ".join(worse)})' if worse else ''), 'none worse',
               not worse if rows else None)


def reach_bar(closed, plan):
    """Return the bar of the largest sparsity that still drives, ours against OWL's."""
    name = f'largest sparsity with {KEPT_SUCCESS:.0%} of the dense success, ours and OWL'
    if DENSE not in closed:
        return Bar(name, 'not measured', 'ours higher', None)
    enough = KEPT_SUCCESS * closed[DENSE].mean()

    def reach(mine):
        kept = [sparsity for sparsity in plan.sparsities for cell, found in closed.items()
                if mine(cell) and f'-{sparsity:.2f}-' in cell and found.mean() >= enough]
        return max(kept, default=0.0)

    ours, owl = (reach(lambda cell, start=start: cell.startswith(start))
                 for start in (f'{OURS}-', 'OWL+'))
    return Bar(name, f'{ours:.0%} and {owl:.0%}', 'ours higher', ours > owl)
