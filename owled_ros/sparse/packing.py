"""
Pruned weights without their zeros: formats, exact round trip, files.

A packed matrix keeps one bit per weight (set where it is not zero) and the set weights' values,
row after row. With b-bit values at density d that is d + 1/b of the dense size. Values are

- fp16, bf16 or fp32, whichever is the narrowest that holds every weight exactly, or
- int8 with one scale a row, lossless against the weights rounded to int8 in the same way.

For an n:m pattern every group of m neighbours has exactly n bits set (zeros of the weights fill a
group that has fewer), so that where a row's values begin is arithmetic and is not stored. The
mask of 2:4 is as large as its usual two-bit indices, and smaller from 4:8 on.

A negative zero is a zero, and comes back as a positive one.
"""

from dataclasses import dataclass
import json
import mmap
import os
from pathlib import Path

from owled_ros.errors import UserError
from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch

WORD = 64            # columns that a mask's word covers; rows of masks are whole words
PADDING = 64         # bytes after the values that a kernel may read, and never uses
VALUE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int8)
FILE_FORMAT = 'owled_sparse_1'      # alone: of several keys safetensors writes any one first
LARGEST = 2 ** 31 - 1    # values of one matrix: row starts are 32-bit


@dataclass(frozen=True)
class PackedWeight:
    """
    A weight matrix (rows = outputs, columns = inputs) without its zeros.

    :param mask: (rows, words * 8) uint8; bit c % 8 of byte c // 8 is set where column c has a
        value; bits past the last column are clear
    :param values: (count + padding,) row after row, in the order of the columns
    :param starts: (rows + 1,) int32, where each row's values begin; the last is the count
    :param scales: (rows,) float32 that int8 values are multiplied with, else None
    :param pattern: (n, m) where every m neighbours have n values, else None
    """

    columns: int
    mask: torch.Tensor
    values: torch.Tensor
    starts: torch.Tensor
    scales: torch.Tensor | None = None
    pattern: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        return self.mask.shape[0]

    @property
    def count(self) -> int:
        """Return the number of stored values."""
        return self.values.shape[0] - PADDING // self.values.element_size()

    @property
    def bytes(self) -> int:
        """Return what it takes in memory: masks, values, starts, scales and padding."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    @property
    def density(self) -> float:
        """Return the share of weights that are stored."""
        return self.count / (self.rows * self.columns)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what it is made of, by name."""
        named = {'mask': self.mask, 'values': self.values, 'starts': self.starts,
                 'scales': self.scales}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device) -> 'PackedWeight':
        """Return it on a device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return PackedWeight(columns=self.columns, pattern=self.pattern, **moved)

    def held_in(self, dtype: torch.dtype) -> 'PackedWeight':
        """Return it with its values rounded to a type, if that does not hold them all."""
        if self.scales is not None or torch.promote_types(self.values.dtype, dtype) == dtype:
            return self
        values = _padded(self.values[:self.count].to(dtype))
        return PackedWeight(self.columns, self.mask, values, self.starts, None, self.pattern)

    def dense(self, dtype: torch.dtype | None = None, rows: slice = slice(None)) -> torch.Tensor:
        """
        Return the weights of some rows, zeros and all.

        :param dtype: of the result; by default that of the values, float32 for int8
        :return: (rows, columns)
        """
        mask, starts = self.mask[rows], self.starts[:-1][rows]
        bits = _bits(mask)[:, :self.columns]
        if not len(starts):
            values = self.values[:0]
        else:
            first = int(starts[0])
            values = self.values[first:first + int(bits.sum())]
        kind = torch.float32 if self.scales is not None else values.dtype
        whole = torch.zeros(bits.shape, dtype=kind, device=mask.device)
        whole[bits] = values.to(kind)
        if self.scales is not None:
            whole *= self.scales[rows, None]
        return whole if dtype is None else whole.to(dtype)


def pack(weight: torch.Tensor, pattern: tuple[int, int] | None = None) -> PackedWeight:
    """
    Pack a weight matrix losslessly, its values in the narrowest type that holds them all.

    :param weight: rows x columns, floating point
    :param pattern: (n, m) when no m neighbours in a row have more than n weights that are not zero
    :raises ValueError: when the weights do not follow the pattern, or are too many
    """
    weight = weight.detach()
    kept = weight != 0
    if pattern is not None:
        kept = _filled_groups(kept, pattern)
    return _packed(weight.to(narrowest_type(weight)), kept, None, pattern)


def pack_int8(weight: torch.Tensor) -> PackedWeight:
    """
    Pack a weight matrix with int8 values: each row times 127 over its largest weight, rounded.

    :param weight: rows x columns, floating point and finite
    """
    weight = weight.detach().float()
    scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    rounded = (weight / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return _packed(rounded, rounded != 0, scales, None)


def narrowest_type(weight: torch.Tensor) -> torch.dtype:
    """Return the narrowest type that holds every weight exactly: a checkpoint's, usually."""
    if weight.element_size() == 2:
        return weight.dtype
    for dtype in (torch.float16, torch.bfloat16):
        if torch.equal(weight.to(dtype).to(weight.dtype), weight):
            return dtype
    return torch.float32


