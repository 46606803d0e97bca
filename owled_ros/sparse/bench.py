"""
What packed weights give on this computer: single projections, and whole language models.

Ratios are medians of rounds in which all contestants take turns, with the lowest and the highest
beside them. Weights are rotated so that no cache holds them. The dense side is the best of
torch's 16-bit products; float32, dense int8 and dense int4 stand beside it: what a reader could
have without pruning.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

from owled_ros.driver.checkpoint import EMBEDDED, load_model, locate
from owled_ros.driver.stepping import CachePool, language_step, SteppedDecoder
from owled_ros.errors import UserError
from owled_ros.sparse.linear import (
    kernels_for,
    make_sparse,
    packed_bytes,
    prunable_linears,
    SparseLinear,
)
from owled_ros.sparse.packing import in_huge_pages, pack, pack_int8, PackedWeight
from owled_ros.sparse.timing import bandwidth, Contestant, in_turn, rotation_bytes
import torch
from torch.nn import functional

SPARSITIES = (0.5, 0.6, 0.7)
PREFILL_TOKENS = 256
INT4_GROUP = 32


@dataclass(frozen=True)
class Shape:
    """The sizes of a language model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    head_size: int = 128

    def projections(self) -> dict[str, tuple[int, int]]:
        """Return (rows, columns) of a layer's different projections."""
        inner = self.heads * self.head_size
        return {'attention.q': (inner, self.hidden), 'mlp.up': (self.intermediate, self.hidden),
                'mlp.down': (self.hidden, self.intermediate)}


SHAPES = {
    'smolvlm-256m': Shape(576, 1536, 30, 9, 3, 49280, 64),
    'qwen-0.5b': Shape(896, 4864, 24, 14, 2, 151936, 64),
    'smolvlm-2.2b': Shape(2048, 8192, 24, 32, 32, 49280, 64),
    'qwen2.5-vl-3b': Shape(2048, 11008, 36, 16, 2, 151936),
    '7b': Shape(3584, 18944, 28, 28, 4, 152064),
}


def shape_named(name: str) -> Shape:
    """Return one of SHAPES. Raises UserError for another name."""
    if name not in SHAPES:
        raise UserError(f'there is no shape {name!r}; use one of {", ".join(SHAPES)}')
    return SHAPES[name]


def pruned_weight(rows: int, columns: int, sparsity: float, dtype=torch.float16) -> torch.Tensor:
    """Make a random weight, each of its places zero with the same probability."""
    weight = torch.randn(rows, columns).to(dtype)
    return weight.mul_(torch.rand(rows, columns) >= sparsity)


# -- single projections --------------------------------------------------------------------------

def bench_projection(rows: int, columns: int, *, device, rounds: int, batch: int = 1,
                     rotate: int | None = None) -> list[dict]:
    """
    Time y = W x for one shape: dense types, and packed at each of SPARSITIES.

    :param rotate: bytes that each contestant's weights rotate through
    :return: a row for each contestant
    """
    device = torch.device(device)
    rotate = rotate or rotation_bytes(device)
    contestants = _dense(rows, columns, batch, device, rotate)
    for sparsity in SPARSITIES:
        contestants += _packed(rows, columns, batch, device, rotate, sparsity)
    times = in_turn(contestants, rounds, device)
    half = times.fastest(['bf16', 'fp16'])
    result = []
    for contestant in contestants:
        seconds = times.median(contestant.name)
        ratio, low, high = times.ratio(half, contestant.name)
        kind, _, share = contestant.name.partition(' at ')
        result.append({
            'rows': rows, 'columns': columns, 'batch': batch, 'what': kind,
            'sparsity': float(share.rstrip('%')) / 100 if share else 0.0, 'seconds': seconds,
            'bytes': contestant.bytes, 'bits_per_weight': 8 * contestant.bytes / (rows * columns),
            'gweights_per_s': rows * columns / seconds / 1e9,
            'gb_per_s': contestant.bytes / seconds / 1e9, 'best_16_bit': half,
            'times_16_bit': ratio, 'times_16_bit_low': low, 'times_16_bit_high': high,
            'times_float32': times.ratio('fp32', contestant.name)[0],
            'limit': 2 * rows * columns / contestant.bytes})
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


# -- whole language models -----------------------------------------------------------------------

