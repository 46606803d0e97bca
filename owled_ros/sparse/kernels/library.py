"""
The compiled CPU kernels, called through ctypes: no torch extension, no compiler at run time.

CMake builds the library beside the package (in an editable installation: in the environment's
owled_ros folder). Where it is missing there is the pure torch path in sparse/linear.py.
"""

import ctypes
import functools
from pathlib import Path

import owled_ros
from owled_ros.sparse.packing import PackedWeight
import torch

NAME = 'libowled_kernels.so'
ABI = 1
MAX_BATCH = 8
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.int8: 3}


class _Matrix(ctypes.Structure):
    _fields_ = [('rows', ctypes.c_int64), ('columns', ctypes.c_int64), ('mask', ctypes.c_void_p),
                ('values', ctypes.c_void_p), ('starts', ctypes.c_void_p),
                ('scales', ctypes.c_void_p), ('type', ctypes.c_int32)]


class Kernels:
    """
    The library, ready to be called.

    :param path: of the shared library
    :raises OSError: when it cannot be loaded, or is of another version
    """

    def __init__(self, path):
        library = ctypes.CDLL(str(path))
        if library.owled_abi() != ABI:
            raise OSError(f'{path} has version {library.owled_abi()}, not {ABI}')
        library.owled_path.restype = ctypes.c_char_p
        library.owled_use_path.argtypes = [ctypes.c_char_p]
        library.owled_use_threads_of.argtypes = [ctypes.c_void_p]
        library.owled_multiply.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int]
        library.owled_unpack.argtypes = [
            ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int,
            ctypes.c_int]
        self._library = library
        self.threaded = self._share_threads()
        self.path = self.paths()[0]

    def paths(self) -> list[str]:
        """Return the instruction sets that this CPU has kernels for, best first."""
        names, index = [], 0
        while (name := self._library.owled_path(index)) is not None:
            names.append(name.decode())
            index += 1
        return names

    def use(self, path: str) -> None:
        """Compute with one of `paths()` from now on."""
        if self._library.owled_use_path(path.encode()):
            raise ValueError(f'there is no kernel for {path}; there are {self.paths()}')
        self.path = path

    def bind(self, weight: PackedWeight) -> '_Matrix':
        """Return what the kernels take a packed weight as; it holds on to the weight's memory."""
        tensors = weight.tensors()
        if any(not t.is_contiguous() or t.device.type != 'cpu' for t in tensors.values()):
            raise ValueError('a kernel needs contiguous tensors in the memory of the CPU')
        address = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        matrix = _Matrix(weight.rows, weight.columns, address['mask'], address['values'],
                         address['starts'], address.get('scales'), TYPES[weight.values.dtype])
        matrix.weight = weight
        return matrix

    def multiply(self, matrix, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """
        Return x W^T + bias.

        :param x: (batch, columns) float32, contiguous, batch from 1 to MAX_BATCH
        :param bias: (rows,) float32
        :return: (batch, rows) float32
        """
        out = torch.empty((x.shape[0], matrix.rows))
        if self._library.owled_multiply(
                ctypes.addressof(matrix), x.data_ptr(), x.shape[0],
                None if bias is None else bias.data_ptr(), out.data_ptr(),
                torch.get_num_threads()):
            raise ValueError(f'the kernel does not take {tuple(x.shape)}')
        return out

    def unpack(self, matrix, first: int, last: int, out: torch.Tensor) -> None:
        """
        Write rows first to last (exclusive) of a weight into `out`, zeros and all.

        :param out: at least (last - first, columns), contiguous, float32 or of the values' type
        """
        if out.numel() < (last - first) * matrix.columns or not out.is_contiguous():
            raise ValueError(f'rows {first} to {last} do not fit into {tuple(out.shape)}')
        if self._library.owled_unpack(ctypes.addressof(matrix), first, last, out.data_ptr(),
                                      TYPES[out.dtype], torch.get_num_threads()):
            raise ValueError(f'rows {first} to {last} cannot be unpacked to {out.dtype}')

    def _share_threads(self) -> bool:
        """
        Use the threads of torch's own OpenMP runtime.

        A second runtime would bring a second set, and torch's spin for a while after each
        product: the two sets would take the cores from each other.
        """
        try:
            parallel = ctypes.CDLL(None).GOMP_parallel
        except AttributeError:
            return False
        self._library.owled_use_threads_of(ctypes.cast(parallel, ctypes.c_void_p))
        return True


def _places() -> list[Path]:
    return [Path(folder, 'sparse', 'kernels', NAME) for folder in owled_ros.__path__]


@functools.cache
def kernels() -> Kernels | None:
    """Return the compiled kernels; None where there are none that this computer can run."""
    for path in _places():
        if path.is_file():
            try:
                return Kernels(path)
            except (OSError, AttributeError):   # for another computer, or not ours
                return None
    return None
