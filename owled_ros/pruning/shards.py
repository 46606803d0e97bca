"""
Weights on disk: safetensors files, read and overwritten one tensor at a time.

The pruned checkpoint keeps the files, names and types of the dense one, and only the bytes of
pruned tensors change. So it loads in every program that loads the dense one, tied weights stay
tied, and no more than one tensor has to be in memory.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from owled_ros.errors import UserError

WRITABLE = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16,
            'BF16': torch.bfloat16}


class Shards:
    """
    The safetensors files of a model directory.

    :param directory: holds ``model.safetensors``, or an index and the files that it names
    :raises UserError: when there are no safetensors weights, or they cannot be read
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.files = _weight_files(directory)
        self._file_of = {}
        self._open = {}
        for file in self.files:
            for name in self._reader(file).keys():
                self._file_of[name] = file

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return tuple(self._reader(self._file_of[name]).get_slice(name).get_shape())

    def type_of(self, name: str) -> str:
        """Return the type of a tensor as safetensors names it, e.g. 'BF16'."""
        return self._reader(self._file_of[name]).get_slice(name).get_dtype()

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor in the type that it has on disk."""
        return self._reader(self._file_of[name]).get_tensor(name)

    def bytes(self) -> int:
        """Return the size of all weight files."""
        return sum((self.directory / file).stat().st_size for file in self.files)

    def close(self) -> None:
        """Let go of the files."""
        self._open.clear()

    def _reader(self, file: str):
        if file not in self._open:
            path = self.directory / file
            try:
                self._open[file] = safe_open(path, framework='pt')
            except (SafetensorError, OSError) as error:
                raise UserError(f'The weights in {path} cannot be read: {error}.')
        return self._open[file]


class WritableShards:
    """
    A copy of a model's weight files in which single tensors are overwritten.

    :param source: the dense weights
    :param directory: where the copy goes; files that are already there are kept, so that an
        interrupted run goes on in its own copy
    """

    def __init__(self, source: Shards, directory: Path):
        self._directory = directory
        self._places = {}
        for file in source.files:
            if not (directory / file).exists():
                _copy(source.directory / file, directory / file)
            self._places.update(_places(directory / file))
        index = source.directory / 'model.safetensors.index.json'
        if index.exists():
            _copy(index, directory / index.name)

    def write(self, name: str, values: torch.Tensor) -> None:
        """Overwrite one tensor, in the type that it has on disk."""
        file, kind, offset, size = self._places[name]
        stored = values.detach().to('cpu', WRITABLE[kind]).contiguous()
        raw = stored.view(torch.uint8).numpy().reshape(-1)
        if raw.size != size:
            raise ValueError(f'{name} has {size} bytes on disk, not {raw.size}')
        place = np.memmap(self._directory / file, np.uint8, 'r+', offset, (size,))
        place[:] = raw
        place.flush()


def hash_weights(directory: Path) -> str:
    """Return the SHA-256 of a directory's weights: names and contents of the files, in order."""
    total = hashlib.sha256()
    for file in _weight_files(directory):
        total.update(file.encode())
        total.update(hash_file(directory / file).encode())
    return total.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _weight_files(directory: Path) -> list[str]:
    index = directory / 'model.safetensors.index.json'
    if index.exists():
        files = sorted(set(json.loads(index.read_text())['weight_map'].values()))
    else:
        files = ['model.safetensors']
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise UserError(f'The model in {directory} has no weights: {missing[0]} is missing '
                        '(safetensors are needed; save the model with save_pretrained).')
    if any('/' in file for file in files):
        raise UserError(f'The index in {directory} names weights outside that directory.')
    return files


def _places(path: Path) -> dict[str, tuple[str, str, int, int]]:
    """Return file, type, offset and size in bytes of every tensor in a safetensors file."""
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(length))
    header.pop('__metadata__', None)
    return {
        name: (path.name, entry['dtype'], 8 + length + entry['data_offsets'][0],
               entry['data_offsets'][1] - entry['data_offsets'][0])
        for name, entry in header.items()
    }


def _copy(source: Path, target: Path) -> None:
    """Copy by way of a temporary name: a file that is there is whole."""
    partial = target.with_name(target.name + '.copying')
    shutil.copyfile(source, partial)
    partial.rename(target)
