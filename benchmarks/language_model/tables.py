"""The result of ``perplexity.py``: rows and bars as data, as text and as a picture."""

from dataclasses import asdict, replace
import math
from pathlib import Path
from statistics import mean

from language_model.comparison import paired_interval, percentile, spread
import matplotlib
from matplotlib import pyplot

BARS = {0.7: 0.4, 0.6: 0.15, 0.5: 0.08}     # nats a token below the best OWL
RIVALS = ('wanda', 'sparsegpt')      # what OWL was published on
TICKS = (20, 50, 100, 200, 500, 1000)
NOTE = 'mean loss of held-out documents in nats per token; perplexity is its exponential'


def result(records: dict, dense: dict, *, ours: dict) -> dict:
    """
    Return what is written as JSON.

    :param records: of finished cells, by cell
    :param ours: what makes a cell one of our default
    """
    general = {cell: record for cell, record in records.items()
               if cell.calibration == 'general'}
    rows = [_dense_row(dense), *_rows(general)]
    return {'what': NOTE, 'ours': ours, 'rows': rows,
            'bars': _bars(general, ours), 'shuffles': _shuffles(general),
            'dense': _rounded(dense['losses']),
            'driving': _driving(records), 'driving_gains': _driving_gains(records),
            'cells': [{**asdict(cell), 'losses': _rounded(record['losses']),
                       'pruning_seconds': round(record['pruning_seconds'], 1)}
                      for cell, record in records.items()]}


def _rounded(losses: dict[str, list[float]]) -> dict[str, str]:
    """Return losses by document in a line, five decimals each, separated by blanks."""
    return {kind: ' '.join(f'{value:.5f}' for value in values) for kind, values in losses.items()}


def loss(record: dict, kind: str = 'general') -> float:
    """Return a record's mean loss on held-out documents of a kind [nats per token]."""
    return mean(record['losses'][kind])


def is_ours(cell, ours: dict) -> bool:
    """Say whether a cell is one of our default."""
    return all(getattr(cell, name) == value for name, value in ours.items())


def _dense_row(record: dict) -> dict:
    return {'method': 'dense', 'sparsity': 0.0, 'loss': loss(record),
            'perplexity': math.exp(loss(record)), 'draws': 1}


def _rows(records: dict) -> list[dict]:
    """Return a row for every setting, the draws of calibration samples taken together."""
    groups = {}
    for cell, record in records.items():
        if cell.allocation != 'shuffled' and cell.measured_on == 'general':
            key = (cell.sparsity, cell.method, cell.allocation, cell.statistics,
                   cell.threshold, cell.width)
            groups.setdefault(key, []).append(loss(record))
    rows = []
    for (sparsity, method, allocation, statistics, threshold, width), losses in groups.items():
        rows.append({'method': method, 'allocation': allocation, 'statistics': statistics,
                     'sparsity': sparsity, 'M': threshold, 'lambda': width,
                     'loss': mean(losses), 'spread': spread(losses), 'draws': len(losses),
                     'perplexity': math.exp(mean(losses))})
    return sorted(rows, key=lambda row: (row['sparsity'], row['loss']))


def _bars(records: dict, ours: dict) -> list[dict]:
    """Compare our default with the best OWL of the first draw, document by document."""
    bars = []
    for sparsity, bar in BARS.items():
        at = {cell: record for cell, record in records.items()
              if cell.sparsity == sparsity and cell.draw == 0 and cell.measured_on == 'general'}
        rivals = [cell for cell in at if cell.allocation == 'owl' and cell.method in RIVALS]
        mine = [cell for cell in at if is_ours(cell, ours)]
        if not rivals or not mine:
            continue
        best = min(rivals, key=lambda cell: loss(at[cell]))
        own, other = (at[cell]['losses']['general'] for cell in (mine[0], best))
        low, high = paired_interval(own, other)
        gain = mean(other) - mean(own)
        bars.append({'name': f'nats below the best of {len(rivals)} OWL at {sparsity:.0%}',
                     'value': gain, 'bar': bar, 'met': gain >= bar and low > 0,
                     'interval': [low, high], 'best_owl': asdict(best),
                     'best_owl_loss': mean(other)})
    return bars


def _shuffles(records: dict) -> dict | None:
    """Return OWL's place among shuffles of its own sparsities."""
    shuffled = {cell: record for cell, record in records.items() if cell.allocation == 'shuffled'}
    if not shuffled:
        return None
    one = next(iter(shuffled))
    twin = [record for cell, record in records.items() if cell.allocation == 'owl' and all(
        getattr(cell, name) == getattr(one, name)
        for name in ('method', 'sparsity', 'statistics', 'threshold', 'width', 'draw'))]
    losses = [loss(record) for record in shuffled.values()]
    return {'of': asdict(one), 'owl': loss(twin[0]), 'losses': losses,
            'percentile': percentile(loss(twin[0]), losses)}


def _driving(records: dict) -> list[dict]:
    """Return losses on driving and general text, by what the calibration was on."""
    rows = []
    for cell, record in records.items():
        if cell.measured_on == 'general,driving':
            rows.append({'method': cell.method, 'allocation': cell.allocation,
                         'sparsity': cell.sparsity, 'calibration': cell.calibration,
                         'on_general': loss(record), 'on_driving': loss(record, 'driving')})
    return rows


