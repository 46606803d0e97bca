"""What a table says: intervals of its cells, comparisons in pairs, and which bars are met."""

from dataclasses import dataclass
import math

import numpy as np
from owled_ros.evaluation.comparing import compare, holm, interval
from owled_ros.evaluation.table import Cell, DENSE, OURS, OWLS

ACCURACIES = ('Acc_TL', 'maneuver_accuracy', 'cause_accuracy', 'slot_accuracy', 'parse_rate',
              'pedestrian_in_lane_found')
ERRORS = ('pedestrian_in_lane_false_alarms', 'E_car', 'E_ped', 'D_TL', 'D_lead', 'E_lon', 'E_lat',
          'L_token')
LEVEL = 0.05         # of the tests, after Holm's correction
DENSE_SUCCESS = 0.9
SUCCESS_LOSS = 0.05  # of closed-loop success that may be lost at the bar's sparsity
ACCURACY_LOSS = 0.01
ERROR_GROWTH = 0.03
KEPT_SUCCESS = 0.95  # of the dense model's, up to which a sparsity counts as driving on


@dataclass(frozen=True)
class Bar:
    """A bar of the project, what was found, and whether it is met (None: not all measured)."""

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

    Returns a list of dicts: metric, sparsity, against, the Comparison, whether ours gains, the
    adjusted p, and the verdict: 'better', 'worse' or 'tie', which is neither shown. Both
    components, driving data; E_lon is the mean over the calibration seeds, of which the closed
    loop has the first alone.
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
        row['gains'] = row.pop('sign') * row['comparison'].difference > 0
        row['p'] = p
        row['verdict'] = 'tie' if p > LEVEL else 'better' if row['gains'] else 'worse'
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
            pairs_bar(pairs(opened, closed, plan), plan), reach_bar(closed, plan)]


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
    """Return what ours at the bar's sparsity may lose of each accuracy, and add to each error."""
    ours, dense = opened.get(Cell(OURS, plan.bar_sparsity).name), opened.get(DENSE)
    return [kept_bar(metric, compare(ours[metric], dense[metric]) if ours and dense else None,
                     f'{metric} at {plan.bar_sparsity:.0%} against dense')
            for metric in (*ACCURACIES, *ERRORS)]


def kept_bar(metric, found, name):
    bar = (f'below {ERROR_GROWTH:+.0%}' if metric in ERRORS
           else f'above {-100 * ACCURACY_LOSS:.0f} point')
    if found is None or not found.pairs:
        return Bar(name, 'not measured', bar, None)
    if metric in ERRORS:
        return Bar(name, f'{found.ratio:+.1%}, at most {found.ratio_at_most:+.1%}', bar,
                   found.ratio_at_most < ERROR_GROWTH)
    return Bar(name, f'{100 * found.difference:+.2f} points, at least {100 * found.at_least:+.2f}',
               bar, found.at_least > -ACCURACY_LOSS)


def pairs_bar(rows, plan):
    """Return the bar of the comparisons; met when all that were planned are there, none worse."""
    worse = [f'{row["against"]} in {row["metric"]} at {row["sparsity"]:.0%}' for row in rows
             if row['verdict'] == 'worse']
    wins = sum(row['verdict'] == 'better' for row in rows)
    raw = sum(row['comparison'].p <= LEVEL and not row['gains'] for row in rows)
    planned = ((len(plan.methods) - 1) * len(plan.sparsities)
               + any(name in OWLS for name in plan.methods) * len(plan.closed_sparsities))
    return Bar('ours against the other methods, primary metrics, Holm',
               f'{wins} better, {len(rows) - wins - len(worse)} ties, {len(worse)} worse'
               + (f' ({"; ".join(worse)})' if worse else '') + f'; {raw} worse without the '
               f'correction; {len(rows)} of {planned} comparisons', 'none worse',
               not worse if len(rows) >= planned else None)


def reach_bar(closed, plan):
    """Return the bar of the largest sparsity up to which all that were driven drive on."""
    name = f'largest sparsity with {KEPT_SUCCESS:.0%} of the dense success, ours and OWL'
    driven = {who: {sparsity: found.mean() for sparsity in (*plan.sparsities, *plan.beyond)
                    for cell, found in closed.items()
                    if cell.startswith(start) and f'-{sparsity:.2f}-' in cell}
              for who, start in (('ours', f'{OURS}-'), ('OWL', 'OWL+'))}
    if DENSE not in closed or not all(driven.values()):
        return Bar(name, 'not measured', 'ours higher', None)
    enough = KEPT_SUCCESS * closed[DENSE].mean()
    ours, owl = (reach(found, enough) for found in driven.values())
    told = [f'{reached:.0%}' if reached else f'below {min(found):.0%}'
            for reached, found in zip((ours, owl), driven.values())]
    return Bar(name, ' and '.join(told), 'ours higher', ours > owl)


def reach(found, enough):
    """Return the last sparsity before success falls below `enough`; 0 where the first does."""
    reached = 0.0
    for sparsity in sorted(found):
        if found[sparsity] < enough:
            break
        reached = sparsity
    return reached
