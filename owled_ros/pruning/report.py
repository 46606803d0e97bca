"""What was cut, as tables and pictures: a page that needs nothing but itself."""

import base64
import html
from pathlib import Path

from owled_ros.pruning.pictures import (
    COMPONENTS,
    draw_blocks,
    draw_projections,
    draw_samples,
    requested_of,
)

STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; max-width: 66rem; margin: 2rem auto;
padding: 0 1rem }
h1, h2 { font-weight: 600 } h2 { margin-top: 2.5rem }
figure { margin: 1rem 0 2rem } img { max-width: 100% } figcaption { color: #666 }
table { border-collapse: collapse; margin: 1rem 0 }
caption { text-align: left; font-weight: 600; white-space: nowrap }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid #ddd;
vertical-align: top; overflow-wrap: anywhere }
td:first-child, th:first-child { text-align: left; overflow-wrap: normal }
.names td:first-child { font-family: monospace }
pre { background: #f4f4f4; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
"""

SHOWS = {
    'blocks.png': 'Every block: how many of its Wanda scores are outliers, how much of it was cut, '
                  'and how far its output is from that of the dense model.',
    'projections.png': 'Every projection, by its name in the block and over depth: how much of it '
                       'was cut (above), and how many of its scores are outliers (below).',
    'samples.png': 'When in the drives the samples were taken, and in which kinds of driving.',
}


def write_report(record: dict, directory: Path) -> None:
    """
    Write ``report.html`` and its pictures.

    :param record: the content of ``owled.json``
    :param directory: where they go
    """
    pictures = {'blocks.png': draw_blocks(record), 'projections.png': draw_projections(record),
                'samples.png': draw_samples(record)}
    pictures = {name: picture for name, picture in pictures.items() if picture}
    for name, picture in pictures.items():
        (directory / name).write_bytes(picture)
    (directory / 'report.html').write_text(_page(record, pictures))


def _page(record: dict, pictures: dict[str, bytes]) -> str:
    title = html.escape(f'{record["model"]["name"]}, pruned')
    images = {name: _image(name, data) for name, data in pictures.items()}
    parts = [
        f'<h1>{title}</h1>', _summary(record),
        '<h2>What was cut</h2>', images.get('blocks.png', ''), images['projections.png'],
        _component_table(record),
        '<h2>Size and speed</h2>', _size(record),
        '<h2>What it was calibrated on</h2>', images.get('samples.png', ''), _sources(record),
        '<h2>To do it again</h2>', _again(record),
        '<h2>In numbers</h2>', _block_table(record), _projection_table(record), _origin(record)]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n')


def _image(name: str, data: bytes) -> str:
    code = base64.b64encode(data).decode()
    return (f'<figure><img alt="{SHOWS[name]}" src="data:image/png;base64,{code}">'
            f'<figcaption>{SHOWS[name]}</figcaption></figure>')


def _summary(record: dict) -> str:
    sparsity, loss, settings = record['sparsity'], record['loss'], record['settings']
    measured = f'{loss["samples"]} {loss["measured_on"]}, {loss["tokens"]:,} tokens'
    return _table('', ('', ''), [
        ('sparsity', f'{_percent(sparsity["measured"])} measured, '
                     f'{_percent(sparsity["requested"])} requested'),
        ('weights pruned', f'{sparsity["pruned_weights"]:,} of {sparsity["prunable_weights"]:,} '
                           f'prunable, of {sparsity["weights"]:,} in all'),
        ('method, allocation', f'{settings["method"]}, {settings["allocation"]}'),
        ('pattern, statistics', f'{settings["pattern"]}, {settings["statistics"]}'),
        ('calibration samples', f'{record["data"]["samples"]:,}'),
        ('loss a token, dense', f'{loss["dense"]:.4f} ({measured})'),
        ('loss a token, pruned', f'{loss["pruned"]:.4f} ({loss["pruned"] - loss["dense"]:+.4f})'),
    ])


def _component_table(record: dict) -> str:
    rows = []
    for component, name in COMPONENTS.items():
        blocks = [block for block in record['blocks'] if block['component'] == component]
        if blocks:
            weights, pruned = (sum(b[key] for b in blocks) for key in ('weights', 'pruned'))
            rows.append((name, str(len(blocks)), f'{weights:,}', f'{pruned:,}',
                         _percent(pruned / weights), _percent(requested_of(record, component))))
    head = ('', 'blocks', 'weights', 'pruned', 'sparsity', 'requested')
    return _table('By component', head, rows)


def _size(record: dict) -> str:
    sparsity, size = record['sparsity'], record['bytes']
    rows = [('weight files, dense', f'{size["dense"]:,} bytes'),
            ('weight files, pruned', f'{size["pruned"]:,} bytes'),
            ('weights that are not pruned',
             f'{sparsity["weights"] - sparsity["pruned_weights"]:,} of {sparsity["weights"]:,}')]
    return _table('', ('', ''), rows) + (
        '<p>Pruned weights are stored as zeros, in the files, names and types of the dense model, '
        'so that every program that loads that one loads this one, and the bytes are the same. '
        'Dense kernels, as in transformers and PyTorch by themselves, multiply zeros like any '
        'number: run by them this model is neither faster nor smaller in memory than the dense '
        'one. The driver of owled_ros can keep pruned projections packed, without their zeros, '
        'and multiply them so: with the backend auto the driving node measures, when it is '
        'configured, whether that is faster on its computer; <code>owled bench</code> measures '
        'it too.</p>')


def _sources(record: dict) -> str:
    sources = record['data'].get('sources', ())
    if not sources:
        return (f'<p>{record["data"]["samples"]} samples that were handed over in Python; they '
                'were not described.</p>')
    rows = [(source['kind'], ', '.join(source.get('names', ())), f'{source["usable"]:,}',
             str(source['calibration']), str(source['held_out']), source.get('labels', 'the text'))
            for source in sources]
    head = ('kind', 'from', 'usable', 'calibrated on', 'held out', 'what was taught')
    return _table('Sources', head, rows) + ''.join(map(_source_details, sources))


def _source_details(source: dict) -> str:
    head = ('', 'usable', 'calibrated on', 'held out')
    for key, caption in (('kinds', 'Kinds of driving, in frames'), ('files', 'Pieces of text')):
        if key in source:
            return _table(caption, head, [
                (name, *(str(counts.get(group, 0))
                         for group in ('usable', 'calibration', 'held_out')))
                for name, counts in source[key].items()]) + _left_out(source)
    return ''


def _left_out(source: dict) -> str:
    reasons = [f'{count} {reason}' for reason, count in source.get('left_out', {}).items()]
    return f'<p>Frames left out: {html.escape(", ".join(reasons))}.</p>' if reasons else ''


def _again(record: dict) -> str:
    if 'command' in record['data']:
        command = record['data']['command']
        if record['processes'] > 1:     # they decide in which order sums are rounded
            command = (f'torchrun --nproc-per-node {record["processes"]} -m owled_ros.cli'
                       f'{command.removeprefix("owled")}')
        return (f'<pre>{html.escape(command)}</pre><p>With the same inputs and '
                'versions (below) it gives the same bytes. In Python:</p>'
                f'<pre>{html.escape(record["python"])}</pre>')
    live = any(source['kind'] == 'live drive' for source in record['data'].get('sources', ()))
    note = ('<p>The drive was live and its frames were not kept: on another drive the result will '
            'be another one.</p>' if live else '')
    return f'<pre>{html.escape(record["python"])}</pre>{note}'


def _block_table(record: dict) -> str:
    rows = [(block['name'], f'{block["weights"]:,}', _percent(block['outlier_share']),
             _percent(block['sparsity']),
             '' if block['output_error'] is None else f'{block["output_error"]:.4f}')
            for block in record['blocks']]
    note = f'Outliers measured on {record["sparsity"]["outliers_measured_on"]}'
    return _table(f'Blocks. {note}.',
                  ('block', 'weights', 'outlier share', 'sparsity', 'output error'), rows, 'names')


def _projection_table(record: dict) -> str:
    rows = [(projection['name'], '{} x {}'.format(*projection['shape']),
             _percent(projection['outlier_share']), _percent(projection['sparsity']))
            for block in record['blocks'] for projection in block['projections']]
    return _table('Projections', ('projection', 'shape', 'outlier share', 'sparsity'), rows,
                  'names')


def _origin(record: dict) -> str:
    rows = [(f'{part}: {key}', str(value)) for part in ('model', 'data', 'settings', 'versions')
            for key, value in record[part].items() if key not in ('sources', 'command')]
    return _table('How it was made', ('', ''), rows, 'names')


def _table(caption: str, head: tuple, rows: list[tuple], kind: str = '') -> str:
    def line(cells, tag):
        return '<tr>' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

    body = ''.join(line(row, 'td') for row in rows)
    top = f'<caption>{html.escape(caption)}</caption>' if caption else ''
    top += line(head, 'th') if any(head) else ''
    return f'<table class="{kind}">{top}{body}</table>\n'


def _percent(share: float) -> str:
    return f'{100 * share:.2f} %'
