"""
Linear layers whose weights stay packed, and putting them into a model.

A few rows (decoding) are multiplied by a kernel that reads the packed weights once. Many rows
(prefill, image encoders) are bound by arithmetic: tiles of the weights are unpacked into a small
buffer, and a dense product does the rest.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
import importlib.util
import time

from owled_ros.sparse.kernels.library import kernels, MAX_BATCH
from owled_ros.sparse.packing import in_huge_pages, pack, pack_int8, PackedWeight
import torch
from torch import nn
from torch.nn import functional

TILE_WEIGHTS = 2 << 20       # unpacked at a time: as fast as any tried, docs/sparse-runtime.md
TILE_ROWS = 128              # at least, or the dense product has too little to do at a time
ROW_BLOCK = 64               # rows that dense products take at once; an odd rest is slow
WORTH_PACKING = 0.2          # share of zeros from which packed weights are smaller and as fast
PREFILL_ROWS = 256           # with how many rows the choice measures prefill
ACTION_STEPS = 8             # passes of one row to an action, for layers that decode
MEASURED_ROUNDS = 3


class TorchKernels:
    """What the compiled kernels do, in torch: for any device, and slower than dense."""

    name = 'torch'

    def bind(self, weight: PackedWeight) -> PackedWeight:
        """Return what the other methods take."""
        return weight

    def multiply(self, weight, x, bias=None):
        """Return x W^T + bias in the type of x: (batch, columns) -> (batch, rows)."""
        return functional.linear(x, weight.dense(x.dtype), bias)

    def unpack(self, weight, first, last, out):
        """Write rows first to last (exclusive) into `out`, zeros and all."""
        out.copy_(weight.dense(out.dtype, slice(first, last)))


class CpuKernels:
    """The C++ kernels, for any type of activations: they compute in float32."""

    def __init__(self, library):
        self._library = library
        self.name = library.path
        self.bind = library.bind

    def multiply(self, matrix, x, bias=None):
        """Return x W^T + bias in the type of x: (batch, columns) -> (batch, rows)."""
        if bias is not None:
            bias = bias.float()
        if x.dtype == torch.float32:
            return self._library.multiply(matrix, x.contiguous(), bias)
        return self._library.multiply(matrix, x.float().contiguous(), bias).to(x.dtype)

    def unpack(self, matrix, first, last, out):
        """Write rows first to last (exclusive) into `out`, zeros and all."""
        values = matrix.weight.values.dtype
        if out.dtype in (torch.float32, values):
            self._library.unpack(matrix, first, last, out)
        else:
            wide = torch.empty(out.shape)
            self._library.unpack(matrix, first, last, wide)
            out.copy_(wide)


def kernels_for(device: torch.device):
    """Return the fastest kernels for a device."""
    if device.type == 'cpu' and kernels() is not None:
        return CpuKernels(kernels())
    if device.type == 'cuda' and importlib.util.find_spec('triton') is not None:
        from owled_ros.sparse.kernels.triton_kernels import TritonKernels
        return TritonKernels()
    return TorchKernels()


class Workspace:
    """The buffer that the layers of one model unpack tiles into, one after the other."""

    def __init__(self):
        self._buffers = {}

    def tile(self, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        """Return (rows, columns) of the type and device of `like`; its contents are anything."""
        key = (like.dtype, like.device)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < rows * columns:
            buffer = self._buffers[key] = like.new_empty(rows * columns)
        return buffer[:rows * columns].view(rows, columns)


class SparseLinear(nn.Module):
    """
    A linear layer with a packed weight: (..., columns) -> (..., rows), in the input's type.

    :param weight: on the device where the layer computes
    :param bias: (rows,), or None
    :param workspace: shared by the layers of a model; the model belongs to one thread
    :param kernels: what computes; by default the fastest
    """

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None = None,
                 workspace: Workspace | None = None, kernels=None):
        super().__init__()
        self.packed = weight
        self.in_features, self.out_features = weight.columns, weight.rows
        self.register_buffer('bias', None if bias is None else bias.detach())
        self._workspace = workspace or Workspace()
        self._kernels = kernels or kernels_for(weight.mask.device)
        self._matrix = self._kernels.bind(weight)

    def extra_repr(self) -> str:
        """Say what it holds."""
        return (f'{self.in_features}, {self.out_features}, density={self.packed.density:.3f}, '
                f'values={self.packed.values.dtype}, kernels={self._kernels.name}')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + bias."""
        flat = x.reshape(-1, self.in_features)
        if flat.shape[0] == 0:
            y = x.new_zeros(0, self.out_features)
        elif flat.shape[0] <= MAX_BATCH:
            y = self._kernels.multiply(self._matrix, flat, self.bias)
        else:
            y = self._by_tiles(flat)
        return y.view(*x.shape[:-1], self.out_features)

    def _by_tiles(self, x: torch.Tensor) -> torch.Tensor:
        y = x.new_empty(x.shape[0], self.out_features)
        step = tile_rows(self.out_features, self.in_features)
        for first in range(0, self.out_features, step):
            last = min(first + step, self.out_features)
            tile = self._workspace.tile(last - first, self.in_features, x)
            self._kernels.unpack(self._matrix, first, last, tile)
            torch.mm(x, tile.t(), out=y[:, first:last])
        return y if self.bias is None else y.add_(self.bias)