def follows(weight: torch.Tensor, pattern: tuple[int, int]) -> bool:
    """Say whether no m neighbours in a row have more than n weights that are not zero."""
    kept, of = pattern
    return weight.shape[1] % of == 0 and \
        int((weight.reshape(-1, of) != 0).sum(1).max()) <= kept


def _filled_groups(kept: torch.Tensor, pattern: tuple[int, int]) -> torch.Tensor:
    """Set further places of each group, the first that are free, until it has n."""
    of_group, size = pattern
    if kept.shape[1] % size:
        raise ValueError(f'{kept.shape[1]} columns cannot be divided into groups of {size}')
    groups = kept.reshape(-1, size)
    missing = of_group - groups.sum(1, keepdim=True)
    if (missing < 0).any():
        raise ValueError(f'the weights do not follow the pattern {of_group}:{size}')
    return (groups | (~groups & ((~groups).cumsum(1) <= missing))).reshape(kept.shape)


def _packed(values, kept, scales, pattern) -> PackedWeight:
    counts = kept.sum(1)
    starts = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=starts[1:])
    if int(starts[-1]) > LARGEST:
        raise ValueError(f'{int(starts[-1])} values are too many for one packed matrix')
    return PackedWeight(columns=kept.shape[1], mask=_mask(kept), scales=scales, pattern=pattern,
                        values=_padded(values[kept]), starts=starts.int())


