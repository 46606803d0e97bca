#!/usr/bin/env python3
"""Are packed weights faster, and smaller? Single projections, prefill, and whole language models.

    benchmarks/decode.py --json decode.json --plot decode.png   # on a quiet machine, minutes
    benchmarks/decode.py --device cuda --json decode-gpu.json   # the same for the GPU's kernels
    benchmarks/decode.py --quick                                # one shape, to try it

Bars: times the best 16-bit product of torch and times its float32 product, per projection at 50 %
and 70 %; prefill not more than a tenth slower; memory; and the share of an end-to-end token that
the products explain. See docs/sparse-runtime.md.
"""

import argparse
import json
from pathlib import Path

from owled_ros.sparse import bench
import torch

CONSUMER = {0.5: 1.45, 0.6: 1.75, 0.7: 2.2}
DATA_CENTRE = {0.5: 1.15, 0.6: 1.35, 0.7: 1.6}
CPU_16_BIT, CPU_FLOAT32 = {0.5: 1.5, 0.7: 1.8}, {0.5: 3.0, 0.7: 3.5}
MEMORY = {0.5: 0.58, 0.7: 0.38}
PREFILL, EXPLAINED = 1.10, 0.85


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', help='cpu or cuda (cpu)')
    parser.add_argument('--shapes', nargs='+', default=['qwen-0.5b', 'qwen2.5-vl-3b', '7b'])
    parser.add_argument('--models', nargs='*', default=['qwen-0.5b'],
                        help='whole models to decode with (qwen-0.5b)')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--plot', type=Path)
    parser.add_argument('--quick', action='store_true')
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.shapes, chosen.models, chosen.rounds = ['smolvlm-256m'], [], 3
    return chosen


def measure(chosen) -> list[dict]:
    rows = []
    for name in chosen.shapes:
        for projection, size in bench.shape_named(name).projections().items():
            print(f'{name} {projection} {size[0]} x {size[1]}', flush=True)
            found = bench.bench_projection(*size, device=chosen.device, rounds=chosen.rounds,
                                           rotate=(64 << 20) if chosen.quick else None)
            print('\n'.join(bench.projection_lines(found)), flush=True)
            rows += [{'kind': 'projection', 'shape': name, 'projection': projection, **row}
                     for row in found]
            prefill = bench.bench_prefill(*size, device=chosen.device, rounds=chosen.rounds)
            print(f'prefill of {prefill["tokens"]}: {prefill["times_dense"]:.2f} times dense\n',
                  flush=True)
            rows.append({'kind': 'prefill', 'shape': name, 'projection': projection, **prefill})
    for name in chosen.models:
        print(f'{name}, the language model: prefill of {bench.PROMPT_TOKENS} tokens, and a token '
              f'after them', flush=True)
        found = bench.bench_model(bench.shape_named(name), sparsities=(0.5, 0.7),
                                  device=chosen.device, rounds=chosen.rounds)
        print('\n'.join(bench.model_lines(found, 'prefill')), flush=True)
        rows += [{'kind': 'model', 'shape': name, **row} for row in found]
    return rows


def bars_of(rows, device) -> list[dict]:
    """Return the bars of the issue; a projection's bar is judged at its worst shape."""
    bars = []
    times = CPU_16_BIT if device == 'cpu' else gpu_bars()
    judged = [row for row in rows if row['kind'] == 'projection' and row['what'] == 'packed'
              and (device == 'cpu' or row['projection'].startswith('mlp'))]
    for sparsity, bar in times.items():
        bars.append(worst(f'times 16 bit at {sparsity:.0%}', 'times_16_bit', judged, sparsity,
                          bar))
    if device == 'cpu':
        for sparsity, bar in CPU_FLOAT32.items():
            bars.append(worst(f'times float32 at {sparsity:.0%}', 'times_float32', judged,
                              sparsity, bar))
    for sparsity, bar in MEMORY.items():
        found = [row['bits_per_weight'] / 16 for row in judged if row['sparsity'] == sparsity]
        bars.append(at_most(f'share of bf16 memory at {sparsity:.0%}', found, bar))
    bars.append(at_most('times dense, prefill', [row['times_dense'] for row in rows
                                                 if row['kind'] == 'prefill'], PREFILL))
    explained = [row['explained'] for row in rows if 'explained' in row]
    if explained:
        bars.append({'name': 'share of a token that its products take', 'value': min(explained),
                     'bar': EXPLAINED, 'met': min(explained) >= EXPLAINED})
    return bars


def gpu_bars():
    name = torch.cuda.get_device_name()
    return DATA_CENTRE if any(kind in name for kind in ('H100', 'H200', 'A100')) else CONSUMER


def worst(name, field, rows, sparsity, bar) -> dict:
    value = min(row[field] for row in rows if row['sparsity'] == sparsity)
    return {'name': name, 'value': value, 'bar': bar, 'met': value >= bar}


def at_most(name, values, bar) -> dict:
    return {'name': name, 'value': max(values), 'bar': bar, 'met': max(values) <= bar}


def main(arguments=None) -> None:
    chosen = parse_arguments(arguments)
    machine = bench.about(chosen.device)
    print(', '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
                    for name, value in machine.items()), flush=True)
    rows = measure(chosen)
    bars = bars_of(rows, chosen.device)
    for bar in bars:
        print(f'{bar["name"]:40s} {bar["value"]:8.3f} {bar["bar"]:8.3f} '
              f'{"met" if bar["met"] else "NOT MET"}')
    if chosen.json:
        chosen.json.write_text(json.dumps(
            {'rows': rows, 'bars': bars, 'machine': machine}, indent=1) + '\n')
    if chosen.plot:
        bench.plot([row for row in rows if row['kind'] == 'projection'], chosen.plot)


if __name__ == '__main__':
    main()
