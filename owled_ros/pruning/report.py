"""What was cut, as tables and pictures: a page that needs nothing but itself."""

import base64
import html
import io
from pathlib import Path

from matplotlib.figure import Figure

COMPONENTS = {'vision': 'Vision encoder', 'projector': 'Projector', 'language': 'Language model'}
INK, BAR, LINE = '#222222', '#9db8d2', '#c0392b'

STYLE = '''
body { font: 15px/1.5 sans-serif; color: #222; max-width: 60rem; margin: 2rem auto }
h1, h2 { font-weight: 600 } img { max-width: 100% }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left; font-family: monospace }
'''


def write_report(record: dict, directory: Path) -> None:
    """
    Write ``report.html`` and its pictures.

    :param record: the content of ``owled.json``
    :param directory: where they go
    """
    pictures = {
        'sparsity.png': _draw_sparsity(record),
        'output_error.png': _draw_error(record),
    }
    for name, picture in pictures.items():
        (directory / name).write_bytes(picture)
    (directory / 'report.html').write_text(_page(record, pictures))


def _draw_sparsity(record: dict) -> bytes:
    """Draw outlier share (bars) and sparsity (line) of every block, one panel per component."""
    groups = _by_component(record)
    figure = Figure(figsize=(5.5 * len(groups), 3.6), layout='constrained')
    for axes, (component, blocks) in zip(_panels(figure, len(groups)), groups.items()):
        numbers = range(len(blocks))
        axes.bar(numbers, [100 * block['outlier_share'] for block in blocks], color=BAR)
        axes.set(title=COMPONENTS[component], xlabel='block', ylabel='outlier share, %')
        _whole_ticks(axes, len(blocks))
        twin = axes.twinx()
        twin.plot(numbers, [100 * block['sparsity'] for block in blocks], color=LINE, marker='o')
        twin.set_ylabel('sparsity, %', color=LINE)
        twin.set_ylim(0, 100)
    return _png(figure)


def _draw_error(record: dict) -> bytes:
    """Draw the relative error of every block's output against the dense model."""
    groups = _by_component(record)
    figure = Figure(figsize=(5.5 * len(groups), 3.0), layout='constrained')
    for axes, (component, blocks) in zip(_panels(figure, len(groups)), groups.items()):
        errors = [block['output_error'] or 0.0 for block in blocks]
        axes.plot(range(len(blocks)), errors, color=INK, marker='o')
        axes.set(title=COMPONENTS[component], xlabel='block', ylabel='relative output error')
        axes.set_ylim(bottom=0)
        _whole_ticks(axes, len(blocks))
    return _png(figure)


def _panels(figure: Figure, count: int):
    return figure.subplots(1, count, squeeze=False)[0]


def _whole_ticks(axes, count: int) -> None:
    axes.set_xticks(range(0, count, max(1, count // 12)))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, metadata={'Software': None})
    return buffer.getvalue()


def _by_component(record: dict) -> dict[str, list[dict]]:
    groups = {}
    for block in record['blocks']:
        groups.setdefault(block['component'], []).append(block)
    return groups


def _page(record: dict, pictures: dict[str, bytes]) -> str:
    images = ''.join(
        f'<p><img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
        for name, data in pictures.items())
    title = html.escape(f'{record["model"]["name"]}, pruned')
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{STYLE}</style></head><body><h1>{title}</h1>{_summary(record)}{images}'
            f'{_block_table(record)}{_projection_table(record)}{_origin(record)}</body></html>\n')


def _summary(record: dict) -> str:
    sparsity, loss = record['sparsity'], record['loss']
    settings = record['settings']
    rows = [
        ('method, allocation', f'{settings["method"]}, {settings["allocation"]}'),
        ('sparsity requested', _percent(sparsity['requested'])),
        ('sparsity measured', _percent(sparsity['measured'])),
        ('weights pruned', f'{sparsity["pruned_weights"]:,} of {sparsity["prunable_weights"]:,}'),
        ('calibration samples', str(record['data']['samples'])),
        (f'loss per token, dense ({loss["samples"]} {loss["measured_on"]})',
         f'{loss["dense"]:.4f}'),
        ('loss per token, pruned', f'{loss["pruned"]:.4f}'),
    ]
    return _table('Summary', ('', ''), rows)


def _block_table(record: dict) -> str:
    rows = [(block['name'], f'{block["weights"]:,}', _percent(block['outlier_share']),
             _percent(block['sparsity']),
             '' if block['output_error'] is None else f'{block["output_error"]:.4f}')
            for block in record['blocks']]
    note = f'Outliers measured on {record["sparsity"]["outliers_measured_on"]}'
    return _table(f'Blocks. {note}.',
                  ('block', 'weights', 'outlier share', 'sparsity', 'output error'), rows)


def _projection_table(record: dict) -> str:
    rows = [(projection['name'], '{} x {}'.format(*projection['shape']),
             _percent(projection['outlier_share']), _percent(projection['sparsity']))
            for block in record['blocks'] for projection in block['projections']]
    return _table('Projections', ('projection', 'shape', 'outlier share', 'sparsity'), rows)


def _origin(record: dict) -> str:
    rows = [(name, str(value)) for part in ('model', 'data', 'settings', 'versions')
            for name, value in ((f'{part}: {key}', v) for key, v in record[part].items())]
    return _table('How it was made', ('', ''), rows)


def _table(caption: str, head: tuple, rows: list[tuple]) -> str:
    def line(cells, tag):
        return '<tr>' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

    body = ''.join(line(row, 'td') for row in rows)
    return f'<table><caption>{html.escape(caption)}</caption>{line(head, "th")}{body}</table>\n'


def _percent(share: float) -> str:
    return f'{100 * share:.2f} %'