def _driving_gains(records: dict) -> list[dict]:
    """Return how much lower the loss on driving text is when it is calibrated on some."""
    gains = []
    for cell, record in records.items():
        other = records.get(replace(cell, calibration='driving'))
        if cell.measured_on == 'general,driving' and cell.calibration == 'general' and other:
            own, rival = (one['losses']['driving'] for one in (other, record))
            gains.append({'method': cell.method, 'allocation': cell.allocation,
                          'sparsity': cell.sparsity, 'value': mean(rival) - mean(own),
                          'interval': list(paired_interval(own, rival))})
    return gains


def text(found: dict) -> str:
    """Return a result as tables for a terminal."""
    lines = [f'{"sparsity":>8} {"method":10} {"allocation":10} {"statistics":10} {"M":>3} '
             f'{"lambda":>6} {"loss":>7} {"+-":>6} {"perplexity":>10} draws']
    for row in found['rows']:
        lines.append(f'{row["sparsity"]:8.0%} {row["method"]:10} {row.get("allocation", ""):10} '
                     f'{row.get("statistics", ""):10} {row.get("M", 0):3g} '
                     f'{row.get("lambda", 0):6.2f} {row["loss"]:7.3f} '
                     f'{row.get("spread", 0):6.3f} {row["perplexity"]:10.2f} {row["draws"]}')
    if (place := found['shuffles']):
        lines.append(f'\nOWL does better than {place["percentile"]:.0f} % of '
                     f'{len(place["losses"])} shuffles of its own sparsities')
    if found['driving']:
        lines.append('\nperplexity by calibration: on driving text, on general text')
    for row in found['driving']:
        lines.append(f'{row["sparsity"]:.0%} {row["method"]:10} {row["allocation"]:10} '
                     f'{row["calibration"]:8} {math.exp(row["on_driving"]):9.2f} '
                     f'{math.exp(row["on_general"]):9.2f}')
    for gain in found['driving_gains']:
        lines.append(f'{gain["sparsity"]:.0%} {gain["method"]:10} {gain["allocation"]:10} '
                     f'on driving text {gain["value"]:.3f} nats '
                     f'[{gain["interval"][0]:.3f}, {gain["interval"][1]:.3f}] below calibration '
                     'on general text')
    for bar in found['bars']:
        lines.append(f'\n{bar["name"]}: {bar["value"]:.3f} '
                     f'[{bar["interval"][0]:.3f}, {bar["interval"][1]:.3f}], bar {bar["bar"]}: '
                     f'{"met" if bar["met"] else "MISSED"}')
    return '\n'.join(lines)


def plot(found: dict, path: Path) -> None:
    """Draw perplexity by sparsity for the rows of the main table, and OWL among its shuffles."""
    matplotlib.use('Agg')
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.6), width_ratios=(3, 2))
    _draw_methods(left, found)
    _draw_shuffles(right, found['shuffles'])
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_methods(axes, found: dict) -> None:
    lines = {}
    for row in found['rows']:
        if row.get('M') == 5.0 and row['method'] not in ('random', 'magnitude') and (
                row['lambda'] == 0.08 or is_row_of(row, found['ours'])):
            name = f'{row["method"]}, {row["allocation"]}, {row["statistics"]}'
            lines.setdefault(name, []).append((row['sparsity'], row['perplexity']))
    best = [(float(bar['best_owl']['sparsity']), math.exp(bar['best_owl_loss']))
            for bar in found['bars']]
    lines['best OWL of the grid'] = best
    axes.set_prop_cycle(color=pyplot.get_cmap('tab20').colors)      # one for each line
    for name, points in sorted(lines.items(), key=lambda line: -max(line[1])[1]):
        axes.plot(*zip(*sorted(points)), marker='o', label=name,
                  linestyle='--' if name.startswith('best') else '-')
    axes.axhline(found['rows'][0]['perplexity'], color='grey', linewidth=1, label='dense')
    axes.set(yscale='log', xlabel='sparsity', ylabel='perplexity of held-out text',
             xticks=sorted(BARS), title='SmolLM2-135M, pruned in one shot')
    axes.set_yticks(TICKS, TICKS)
    axes.minorticks_off()
    axes.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1.0))   # in their order


def _draw_shuffles(axes, place: dict | None) -> None:
    if place is None:
        axes.set_axis_off()
        return
    axes.hist([math.exp(value) for value in place['losses']], bins=10, color='silver',
              label=f'{len(place["losses"])} shuffles')
    axes.axvline(math.exp(place['owl']), color='tab:red', label='OWL')
    axes.set(xlabel=f'perplexity, {place["of"]["method"]} at {place["of"]["sparsity"]:.0%}',
             ylabel='shuffles', title="OWL's sparsities, dealt to other blocks")
    axes.legend(fontsize=8)


def is_row_of(row: dict, ours: dict) -> bool:
    """Say whether a row is one of our default."""
    names = {'width': 'lambda', 'threshold': 'M'}
    return all(row.get(names.get(name, name)) == value for name, value in ours.items())