def tile_rows(rows: int, columns: int) -> int:
    """Return how many rows of a weight to unpack at a time: in tiles of one size, or nearly."""
    tiles = -(-rows // max(TILE_ROWS, TILE_WEIGHTS // columns))
    return -(-rows // (tiles * ROW_BLOCK)) * ROW_BLOCK


# -- models --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Measured:
    """
    How long a group of like projections took, dense and packed.

    :param decode: seconds for one row through each of the group
    :param prefill: the same for PREFILL_ROWS rows
    :param steps: passes of one row that an action takes; none in an image encoder
    """

    rows: int
    columns: int
    density: float
    count: int
    decode: tuple[float, float]
    prefill: tuple[float, float]
    steps: int = ACTION_STEPS

    @property
    def packed_wins(self) -> bool:
        """Say whether an action comes earlier when the group is packed."""
        dense, packed = (prefill + self.steps * decode
                         for prefill, decode in zip(self.prefill, self.decode))
        return packed < dense

    def words(self) -> str:
        """Say what was measured, in short."""
        dense, packed = self.decode if self.steps else self.prefill
        return f'{self.rows}x{self.columns} at {1 - self.density:.0%}: {dense / packed:.2f}x'


def prunable_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """
    Return the linear layers that can be replaced, by name.

    Weights that something else uses too (an embedding) stay; so do subclasses, whose owners read
    their weights past forward.
    """
    users = Counter(id(parameter) for module in model.modules()
                    for parameter in module._parameters.values() if parameter is not None)
    return {name: module for name, module in model.named_modules()
            if type(module) is nn.Linear and users[id(module.weight)] == 1
            and module.weight.is_floating_point()}


def pruned_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return those of which enough is zero to be worth packing."""
    return {name: module for name, module in prunable_linears(model).items()
            if zero_share(module.weight) >= WORTH_PACKING}


def packed_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """Return the layers that are packed, by name."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, SparseLinear)}


def zero_share(weight: torch.Tensor) -> float:
    """Return the share of a weight that is zero."""
    return 1 - int(torch.count_nonzero(weight)) / max(weight.numel(), 1)


@torch.inference_mode()
def make_sparse(model: nn.Module, *, int8: bool = False, measure: bool = False) -> list[Measured]:
    """
    Replace a model's pruned linear layers by packed ones, in place; no dense copy is kept.

    Layers that are packed already stay so, or are unpacked where `measure` finds dense faster.

    :param int8: round values to int8, a scale a row (changes what the model computes)
    :param measure: replace only those groups of like layers with which an action comes earlier,
        on this computer
    :return: what was measured
    """
    workspace, measured, packed = Workspace(), [], {}
    groups = defaultdict(dict)
    decoding = set((model.get_decoder() if hasattr(model, 'get_decoder') else model).modules())
    for name, module in (pruned_linears(model) | packed_layers(model)).items():
        share, steps = round(_zero_share_of(module), 1), ACTION_STEPS * (module in decoding)
        groups[module.out_features, module.in_features, share, steps][name] = module
    for (*_, steps), group in groups.items():
        layers = {name: SparseLinear(_pack_layer(module, int8), module.bias, workspace)
                  for name, module in group.items()}
        if measure:
            dense = {name: _dense_layer(model, module) for name, module in group.items()}
            measured.append(_measure(list(dense.values()), list(layers.values()), steps))
            if not measured[-1].packed_wins:
                for name, layer in dense.items():
                    put_module(model, name, layer)
                continue
        for name, layer in layers.items():
            put_module(model, name, layer)
            group[name].weight = None       # the caller may hold the module, not its weight
            packed[name] = layer
    _settle(model, packed, workspace)
    return measured


def make_dense(model: nn.Module) -> None:
    """Replace a model's packed layers by dense ones, in place."""
    for name, module in packed_layers(model).items():
        put_module(model, name, _dense_layer(model, module))


def _zero_share_of(module) -> float:
    return 1 - module.packed.density if isinstance(module, SparseLinear) \
        else zero_share(module.weight)


def _pack_layer(module, int8) -> PackedWeight:
    if not isinstance(module, SparseLinear):
        return pack_int8(module.weight) if int8 else pack(module.weight)
    return pack_int8(module.packed.dense()) if int8 else module.packed


def _dense_layer(model, module) -> nn.Linear:
    """Return a layer as a dense one, of the model's type."""
    if not isinstance(module, SparseLinear):
        return module
    dense = nn.Linear(module.in_features, module.out_features, device='meta')
    weight = module.packed.dense(next(model.parameters()).dtype)
    dense.weight = nn.Parameter(weight, requires_grad=False)
    dense.bias = module.bias if module.bias is None else nn.Parameter(module.bias,
                                                                      requires_grad=False)
    return dense


def _settle(model, layers, workspace) -> None:
    """Move all packed weights of a model on the CPU into huge pages."""
    layers = {name: layer for name, layer in layers.items() if not layer.packed.mask.is_cuda}
    weights = in_huge_pages([layer.packed for layer in layers.values()])
    for (name, layer), weight in zip(layers.items(), weights, strict=True):
        put_module(model, name, SparseLinear(weight, layer.bias, workspace))


def put_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of that name."""
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, layer)


def _measure(dense: list[nn.Linear], packed: list[SparseLinear], steps: int) -> Measured:
    """Time both, turn by turn; each passes over the whole group, as decoding does."""
    first, times = packed[0].packed, {}
    for rows in (1, PREFILL_ROWS):
        x = torch.randn(rows, first.columns, device=dense[0].weight.device,
                        dtype=dense[0].weight.dtype)
        best = [float('inf')] * 2
        for _ in range(MEASURED_ROUNDS + 1):        # the first warms up, and may be the best
            for index, layers in enumerate((dense, packed)):
                best[index] = min(best[index], _seconds(layers, x))
        times[rows] = tuple(best)
    density = sum(layer.packed.density for layer in packed) / len(packed)
    return Measured(first.rows, first.columns, density, len(packed), times[1],
                    times[PREFILL_ROWS], steps)


def _seconds(layers, x) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    for layer in layers:
        layer(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began


def packed_bytes(model: nn.Module) -> int:
    """Return what the packed weights of a model take, indices and padding included."""
    return sum(layer.packed.bytes for layer in packed_layers(model).values())
