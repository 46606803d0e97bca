"""Writes a table's cells and findings: Markdown for people, CSV for programs, plots."""

import csv
import math
from pathlib import Path

import numpy as np
from owled_ros.evaluation.claims import CLAIMED, claims
from owled_ros.evaluation.closed_loop import COUNTS
from owled_ros.evaluation.comparing import interval
from owled_ros.evaluation.findings import bars, columns, ERRORS, intervals, pairs, successes
from owled_ros.evaluation.table import Cell, DENSE, METHODS, OURS, OWLS
from owled_ros.pruning import PruningSettings

SHOWN = ('E_lon', 'E_lat', 'maneuver_accuracy', 'Acc_TL', 'D_TL', 'E_car', 'E_ped',
         'pedestrian_in_lane_found', 'pedestrian_in_lane_false_alarms', 'cause_accuracy',
         'L_token')
UNITS = {'E_lon': 'm/s²', 'E_lat': 'rad', 'D_TL': 'm', 'E_car': 'vehicles',
         'E_ped': 'pedestrians', 'L_token': 'nats'}
OWL = PruningSettings(**METHODS[OWLS[0]])
COMPONENTS = {'both': 'encoder and language model', 'vision': 'encoder only',
              'language': 'language model only'}


def write_table(folder, opened, closed, plan, model):
    """Write table.md, table.csv and the plots into a folder; return the bars.

    opened, closed: what Table.run returned; model: how the dense model is called.
    """
    folder, table, drives = Path(folder), columns(opened), successes(closed)
    same = {name: {metric: column[:plan.scenes] for metric, column in scores.items()}
            for name, scores in table.items()}   # the bars compare more scenes of some
    found, compared = intervals(same), pairs(table, drives, plan)
    judged = bars(table, drives, plan)
    write_csv(folder / 'table.csv', opened, same, found)
    plots = [plot_metric(folder, metric, found, plan) for metric in SHOWN]
    plots.append(plot_components(folder, found, plan))
    lines = [f'# {model}, pruned', '',
             f'The same {plan.scenes} held-out scenes for every model ({plan.bar_scenes} where the '
             f'bars compare ours at {plan.bar_sparsity:.0%} with dense), {plan.samples} '
             'calibration samples; means with 95 % bootstrap intervals over the scenes. Metrics: '
             'docs/evaluation.md. D_TL is over those scenes where a model tells a light that is '
             'there, which for a broken model are few and near. Seed 0 where nothing else is said; '
             'how much the seed changes is under Calibration seeds, and in no interval. OWL has '
             f'the published M = {OWL.outlier_threshold:g} and lambda = {OWL.outlier_width:g}, and '
             'was not tuned here; ours are the defaults, which were chosen on another model.', '']
    lines += bar_lines(judged) + closed_lines(closed, drives) + pair_lines(compared)
    lines += claim_lines(claims(table, plan)) + seed_lines(found, plan)
    for components in plan.components:
        for data in plan.data:
            lines += cell_lines(found, plan, components, data)
    lines += ['## Plots', ''] + [f'![{plot.stem}]({plot.name})' for plot in plots]
    write(folder / 'table.md', '\n'.join(lines) + '\n')
    return judged


def write(path, text):
    partial = path.with_name(path.name + '.partial')
    partial.write_text(text)
    partial.rename(path)


def bar_lines(judged):
    rows = [f'| {bar.name} | {bar.value} | {bar.bar} | '
            f'{"not measured" if bar.met is None else "met" if bar.met else "**missed**"} |'
            for bar in judged]
    return ['## Bars', '', '| | found | bar | |', '|---|---|---|---|', *rows, '']


def closed_lines(closed, drives):
    if not closed:
        return []
    rows = []
    for name, found in closed.items():
        rows.append(closed_row(name, found['outcomes']))
    expert = next(iter(closed.values()))['expert']
    return ['## Closed loop', '',
            f'{len(expert)} drives; faults are counts a drive. Of the two OWLs the one with the '
            'lower E_lon drove.', '', '| | success (95 %) | progress | '
            f'{" | ".join(name.replace("_", " ") for name in COUNTS)} |',
            '|---|---|---|' + '---|' * len(COUNTS), *rows, closed_row('the expert', expert), '']


