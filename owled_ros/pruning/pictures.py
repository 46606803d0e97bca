"""The pictures of the report."""

import io
import math

from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from owled_ros.pruning.structure import OUTSIDE

COMPONENTS = {'vision': 'Vision encoder', 'projector': 'Projector', 'language': 'Language model',
              'head': 'Output head'}
INK, BAR, LINE, PALE = '#222222', '#9db8d2', '#c0392b', '#d8dde2'
COLORS = {'hard braking': '#8e1b10', 'braking': '#e08a1e', 'steady': '#5a7fa3',
          'speeding up': '#3d8b4f'}
MARKERS = {'left': '<', 'straight': 'o', 'right': '>'}
SHOWN = 12      # of drives, of files, and of columns in which a number has room


def draw_blocks(record: dict) -> bytes | None:
    """
    Draw outlier share, sparsity and output error of every block, encoder beside language model.

    :return: a PNG; None when there are no blocks, only a projector or a head
    """
    groups = {name: blocks for name, blocks in by_component(record).items()
              if name not in OUTSIDE}
    if not groups:
        return None
    figure = Figure(figsize=(4.6 * len(groups) + 0.6, 7.2), layout='constrained')
    panels = figure.subplots(3, len(groups), squeeze=False, sharex='col', sharey='row')
    requested = {component: requested_of(record, component) for component in groups}
    for column, (component, blocks) in zip(panels.T, groups.items()):
        numbers = range(len(blocks))
        column[0].bar(numbers, [100 * b['outlier_share'] for b in blocks], color=BAR)
        column[1].plot(numbers, [100 * b['sparsity'] for b in blocks], color=LINE, marker='.')
        column[1].axhline(100 * requested[component], color=INK, linestyle=':', linewidth=1)
        errors = [math.nan if b['output_error'] is None else b['output_error'] for b in blocks]
        column[2].plot(numbers, errors, color=INK, marker='.')
        column[0].set_title(COMPONENTS[component])
        column[2].set_xlabel('block, from input to output')
        _whole_ticks(column[2], len(blocks))
    for axes, label in zip(panels[:, 0], (   # rows share their scale
            'outlier share, %', 'sparsity, %\n(dotted: requested)',
            'relative error of the\noutput against dense')):
        axes.set_ylabel(label)
    sparsities = [100 * b['sparsity'] for blocks in groups.values() for b in blocks]
    sparsities += [100 * value for value in requested.values()]
    panels[1, 0].set_ylim(max(0, min(sparsities) - 5), min(100, max(sparsities) + 5))
    for row, entry in ((0, 'outlier_share'), (2, 'output_error')):
        highest = max(b[entry] or 0.0 for blocks in groups.values() for b in blocks)
        panels[row, 0].set_ylim(0, 1.08 * (100 if row == 0 else 1) * highest or 1)
    for axes in panels.flat:
        _plain(axes)
    return _png(figure)


def requested_of(record: dict, component: str) -> float:
    """Return the sparsity that was asked of a component."""
    settings = record['settings']
    return settings['component_sparsity'].get(component, settings['sparsity'])


def draw_projections(record: dict) -> bytes:
    """Draw sparsity (above) and outlier share (below) of every projection: kind over depth."""
    groups = by_component(record)
    kinds = {name: _kinds(blocks) for name, blocks in groups.items()}
    narrowest = 0.05 * sum(map(len, groups.values()))
    widths = [max(len(blocks), narrowest) + 0.5 for blocks in groups.values()]
    rows = max(map(len, kinds.values()))
    figure = Figure(figsize=(min(3.0 * len(groups) + 0.42 * sum(widths), 16),
                             2 * (0.36 * rows + 1.1)), layout='constrained')
    panels = figure.subplots(2, len(groups), squeeze=False, width_ratios=widths)
    for row, (entry, label, colors) in zip(panels, (
            ('sparsity', 'sparsity, %', 'YlOrRd'),
            ('outlier_share', 'outlier share, %', 'Blues'))):
        values = [100 * p[entry] for blocks in groups.values() for b in blocks
                  for p in b['projections']]
        scale = _scale(values)
        for axes, (component, blocks) in zip(row, groups.items()):
            image = _draw_map(axes, blocks, kinds[component], entry, scale, colors)
            axes.set_title(COMPONENTS[component])
        figure.colorbar(image, ax=list(row), label=label, pad=0.01)
    return _png(figure)


