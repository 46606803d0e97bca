"""
Products with packed weights on a GPU, in Triton; torch's CUDA builds bring it along.

A program takes a few rows and walks along them, some mask words at a time. Where a word's values
begin is the row's start, plus the values of the words before it (a running sum in the program),
plus the bits below (counted per column). No index is stored, and each mask and value is read
once. Columns of x are read by every program and come from the cache.

Tested in Triton's interpreter on a CPU (TRITON_INTERPRET=1). The block sizes below were not tuned
on a GPU: benchmarks/decode.py --device cuda times them.
"""

from owled_ros.sparse.packing import PackedWeight
import torch
import triton
import triton.language as tl

ROWS, WORDS = 4, 8      # of one program: 4 rows x 8 words x 32 columns at a time
WARPS = 4


@triton.jit
def _bit_counts(words):
    """Count the set bits of each uint32."""
    pairs = words - ((words >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    return ((eights * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _expand(words, starts, values):
    """Return float32 weights [rows, words, 32] of masks [rows, words], and each row's count."""
    counts = _bit_counts(words)
    begins = starts[:, None] + tl.cumsum(counts, 1) - counts                # [rows, words]
    bit = tl.arange(0, 32).to(tl.uint32)[None, None, :]
    spread = words[:, :, None]
    below = _bit_counts(spread & ((1 << bit) - 1).to(tl.uint32))            # [rows, words, 32]
    present = ((spread >> bit) & 1) != 0
    weights = tl.load(values + begins[:, :, None] + below, mask=present, other=0)
    return weights.to(tl.float32), tl.sum(counts, 1)


@triton.jit
def _multiply(masks, values, starts, scales, x, bias, y, rows, columns, words,
              HAS_SCALES: tl.constexpr, HAS_BIAS: tl.constexpr, BATCH: tl.constexpr,
              BATCH_BLOCK: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < rows
    begins = tl.load(starts + row, mask=valid, other=0)
    batch = tl.arange(0, BATCH_BLOCK)
    sums = tl.zeros([ROWS, BATCH_BLOCK], tl.float32)
    for first in range(0, words, WORDS):
        word = first + tl.arange(0, WORDS)
        mine = tl.load(masks + row[:, None].to(tl.int64) * words + word[None, :],
                       mask=valid[:, None] & (word < words)[None, :], other=0)
        weights, counts = _expand(mine.to(tl.uint32, bitcast=True), begins, values)
        begins += counts
        column = word[:, None] * 32 + tl.arange(0, 32)[None, :]             # [words, 32]
        for b in tl.static_range(BATCH):
            inputs = tl.load(x + b * columns + column, mask=column < columns, other=0)
            products = weights * inputs.to(tl.float32)[None, :, :]
            total = tl.sum(tl.sum(products, 2), 1)                          # [rows]
            sums += tl.where(batch[None, :] == b, total[:, None], 0.0)
    if HAS_SCALES:
        sums *= tl.load(scales + row, mask=valid, other=0)[:, None]
    if HAS_BIAS:
        sums += tl.load(bias + row, mask=valid, other=0).to(tl.float32)[:, None]
    place = y + batch[None, :].to(tl.int64) * rows + row[:, None]
    tl.store(place, sums.to(y.dtype.element_ty), mask=valid[:, None] & (batch < BATCH)[None, :])


@triton.jit
def _unpack(masks, values, starts, scales, out, first, last, columns, words,
            HAS_SCALES: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr):
    row = first + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < last
    begins = tl.load(starts + row, mask=valid, other=0)
    scale = tl.full([ROWS], 1.0, tl.float32)
    if HAS_SCALES:
        scale = tl.load(scales + row, mask=valid, other=0)
    for begin in range(0, words, WORDS):
        word = begin + tl.arange(0, WORDS)
        mine = tl.load(masks + row[:, None].to(tl.int64) * words + word[None, :],
                       mask=valid[:, None] & (word < words)[None, :], other=0)
        weights, counts = _expand(mine.to(tl.uint32, bitcast=True), begins, values)
        begins += counts
        column = (word[:, None] * 32 + tl.arange(0, 32)[None, :])[None, :, :]
        place = out + (row - first).to(tl.int64)[:, None, None] * columns + column
        tl.store(place, (weights * scale[:, None, None]).to(out.dtype.element_ty),
                 mask=valid[:, None, None] & (column < columns))


class TritonKernels:
    """The kernels above, with the interface of those for the CPU (sparse/linear.py)."""

    name = 'triton'

    def bind(self, weight: PackedWeight) -> PackedWeight:
        """Return what the other methods take."""
        return weight

    def multiply(self, weight, x, bias=None):
        """Return x W^T + bias in the type of x: (batch, columns) -> (batch, rows), batch to 8."""
        x = x.contiguous()
        y = x.new_empty(x.shape[0], weight.rows)
        words = weight.mask.shape[1] // 4
        _multiply[triton.cdiv(weight.rows, ROWS),](
            weight.mask.view(torch.int32), weight.values, weight.starts, _or(weight.scales, x), x,
            _or(bias, x), y, weight.rows, weight.columns, words,
            HAS_SCALES=weight.scales is not None, HAS_BIAS=bias is not None, BATCH=x.shape[0],
            BATCH_BLOCK=triton.next_power_of_2(x.shape[0]), ROWS=ROWS, WORDS=WORDS,
            num_warps=WARPS)
        return y

    def unpack(self, weight, first, last, out):
        """Write rows first to last (exclusive) into `out`, zeros and all."""
        _unpack[triton.cdiv(last - first, ROWS),](
            weight.mask.view(torch.int32), weight.values, weight.starts,
            _or(weight.scales, out), out, first, last, weight.columns, weight.mask.shape[1] // 4,
            HAS_SCALES=weight.scales is not None, ROWS=ROWS, WORDS=WORDS, num_warps=WARPS)


def _or(tensor, other):
    """Return a pointer that is never followed where there is no tensor."""
    return other if tensor is None else tensor