def closed_row(name, outcomes):
    progress = np.mean([o['metres'] / o['expert_metres'] for o in outcomes])
    counts = ' | '.join(f'{np.mean([o[count] for o in outcomes]):.2f}' for count in COUNTS)
    success = np.mean([o['success'] for o in outcomes])
    low, high = interval(np.array([float(o['success']) for o in outcomes]))[1:]
    return (f'| {name} | {success:.1%} ({low:.1%} to {high:.1%}) | {progress:.2f} | {counts} |')


def pair_lines(compared):
    rows = [f'| {row["metric"]} | {row["sparsity"]:.0%} | {row["against"]} | '
            f'{row["comparison"].difference:+.4f} ({row["comparison"].low:+.4f} to '
            f'{row["comparison"].high:+.4f}) | {row["comparison"].p:.3g} | {row["p"]:.3g} | '
            f'{row["verdict"]} |'
            for row in compared]
    return ['## Ours against the other methods', '',
            'Paired by scene or drive; both components, driving data; E_lon is the mean over the '
            'calibration seeds, success of seed 0. A tie means that no difference was shown: what '
            'may be there is in the interval.', '',
            '| metric | sparsity | against | ours less theirs (95 %) | p | p corrected (Holm) | '
            'ours is |', '|---|---|---|---|---|---|---|', *rows, '']


def claim_lines(found):
    lines = ["## The paper's claims", '',
             'The mean of the first less that of the second: **bold** where the claim holds, *in '
             'italics* where the opposite does, plain where the 95 % interval has both signs. '
             'There are many intervals and no correction: one in twenty is off by chance.', '']
    for claim in found:
        lines += [f'### {claim.text}', '', claim.compared, '']
        for metric in CLAIMED:
            counts = claim.counts(metric)
            lines.append(f'- {metric}: holds in {counts["holds"]} of {len(claim.pairs)} pairs, '
                         f'the opposite in {counts["opposite"]}, {counts["open"]} open')
        lines += ['', f'| | sparsity | {" | ".join(CLAIMED)} |',
                  '|---|---|' + '---|' * len(CLAIMED)]
        lines += [f'| {pair.title} | {pair.sparsity:.0%} | '
                  + ' | '.join(claim_value(pair, metric) for metric in CLAIMED) + ' |'
                  for pair in claim.pairs]
        lines.append('')
    return lines


def claim_value(pair, metric):
    found, mark = pair.comparisons[metric], {'holds': '**', 'opposite': '*', 'open': ''}
    return (mark[pair.outcome(metric)] + f'{found.difference:+.3f}' + mark[pair.outcome(metric)]
            + f' ({found.low:+.3f} to {found.high:+.3f})')


def seed_lines(found, plan):
    """E_lon of each calibration seed, for whoever wonders how much of it is chance."""
    if len(plan.seeds) < 2:
        return []
    rows = []
    for method in plan.methods:
        for sparsity in plan.sparsities:
            names = [Cell(method, sparsity, seed=seed).name for seed in plan.seeds]
            values = [found[name]['E_lon'][0] for name in names if name in found]
            if len(values) > 1:
                rows.append(f'| {method} | {sparsity:.0%} | '
                            + ', '.join(f'{value:.3f}' for value in values) + ' |')
    return ['## Calibration seeds', '', '| method | sparsity | E_lon by seed |', '|---|---|---|',
            *rows, '']


def cell_lines(found, plan, components, data):
    rows = [row_of(name, found[name]) for name in found
            if '-' not in name and components == 'both']
    for method in plan.methods:
        for sparsity in (*plan.sparsities, *plan.beyond):
            name = Cell(method, sparsity, components, data).name
            if name in found:
                rows.append(row_of(f'{method} {sparsity:.0%}', found[name]))
    return [f'## {COMPONENTS[components].capitalize()}, calibrated on {data} data', '',
            '| | ' + ' | '.join(SHOWN) + ' |', '|---|' + '---|' * len(SHOWN), *rows, '']