def random_model(shape: Shape, sparsity: float, dtype=torch.bfloat16):
    """Make a language model of random weights, its projections pruned; the head is tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate, num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads, head_dim=shape.head_size, tie_word_embeddings=True,
        dtype=dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for module in model.model.layers.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(pruned_weight(*module.weight.shape, sparsity) * 0.02)
    return model


def bench_model(shape: Shape, *, sparsity: float, device, rounds: int, tokens: int = 8,
                prompt: int = 128) -> dict:
    """
    Time decoding a token end to end: dense by transformers and by our steps, and packed.

    `explained` is the share of the packed token's time that its products alone take: the packed
    projections, each timed in the order of the model, and the dense head.
    """
    device = torch.device(device)
    dense = random_model(shape, sparsity).to(device)
    sparse = copy.deepcopy(dense)
    projections = sum(module.weight.numel() * 2 for module in dense.model.layers.modules()
                      if isinstance(module, torch.nn.Linear))
    make_sparse(sparse)
    ids = {'input_ids': torch.randint(0, shape.vocabulary, (1, prompt), device=device)}

    def decoding(model, step):
        decoder = SteppedDecoder(model, ids, CachePool(), step)

        def run():
            decoder.feed([1])
            decoder.next_logits()
        return [run] * tokens

    with torch.inference_mode():
        contestants = [
            Contestant('transformers', decoding(dense, None)),
            Contestant('dense', decoding(dense, language_step(dense)[0])),
            Contestant('packed', decoding(sparse, language_step(sparse)[0])),
            Contestant('products', [_products(sparse, device)] * tokens)]
    times = in_turn(contestants, rounds, device)
    ratio, low, high = times.ratio('dense', 'packed')
    whole = sum(parameter.numel() * 2 for parameter in dense.parameters())
    mine = packed_bytes(sparse)
    return {
        'sparsity': sparsity, 'seconds_transformers': times.median('transformers'),
        'seconds_dense': times.median('dense'), 'seconds_packed': times.median('packed'),
        'times_dense': ratio, 'times_dense_low': low, 'times_dense_high': high,
        'times_transformers': times.ratio('transformers', 'packed')[0],
        'limit': whole / (mine + whole - projections),
        'explained': 1 / times.ratio('packed', 'products')[0],
        'packed_share': mine / projections,
        'model_share': (mine + whole - projections) / whole}


def _products(model, device):
    """Return a call that runs a model's products alone, in their order."""
    layers = [module for module in model.modules() if isinstance(module, SparseLinear)]
    dtype = model.dtype
    inputs = {layer.in_features: torch.randn(1, layer.in_features, device=device, dtype=dtype)
              for layer in layers}
    hidden = torch.randn(1, model.lm_head.in_features, device=device, dtype=dtype)

    def run():
        for layer in layers:
            layer(inputs[layer.in_features])
        model.lm_head(hidden)
    return run


# -- a size, or a model of the user's -------------------------------------------------------------

def bench_named(model: str, *, device, rounds: int, progress) -> dict:
    """
    Measure a size of SHAPES with drawn weights, or the projections of a model directory.

    :param progress: takes lines as they are known
    :raises UserError: when it is neither
    """
    machine = about(device)
    progress(', '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
                       for name, value in machine.items()))
    projections, prefill = [], []
    for name, (rows, columns) in _projections(model).items():
        progress(f'{name} {rows} x {columns}')
        found = bench_projection(rows, columns, device=device, rounds=rounds)
        for line in projection_lines(found):
            progress(line)
        prefill.append(bench_prefill(rows, columns, device=device, rounds=rounds))
        progress(f'prefill of {PREFILL_TOKENS}: {prefill[-1]["times_dense"]:.2f} times dense')
        projections += [{'projection': name, **row} for row in found]
    return {'machine': machine, 'projections': projections, 'prefill': prefill}


def _projections(model: str) -> dict[str, tuple[int, int]]:
    """Return the different sizes of the language model's projections, by a name."""
    if model in SHAPES:
        return SHAPES[model].projections()
    if '/' not in model and not Path(model).exists() and model != EMBEDDED:
        return shape_named(model).projections()     # which says what there is
    loaded = load_model(locate(model), 'cpu')
    sizes = {}
    for name, module in prunable_linears(loaded).items():
        sizes.setdefault((module.out_features, module.in_features), name)
    return {name: size for size, name in sizes.items()}


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
    lines = [f'{"what":18s} {"zeros":>5s} {"us":>9s} {"Gw/s":>7s} {"GB/s":>6s} {"bits":>5s} '
             f'{"x 16 bit":>8s} {"(low, high)":>13s} {"limit":>6s} {"x fp32":>6s}']
    for row in rows:
        spread = f'({row["times_16_bit_low"]:.2f}, {row["times_16_bit_high"]:.2f})'
        lines.append(
            f'{row["what"]:18s} {row["sparsity"]:5.0%} {row["seconds"] * 1e6:9.1f} '
            f'{row["gweights_per_s"]:7.2f} {row["gb_per_s"]:6.1f} {row["bits_per_weight"]:5.2f} '
            f'{row["times_16_bit"]:8.2f} {spread:>13s} {row["limit"]:6.2f} '
            f'{row["times_float32"]:6.2f}')
    return lines


def plot(rows: list[dict], path) -> None:
    """Draw how many times faster than 16-bit dense each packed projection is, with the limit."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout='constrained')
    packed = [row for row in rows if row['what'] == 'packed']
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
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