def _draw_map(axes, blocks, kinds, entry, scale, colors):
    """Draw one panel: a row for each kind of projection, a column for each block."""
    table = [[float('nan')] * len(blocks) for _ in kinds]
    for column, block in enumerate(blocks):
        for projection in block['projections']:
            table[kinds.index(_kind(block, projection))][column] = 100 * projection[entry]
    image = axes.imshow(table, aspect='auto', cmap=colors, norm=scale, interpolation='nearest')
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_xlabel('block' if len(blocks) > 1 else '')
    _whole_ticks(axes, len(blocks))
    if len(blocks) == 1:
        axes.set_xticks([])
    if len(blocks) <= SHOWN:
        for row, line in enumerate(table):
            for column, value in enumerate(line):
                if value == value:
                    dark = scale(value) > 0.6
                    axes.text(column, row, f'{value:.0f}' if entry == 'sparsity' else
                              f'{value:.1f}', ha='center', va='center', fontsize=7,
                              color='white' if dark else INK)
    return image


def draw_samples(record: dict) -> bytes | None:
    """
    Draw what was sampled of drives: when, and of which kind of driving.

    :return: a PNG; None when there was no drive
    """
    sources = [s for s in record['data'].get('sources', ()) if s.get('drives')]
    if not sources:
        return None
    source = sources[0]
    drives, kinds = source['drives'][:SHOWN], source['kinds']
    figure = Figure(figsize=(11, 1.6 + max(0.6 * len(drives), 0.3 * len(kinds))),
                    layout='constrained')
    times, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_times(times, drives)
    _draw_kinds(bars, kinds)
    used = [(a, c) for a in COLORS for c in MARKERS if f'{a}, {c}' in kinds]
    handles = [Line2D([], [], linestyle='', marker=MARKERS[c], color=COLORS[a], label=f'{a}, {c}')
               for a, c in used]
    figure.legend(handles=handles, loc='outside lower center', ncols=6, fontsize=8, frameon=False)
    return _png(figure)


def _draw_times(axes, drives) -> None:
    """Draw a line for each drive, and what was chosen of it: above it, and held out below it."""
    for row, drive in enumerate(drives):
        axes.plot([0, drive['seconds']], [row, row], color=PALE, linewidth=6,
                  solid_capstyle='butt', zorder=1)
        for group, offset in (('calibration', -0.2), ('held_out', 0.2)):
            for time, kind in drive[group]:
                acceleration, direction = kind.split(', ')
                color = COLORS[acceleration]
                axes.plot(time, row + offset, marker=MARKERS[direction], markersize=6,
                          color=color, linestyle='', zorder=2,
                          markerfacecolor='white' if group == 'held_out' else color)
    axes.set_yticks(range(len(drives)), [drive['name'] for drive in drives], fontsize=8)
    axes.set_ylim(len(drives) - 0.4, -0.6)
    axes.set_xlabel('time in the drive, s')
    axes.set_title('When: calibrated on (filled, above), held out (hollow, below)', fontsize=10)
    _plain(axes)


def _draw_kinds(axes, kinds) -> None:
    """Draw for each kind of driving its share of the usable frames and of those chosen."""
    totals = {group: max(sum(counts[group] for counts in kinds.values()), 1)
              for group in ('usable', 'calibration')}
    for group, offset, height in (('usable', 0.0, 0.8), ('calibration', 0.0, 0.36)):
        colors = PALE if group == 'usable' else [COLORS[kind.split(', ')[0]] for kind in kinds]
        axes.barh([row + offset for row in range(len(kinds))],
                  [100 * counts[group] / totals[group] for counts in kinds.values()],
                  height=height, color=colors)
    for row, counts in enumerate(kinds.values()):
        widest = max(100 * counts[group] / totals[group] for group in totals)
        axes.text(widest + 1, row, f'{counts["calibration"]} of {counts["usable"]}',
                  va='center', fontsize=8)
    axes.set_yticks(range(len(kinds)), list(kinds), fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel('share of all frames, %')
    axes.set_title('What: of the drive (grey), calibrated on (color)', fontsize=10)
    _plain(axes)


def by_component(record: dict) -> dict[str, list[dict]]:
    """Return the blocks of each component, in the order in which they run."""
    groups = {}
    for block in record['blocks']:
        groups.setdefault(block['component'], []).append(block)
    return groups


def _kinds(blocks: list[dict]) -> list[str]:
    return list(dict.fromkeys(_kind(b, p) for b in blocks for p in b['projections']))


def _kind(block: dict, projection: dict) -> str:
    """Return a projection's name in its block."""
    return projection['name'].removeprefix(f'{block["name"]}.')


def _scale(values: list[float]) -> Normalize:
    low, high = min(values), max(values)
    if high - low < 1e-6:   # all alike: the middle of the colors
        return Normalize(low - 1, high + 1)
    return Normalize(low, high)


def _whole_ticks(axes, count: int) -> None:
    axes.set_xticks(range(0, count, max(1, -(-count // 12))))


def _plain(axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, metadata={'Software': None})
    return buffer.getvalue()
