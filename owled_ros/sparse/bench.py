"""
What packed weights give on this computer: single projections, and whole models.

Ratios are medians of rounds in which all contestants take turns, with the lowest and the highest
beside them. Weights are rotated so that no cache holds them. The dense side is the best of
torch's 16-bit products; float32, dense int8 and dense int4 stand beside it: what a reader could
have without pruning. On a GPU torch's own 2:4 product does, too.
"""

from dataclasses import replace
from pathlib import Path

from owled_ros.driver.checkpoint import choose_dtype, EMBEDDED, load_model, locate
from owled_ros.errors import UserError
from owled_ros.sparse.bench_models import (
    bench_directory,
    bench_model,
    PROMPT_TOKENS,
    require_room,
)
from owled_ros.sparse.linear import kernels_for, prunable_linears, SparseLinear
from owled_ros.sparse.packing import in_huge_pages, pack, pack_int8, PackedWeight
from owled_ros.sparse.sizes import (
    pruned_weight,
    Shape,
    shape_named,
    SHAPES,
    SPARSITIES,
    two_four_weight,
)
from owled_ros.sparse.timing import bandwidth, Contestant, copying, in_turn, rotation_bytes
import torch
from torch.nn import functional

PREFILL_TOKENS = 256
INT4_GROUP = 32


# -- single projections --------------------------------------------------------------------------

def bench_projection(rows: int, columns: int, *, device, rounds: int, batch: int = 1,
                     rotate: int | None = None) -> list[dict]:
    """
    Time y = W x for one shape: dense types, torch's 2:4, and packed at each of SPARSITIES.

    :param rotate: bytes that each contestant's weights rotate through
    :return: a row for each contestant
    """
    device = torch.device(device)
    rotate = rotate or rotation_bytes(device)
    copied = copying(rotate, device)
    contestants = _dense(rows, columns, batch, device, rotate)
    if not two_four_missing(rows, columns, device):
        contestants += _two_four(rows, columns, batch, device, rotate)
    for sparsity in SPARSITIES:
        contestants += _packed(rows, columns, batch, device, rotate, sparsity)
    times = in_turn([copied, *contestants], rounds, device)
    copy_speed = copied.bytes / times.median('copy') / 1e9
    half = times.fastest(['bf16', 'fp16'])
    result = []
    for contestant in contestants:
        seconds = times.median(contestant.name)
        ratio, low, high = times.ratio(half, contestant.name)
        kind, _, share = contestant.name.partition(' at ')
        speed, limit = contestant.bytes / seconds / 1e9, 2 * rows * columns / contestant.bytes
        result.append({
            'rows': rows, 'columns': columns, 'batch': batch, 'what': kind,
            'sparsity': float(share.rstrip('%')) / 100 if share else 0.0, 'seconds': seconds,
            'bytes': contestant.bytes, 'bits_per_weight': 8 * contestant.bytes / (rows * columns),
            'gweights_per_s': rows * columns / seconds / 1e9,
            'gb_per_s': speed, 'of_copy': speed / copy_speed, 'best_16_bit': half,
            'times_16_bit': ratio, 'times_16_bit_low': low, 'times_16_bit_high': high,
            'times_float32': times.ratio('fp32', contestant.name)[0],
            'limit': limit, 'of_limit': ratio / limit})
    return result