def _padded(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, values.new_zeros(PADDING // values.element_size())])


def _mask(kept: torch.Tensor) -> torch.Tensor:
    """Turn (rows, columns) booleans into (rows, words * 8) bytes."""
    rows, columns = kept.shape
    whole = torch.nn.functional.pad(kept, (0, -columns % WORD)).reshape(rows, -1, 8)
    mask = torch.zeros(whole.shape[:2], dtype=torch.uint8, device=kept.device)
    for bit in range(8):
        mask |= whole[:, :, bit].to(torch.uint8) << bit
    return mask


def _bits(mask: torch.Tensor) -> torch.Tensor:
    """Turn (rows, bytes) of a mask into (rows, bytes * 8) booleans."""
    places = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=mask.device)
    return (mask[:, :, None] & places).ne_(0).bool().flatten(1)


def _bit_counts(mask: torch.Tensor) -> torch.Tensor:
    """Return how many bits each byte has set, as uint8 of the same shape."""
    pairs = mask - ((mask >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (fours + (fours >> 4)) & 0x0f


# -- memory --------------------------------------------------------------------------------------

HUGE_PAGE = 2 << 20


def in_huge_pages(weights: list[PackedWeight]) -> list[PackedWeight]:
    """
    Copy packed weights on the CPU into one block of memory with huge pages, where there are any.

    A product reads two streams at once, and prefetching stalls where a page has to be looked
    up: this is a fifth of the speed at 50 %. One block for all, so that at most one page
    is wasted.
    """
    parts = [(weight, name, tensor) for weight in weights
             for name, tensor in weight.tensors().items()]
    offsets, size = [], 0
    for _, _, tensor in parts:
        offsets.append(size)
        size += -(-tensor.numel() * tensor.element_size() // 64) * 64
    if not weights:
        return []
    block = _huge_block(size)
    moved = {id(weight): {} for weight in weights}
    for (weight, name, tensor), offset in zip(parts, offsets):
        place = block[offset:offset + tensor.numel() * tensor.element_size()]
        place = place.view(tensor.dtype).reshape(tensor.shape)
        moved[id(weight)][name] = place.copy_(tensor)
    return [PackedWeight(columns=weight.columns, pattern=weight.pattern, **moved[id(weight)])
            for weight in weights]


def _huge_block(size: int) -> torch.Tensor:
    """Return (size,) bytes, aligned to huge pages and backed by them if the system gives any."""
    memory = mmap.mmap(-1, size + HUGE_PAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % HUGE_PAGE
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except (AttributeError, OSError):
        pass    # a system without them: the same, slower
    return whole[start:start + size]


# -- files ---------------------------------------------------------------------------------------

def save_packed(path: Path, weights: dict[str, PackedWeight],
                others: dict[str, torch.Tensor] | None = None) -> None:
    """
    Write packed weights to a safetensors file, whole or not at all.

    :param others: tensors that lie beside them as they are, by name
    """
    path = Path(path)
    tensors = dict(others or {})
    tensors |= {name: tensor.cpu().contiguous() for name, tensor in part_names(weights).items()}
    described = {name: {'columns': weight.columns, 'pattern': weight.pattern}
                 for name, weight in weights.items()}
    partial = path.with_name(path.name + '.partial')
    save_file(tensors, partial, metadata={FILE_FORMAT: json.dumps(described)})
    with open(partial, 'rb') as file:
        os.fsync(file.fileno())
    partial.rename(path)


def part_names(weights: dict[str, PackedWeight]) -> dict[str, torch.Tensor]:
    """Return the tensors that packed weights are made of, by their names in a file."""
    return {f'{name}.{part}': tensor for name, weight in weights.items()
            for part, tensor in weight.tensors().items()}


def load_packed(path: Path) -> dict[str, PackedWeight]:
    """
    Read the packed weights of a file; values stay memory-mapped.

    What decides where a kernel reads (masks, starts) is copied, and checked after that, so that
    neither a damaged file nor one that changes later can lead it out of its buffers.

    :raises UserError: when the file is not one, is damaged, or contradicts itself
    """
    try:
        with safe_open(path, framework='pt') as file:
            described = _described(path, file.metadata() or {})
            names = set(file.keys())
            return {name: _read(path, file, names, name, entry)
                    for name, entry in described.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f'the packed weights in {path} cannot be read ({error}); pack the model '
                        f'again') from error


def _described(path, metadata) -> dict:
    if FILE_FORMAT not in metadata:
        raise UserError(f'{path} holds no packed weights of the format {FILE_FORMAT}; pack the '
                        f'model again')
    try:
        described = json.loads(metadata[FILE_FORMAT])
        return {str(name): (int(entry['columns']),
                            tuple(map(int, entry['pattern'])) if entry['pattern'] else None)
                for name, entry in described.items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError,
            RecursionError) as error:
        raise UserError(f'{path} does not describe its packed weights ({error}); pack the model '
                        f'again') from error


def _read(path, file, names, name, entry) -> PackedWeight:
    columns, pattern = entry

    def part(which):
        return file.get_tensor(f'{name}.{which}') if f'{name}.{which}' in names else None

    mask, values, starts, scales = map(part, ('mask', 'values', 'starts', 'scales'))
    if mask is None or values is None or starts is None:
        raise UserError(f'{path} lacks a part of {name}; pack the model again')
    weight = PackedWeight(columns, mask.clone(), values, starts.clone(), scales, pattern)
    fault = find_fault(weight)
    if fault:
        raise UserError(f'the packed weight {name} in {path} is damaged: {fault}; pack the model '
                        f'again')
    return weight


def find_fault(weight: PackedWeight) -> str:
    """Return what is wrong with a packed weight, in words; '' when a kernel may be given it."""
    return _shape_fault(weight) or _mask_fault(weight) or _value_fault(weight)


def _shape_fault(weight) -> str:
    mask, values, starts, scales = weight.mask, weight.values, weight.starts, weight.scales
    if mask.dtype != torch.uint8 or starts.dtype != torch.int32 or values.dtype not in VALUE_TYPES:
        return f'its types are {mask.dtype}, {values.dtype} and {starts.dtype}'
    if mask.dim() != 2 or values.dim() != 1 or starts.dim() != 1:
        return 'its parts do not have the dimensions of a matrix'
    words = -(-weight.columns // WORD)
    if weight.columns < 1 or mask.shape[1] != words * 8 or mask.shape[0] < 1:
        return f'its mask {tuple(mask.shape)} is not that of {weight.columns} columns'
    if starts.shape[0] != weight.rows + 1 or weight.count < 0:
        return f'it has {starts.shape[0]} row starts and {values.shape[0]} values'
    if (values.dtype == torch.int8) != (scales is not None):
        return 'int8 values, and they only, have scales'
    if scales is not None and (scales.dtype != torch.float32 or scales.shape != (weight.rows,)):
        return f'its scales are {scales.dtype} {tuple(scales.shape)}'
    return ''


def _mask_fault(weight) -> str:
    set_bits = _bit_counts(weight.mask)
    starts = weight.starts.long()
    if int(starts[0]) != 0 or int(starts[-1]) != weight.count:
        return f'its rows run from {int(starts[0])} to {int(starts[-1])} of {weight.count} values'
    if not torch.equal(set_bits.sum(1, dtype=torch.int64), starts.diff()):
        return 'its mask and its row starts count different numbers of values'
    tail = weight.columns % WORD
    if tail and _bits(weight.mask[:, -WORD // 8:])[:, tail:].any():
        return f'its mask has bits set past column {weight.columns}'
    return _pattern_fault(weight)


def _pattern_fault(weight) -> str:
    if weight.pattern is None:
        return ''
    if len(weight.pattern) != 2:
        return f'its pattern is {weight.pattern}'
    kept, of = weight.pattern
    if not 0 < kept < of or weight.columns % of:
        return f'{weight.columns} columns cannot have the pattern {kept}:{of}'
    groups = _bits(weight.mask)[:, :weight.columns].reshape(-1, of).sum(1)
    return '' if bool((groups == kept).all()) else f'its mask does not follow {kept}:{of}'


def _value_fault(weight) -> str:
    if weight.values.dtype != torch.int8 and not bool(torch.isfinite(weight.values).all()):
        return 'a value is not finite'
    if weight.scales is not None and not bool(torch.isfinite(weight.scales).all()):
        return 'a scale is not finite'
    return ''