def row_of(title, metrics):
    cells = []
    for metric in SHOWN:
        mean, low, high = metrics.get(metric, (math.nan,) * 3)
        cells.append('–' if math.isnan(mean) else f'{mean:.3g} ± {(high - low) / 2:.1g}')
    return f'| {title} | ' + ' | '.join(cells) + ' |'


def write_csv(path, opened, same, found):
    """Write one line per cell and metric: found is the intervals of `same`, the cells' scores."""
    partial = path.with_suffix('.partial')
    with open(partial, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['cell', 'method', 'sparsity', 'components', 'data', 'seed',
                         'measured_sparsity', 'metric', 'mean', 'low', 'high', 'frames',
                         'pruning_seconds'])
        for name, record in opened.items():
            cell = record['cell']
            for metric, (mean, low, high) in found[name].items():
                counted = int((~np.isnan(same[name][metric])).sum())
                writer.writerow([name, *(cell[key] for key in (
                    'method', 'sparsity', 'components', 'data', 'seed')), record['sparsity'],
                    metric, f'{mean:.6g}', f'{low:.6g}', f'{high:.6g}', counted,
                    record['pruning_seconds']])
    partial.rename(path)


# -- plots -------------------------------------------------------------------------------------

def plot_metric(folder, metric, found, plan):
    """Plot a metric over sparsity, a line per method; both components, driving data."""
    figure, (axes,) = new_figure('both components, driving data', [metric])
    for method in plan.methods:
        draw_line(axes, found, metric, method, method, plan, 'both')
    finish(axes, found, metric)
    return save(figure, folder / f'{metric}.png')


def plot_components(folder, found, plan):
    """Plot encoder against language model at equal sparsity: of Wanda and of ours."""
    figure, panels = new_figure('by pruned component, driving data', CLAIMED)
    for axes, metric in zip(panels, CLAIMED):
        for method, style in (('Wanda', '--'), (OURS, '-')):
            for components, colour in zip(plan.components, ('C0', 'C1', 'C2')):
                draw_line(axes, found, metric, method, f'{method}, {COMPONENTS[components]}', plan,
                          components, linestyle=style, color=colour)
        finish(axes, found, metric)
    return save(figure, folder / 'components.png')


def new_figure(title, metrics):
    """Return a figure and an axes for each metric, side by side."""
    # The object, not pyplot: nothing global is left behind, and no display is needed.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator, PercentFormatter
    figure = Figure(figsize=(6 * len(metrics) + 1, 4.5), layout='constrained')
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics):
        axes.set(title=f'{metric}, {title}', xlabel='sparsity',
                 ylabel=f'{metric} [{UNITS[metric]}]' if metric in UNITS else metric)
        axes.xaxis.set_major_locator(MultipleLocator(0.1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(alpha=0.3, which='both')
    return figure, panels


def draw_line(axes, found, metric, method, label, plan, components, **style):
    points = [(sparsity, *found[name][metric]) for sparsity in (*plan.sparsities, *plan.beyond)
              if (name := Cell(method, sparsity, components).name) in found]
    if points:
        sparsities, means, lows, highs = np.array(points).T
        line, = axes.plot(sparsities, means, marker='o', label=label,
                          linewidth=2.5 if method == OURS else 1.2, **style)
        axes.fill_between(sparsities, lows, highs, alpha=0.12, color=line.get_color())


def finish(axes, found, metric):
    """Add the dense model and the legend; choose the scale for what was drawn."""
    from matplotlib.ticker import FormatStrFormatter
    if DENSE in found:
        axes.axhline(found[DENSE][metric][0], color='black', linestyle=':', label=DENSE)
        axes.legend(fontsize=8)
    if metric in ERRORS and axes.dataLim.y0 > 0:  # what is broken is many times worse than others
        axes.set_yscale('log')
        axes.yaxis.set_major_formatter(FormatStrFormatter('%g'))
        axes.yaxis.set_minor_formatter(FormatStrFormatter('%g'))


def save(figure, path):
    partial = path.with_suffix('.partial.png')
    figure.savefig(partial, dpi=120)
    partial.rename(path)
    return path