def _copies(bytes_each: int, rotate: int) -> int:
    return max(2, -(-rotate // bytes_each))


def _dense(rows, columns, batch, device, rotate) -> list[Contestant]:
    weight, x = torch.randn(rows, columns, device=device), torch.randn(batch, columns,
                                                                       device=device)
    found = []
    for name, dtype in (('fp32', torch.float32), ('bf16', torch.bfloat16),
                        ('fp16', torch.float16)):
        size = rows * columns * dtype.itemsize
        copies = [weight.to(dtype, copy=True) for _ in range(_copies(size, rotate))]
        given = x.to(dtype)
        found.append(Contestant(name, [
            lambda copy=copy, given=given: functional.linear(given, copy) for copy in copies],
            size))
    for name, make in (('dense int8', _dense_int8), ('dense int4', _dense_int4)):
        try:
            size, call = make(weight, x, rotate)
            call[0]()
        except (AttributeError, RuntimeError, NotImplementedError):
            continue    # torch has none for this device
        found.append(Contestant(name, call, size))
    return found


def _dense_int8(weight, x, rotate):
    """Torch's product of bf16 inputs with int8 weights, a scale a row."""
    rows, columns = weight.shape
    scales = (weight.abs().amax(1) / 127)
    rounded = (weight / scales[:, None]).round().to(torch.int8)
    given, scales = x.bfloat16(), scales.bfloat16()
    copies = [rounded.clone() for _ in range(_copies(rounded.numel(), rotate))]
    return rounded.numel(), [lambda copy=copy: torch._weight_int8pack_mm(given, copy, scales)
                             for copy in copies]


def _dense_int4(weight, x, rotate):
    """Torch's product of bf16 inputs with int4 weights, a scale and zero for each INT4_GROUP."""
    rows, columns = weight.shape
    if x.is_cuda:
        raise NotImplementedError('packed for CPUs only here')
    values = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    scales = torch.rand(columns // INT4_GROUP, rows, 2).bfloat16()
    given = x.bfloat16()
    size = packed.numel() + scales.numel() * 2
    copies = [packed.clone() for _ in range(_copies(size, rotate))]
    return size, [lambda copy=copy: torch.ops.aten._weight_int4pack_mm_for_cpu(
        given, copy, INT4_GROUP, scales) for copy in copies]


def two_four_missing(rows: int, columns: int, device: torch.device) -> str:
    """Return why torch has no 2:4 product of such a weight here; '' where it has one."""
    if device.type != 'cuda':
        return f'torch has no such product for {device.type}'
    try:
        _two_four(rows, columns, 1, device, 1)[0].turns[0]()
    except Exception as error:  # of the shape, the GPU's generation, or torch's build
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ''


def _two_four(rows, columns, batch, device, rotate) -> list[Contestant]:
    """Torch's product of bf16 inputs with 2:4 weights in bf16."""
    weight = two_four_weight(rows, columns).to(device)
    x = torch.randn(batch, columns, device=device, dtype=weight.dtype)
    compress = torch.sparse.to_sparse_semi_structured
    first = compress(weight)
    size = sum(part.nbytes for part in (first.packed, first.meta) if part is not None)
    copies = [first, *(compress(weight) for _ in range(_copies(size, rotate) - 1))]
    return [Contestant('2:4 at 50%', [lambda copy=copy: functional.linear(x, copy)
                                      for copy in copies], size)]


def _packed(rows, columns, batch, device, rotate, sparsity) -> list[Contestant]:
    weight = pruned_weight(rows, columns, sparsity)
    kernels, found = kernels_for(device), []
    dtype = torch.float32 if device.type == 'cpu' else torch.bfloat16
    x = torch.randn(batch, columns, device=device, dtype=dtype)
    for name, one in (('packed', pack(weight)), ('packed int8', pack_int8(weight))):
        copies = [one] * _copies(one.bytes, rotate)
        if device.type == 'cpu':
            copies = in_huge_pages([_renamed(one) for one in copies])
        else:
            copies = [one.to(device) for one in copies]
        bound = [kernels.bind(copy) for copy in copies]
        found.append(Contestant(f'{name} at {sparsity:.0%}', [
            lambda matrix=matrix: kernels.multiply(matrix, x) for matrix in bound], one.bytes))
    return found


def _renamed(weight: PackedWeight) -> PackedWeight:
    """Return another object with the same tensors, to be copied on its own."""
    return PackedWeight(columns=weight.columns, pattern=weight.pattern, **weight.tensors())


def bench_prefill(rows: int, columns: int, *, device, rounds: int) -> dict:
    """Time PREFILL_TOKENS rows through tiles of packed weights against the dense product."""
    device = torch.device(device)
    dtype = torch.float32 if device.type == 'cpu' else torch.bfloat16
    weight = pruned_weight(rows, columns, 0.5).to(device, dtype)
    layer = SparseLinear(pack(weight))
    x = torch.randn(PREFILL_TOKENS, columns, device=device, dtype=dtype)
    times = in_turn([Contestant('dense', [lambda: functional.linear(x, weight)]),
                     Contestant('packed', [lambda: layer(x)])], rounds, device)
    slower, low, high = times.ratio('packed', 'dense')
    return {'rows': rows, 'columns': columns, 'tokens': PREFILL_TOKENS,
            'seconds_dense': times.median('dense'), 'times_dense': slower,
            'times_dense_low': low, 'times_dense_high': high}


# -- a size, or a model of the user's -------------------------------------------------------------

def bench_named(model: str, *, device, rounds: int, progress,
                layers: int | None = None) -> dict:
    """
    Measure a size of SHAPES with random weights, or a model directory.

    :param layers: of a size; by default all
    :param progress: takes lines as they are known
    :raises UserError: when it is neither, or the memory does not hold it
    """
    device = torch.device(device)
    shape = _shape(model, layers)
    if shape is not None:
        require_room(shape, device)
    machine = about(device)
    progress(', '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
                       for name, value in machine.items()))
    sizes = _sizes(model) if shape is None else shape.projections()
    result = {'machine': machine, **_bench_projections(sizes, device, rounds, progress)}
    if shape is None:
        progress(f'{model}: a frame to its action, and a token of the explanation')
        rows, absent = bench_directory(model, device=device, rounds=rounds,
                                       types=_driver_types(device))
        whole = {'first': 'action', 'rows': rows}
    else:
        progress(f'{model}: the language model with random weights, prefill of {PROMPT_TOKENS} '
                 f'tokens, and a token after them{_share_of_layers(model, shape)}')
        fastest = _fastest_type(result['projections'], device)
        rows, absent = bench_model(shape, device=device, rounds=rounds, dtype=fastest), []
        whole = {'first': 'prefill', 'prefill_tokens': PROMPT_TOKENS, 'layers': shape.layers,
                 'of_layers': SHAPES[model].layers, 'rows': rows}
    for line in [*model_lines(rows, whole['first']), *map(_absent_line, absent)]:
        progress(line)
    return {**result, 'model': whole, 'absent': result['absent'] + absent}


def _shape(model: str, layers: int | None) -> Shape | None:
    """Return the size of that name, with so many layers; None for a directory."""
    if model not in SHAPES and ('/' in model or model == EMBEDDED or Path(model).exists()):
        if layers is not None:
            raise UserError(f'{model} is measured whole; leave out --layers, which goes with a '
                            f'named size')
        return None
    shape = shape_named(model)
    if layers is None:
        return shape
    if not 1 <= layers <= shape.layers:
        raise UserError(f'{model} has 1 to {shape.layers} layers to measure, not {layers}')
    return replace(shape, layers=layers)


def _share_of_layers(model, shape) -> str:
    whole = SHAPES[model].layers
    return '' if shape.layers == whole else f'; {shape.layers} of its {whole} layers, and the head'


def _sizes(model: str) -> dict[str, tuple[int, int]]:
    """Return the different sizes of the projections that a model decodes with, by a name."""
    loaded = load_model(locate(model), 'cpu', 'bfloat16')
    decoding = set(loaded.get_decoder().modules())
    sizes = {}
    for name, module in prunable_linears(loaded).items():
        if module in decoding:
            sizes.setdefault((module.out_features, module.in_features), name)
    return {name: size for size, name in sizes.items()}


def _bench_projections(sizes, device, rounds, progress) -> dict:
    """Measure sizes by name; returns what bench_named does of them."""
    projections, prefill, absent = [], [], []
    for name, (rows, columns) in sizes.items():
        progress(f'{name} {rows} x {columns}')
        found = bench_projection(rows, columns, device=device, rounds=rounds)
        for line in projection_lines(found):
            progress(line)
        missing = two_four_missing(rows, columns, device)
        if missing:
            absent.append({'what': '2:4', 'projection': name, 'why': missing})
            progress(_absent_line(absent[-1]))
        prefill.append(bench_prefill(rows, columns, device=device, rounds=rounds))
        progress(f'prefill of {PREFILL_TOKENS}: {_ratio(prefill[-1], "times_dense", 4)} times the '
                 f'dense seconds')
        projections += [{'projection': name, **row} for row in found]
    return {'projections': projections, 'prefill': prefill, 'absent': absent}


def _absent_line(absent) -> str:
    return f'{absent["what"]}: {absent["why"]}'


def _driver_types(device) -> list[torch.dtype]:
    """Return the types to measure a driver in: that which it has by default first."""
    default = choose_dtype('auto', device)
    return [default] if device.type == 'cuda' else [default, torch.bfloat16]


def _fastest_type(projections, device) -> torch.dtype:
    """Return the type that dense projections are fastest in."""
    if device.type == 'cuda':
        return choose_dtype('auto', device)
    types = {'bf16': torch.bfloat16, 'fp32': torch.float32}
    seconds = {name: sum(row['seconds'] for row in projections if row['what'] == name)
               for name in types}
    return types[min(seconds, key=seconds.get)]


# -- reports -------------------------------------------------------------------------------------

def about(device) -> dict:
    """Return what was measured on: device, threads, kernels, and the bandwidth of a copy."""
    device = torch.device(device)
    speeds = bandwidth(device)
    return {'device': str(device), 'threads': torch.get_num_threads(),
            'kernels': kernels_for(device).name, 'torch': torch.__version__,
            'copy_gb_per_s': speeds['copy'], 'read_gb_per_s': speeds['read'],
            'rotated_bytes': rotation_bytes(device)}


def projection_lines(rows: list[dict]) -> list[str]:
    """Return the rows of `bench_projection` as lines of a table."""
    lines = [f'{"what":12s} {"zeros":>5s} {"us":>9s} {"Gw/s":>7s} {"bits":>5s} {"GB/s":>6s} '
             f'{"of copy":>7s} {"x 16 bit":>8s} {"(low, high)":>14s} {"limit":>6s} '
             f'{"of limit":>8s} {"x fp32":>6s}']
    for row in rows:
        lines.append(
            f'{row["what"]:12s} {row["sparsity"]:5.0%} {row["seconds"] * 1e6:9.1f} '
            f'{row["gweights_per_s"]:7.2f} {row["bits_per_weight"]:5.2f} {row["gb_per_s"]:6.1f} '
            f'{row["of_copy"]:7.0%} {_ratio(row, "times_16_bit", 8)} {row["limit"]:6.2f} '
            f'{row["of_limit"]:8.0%} {row["times_float32"]:6.2f}')
    return lines


def model_lines(rows: list[dict], first: str) -> list[str]:
    """Return the rows of `bench_models.measure` as lines of a table."""
    lines = [f'{"what":12s} {"type":8s} {"zeros":>5s} {"MB":>7s} {first + " ms":>10s} '
             f'{"x dense":>7s} {"(low, high)":>14s} {"token ms":>8s} {"x dense":>7s} '
             f'{"(low, high)":>14s} {"GB/s":>6s} {"of copy":>7s} {"limit":>6s} {"of limit":>8s}']
    for row in rows:
        lines.append(
            f'{row["what"]:12s} {row["type"]:8s} {row["sparsity"]:5.0%} '
            f'{row["weight_bytes"] / 1e6:7.1f} {row["seconds_first"] * 1e3:10.1f} '
            f'{_ratio(row, "times_dense_first", 7)} {row["seconds_token"] * 1e3:8.2f} '
            f'{_ratio(row, "times_dense_token", 7)} {row["gb_per_s"]:6.1f} '
            f'{row["of_copy"]:7.0%} {row["limit"]:6.2f} {row["of_limit"]:8.0%}')
    return lines


def _ratio(row, key, width) -> str:
    spread = f'({row[f"{key}_low"]:.2f}, {row[f"{key}_high"]:.2f})'
    return f'{row[key]:{width}.2f} {spread:>14s}'


# -- the plot ------------------------------------------------------------------------------------

COLOURS = {'transformers': '0.6', 'dense': 'tab:blue', 'sparse': 'tab:green'}


def plot(projections: list[dict], path, model: dict | None = None) -> None:
    """
    Draw how many times faster than 16-bit dense each packed projection is, with the limit.

    :param model: of `bench_named`: its times stand beside that
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    if model is None:
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout='constrained')
    else:
        figure = pyplot.figure(figsize=(13, 4.5), layout='constrained')
        panels = figure.subplot_mosaic([['ratios', 'first'], ['ratios', 'token']])
        axes = panels['ratios']
        _draw_times(panels['first'], model['rows'], 'first', _title(model))
        _draw_times(panels['token'], model['rows'], 'token', 'A token after it')
    _draw_ratios(axes, [row for row in projections if row['what'] == 'packed'])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_ratios(axes, packed) -> None:
    for shape in dict.fromkeys((row['rows'], row['columns']) for row in packed):
        mine = [row for row in packed if (row['rows'], row['columns']) == shape]
        axes.plot([row['sparsity'] for row in mine], [row['times_16_bit'] for row in mine],
                  marker='o', label=f'{shape[0]} x {shape[1]}')
    shares = [0.4, 0.5, 0.6, 0.7, 0.8]
    axes.plot(shares, [1 / (1 - share + 1 / 16) for share in shares], 'k--', label='limit')
    axes.axhline(1, color='grey', linewidth=0.8)
    axes.set(xlabel='share of weights that are zero', ylabel='times the best dense 16-bit product',
             title='Decoding with packed weights, batch 1')
    axes.legend()


def _title(model) -> str:
    if model['first'] == 'action':
        return 'A frame to its action'
    layers, whole = model['layers'], model['of_layers']
    of_layers = '' if layers == whole else f', {layers} of {whole} layers'
    return f'Prefill of {model["prefill_tokens"]} tokens{of_layers}'


def _draw_times(axes, rows, part, title) -> None:
    """Draw the times of whole models as bars, from the lowest round to the highest a line."""
    names = [f'{row["what"]} {row["sparsity"]:.0%}' if row['what'] == 'sparse' else row['what']
             for row in rows]
    labels = [f'{name}, {row["type"]}' for name, row in zip(names, rows)]
    key = f'seconds_{part}'
    middle = [row[key] * 1e3 for row in rows]
    spread = [[(row[key] - row[f'{key}_low']) * 1e3 for row in rows],
              [(row[f'{key}_high'] - row[key]) * 1e3 for row in rows]]
    bars = axes.barh(labels, middle, xerr=spread, color=[COLOURS[row['what']] for row in rows],
                     error_kw={'elinewidth': 1, 'ecolor': 'black'})
    axes.bar_label(bars, [f' {row[f"times_dense_{part}"]:.2f} x' for row in rows],
                   padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(xlabel='ms (and how many times as fast as the fastest dense)', title=title)
