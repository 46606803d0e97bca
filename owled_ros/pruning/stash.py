"""Tensors put aside between blocks: in memory up to a limit, on disk beyond it."""

from pathlib import Path
import shutil

from safetensors.torch import load_file, save_file
import torch
from torch.utils import _pytree as pytree


class Stash:
    """
    A dictionary of tensors, or of trees of them, that spills to disk.

    Tensors are copied in and out, contiguous: what a model changes in place stays as it was
    here, and whether a tensor was spilled makes no difference to the rounding of what follows.

    :param directory: made when the first tensor is spilled, removed by ``close``
    :param limit: bytes kept in memory
    """

    def __init__(self, directory: Path, limit: int):
        self._directory = directory
        self._limit = limit
        self._held = 0
        self._entries = {}      # key -> (leaves, structure); a spilled tensor leaf is a _Spilled
        self._spilled = 0

    def __contains__(self, key) -> bool:
        return key in self._entries

    def put(self, key, tree) -> None:
        """Keep a tree under a key, instead of what was there."""
        self.drop(key)
        leaves, structure = pytree.tree_flatten(tree)
        self._entries[key] = [self._keep(leaf) for leaf in leaves], structure

    def get(self, key):
        """Return the tree kept under a key."""
        leaves, structure = self._entries[key]
        return pytree.tree_unflatten(
            [_copy(leaf.read() if isinstance(leaf, _Spilled) else leaf) for leaf in leaves],
            structure)

    def drop(self, key) -> None:
        """Forget a key, if it is there."""
        for leaf in self._entries.pop(key, ([], None))[0]:
            if isinstance(leaf, _Spilled):
                leaf.path.unlink()
            elif isinstance(leaf, torch.Tensor):
                self._held -= leaf.nbytes

    def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._held = 0
        shutil.rmtree(self._directory, ignore_errors=True)

    def _keep(self, leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if self._held + leaf.nbytes <= self._limit:
            self._held += leaf.nbytes
            return _copy(leaf)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._spilled += 1
        return _Spilled(leaf, self._directory / f'{self._spilled}.safetensors')


def _copy(leaf):
    if isinstance(leaf, torch.Tensor):
        return leaf.clone(memory_format=torch.contiguous_format)
    return leaf


class _Spilled:
    """A tensor that lies in a file."""

    def __init__(self, tensor: torch.Tensor, path: Path):
        self.path = path
        self.device = tensor.device
        save_file({'tensor': tensor.contiguous()}, path)

    def read(self) -> torch.Tensor:
        return load_file(self.path)['tensor'].to(self.device)
