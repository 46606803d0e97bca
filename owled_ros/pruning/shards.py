"""
Weights on disk: safetensors files, read and overwritten one tensor at a time.

The pruned checkpoint keeps the files, names and types of the dense one, and only the bytes of
pruned tensors change. So it loads in every program that loads the dense one, tied weights stay
tied, and no more than one tensor has to be in memory.
"""

from dataclasses import dataclass
import hashlib
import json
import math
import os
from pathlib import Path
import shutil

from owled_ros.errors import UserError
from owled_ros.pruning.progress import sync_directory
from safetensors import safe_open, SafetensorError
import torch

WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
PACKED = 'packed.safetensors'   # all weights of a model, those that are pruned packed
# What a configuration can say so that transformers loads other files, or another configuration.
REDIRECTIONS = ('transformers_weights', 'configuration_files')
# Files whose mere presence makes transformers (with peft, the second) load more than is hashed.
ADDITIONS = ('shard-*-model-*-of-*.safetensors', 'adapter_config.json')

TYPES = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16,
         'BF16': torch.bfloat16, 'I64': torch.int64, 'I32': torch.int32, 'I16': torch.int16,
         'I8': torch.int8, 'U8': torch.uint8, 'BOOL': torch.bool}


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: in which file, as what, from which byte on, how many bytes."""

    file: str
    type: str
    shape: tuple[int, ...]
    start: int
    size: int


class Shards:
    """
    The safetensors files of a model directory.

    Tensors are read from the files, not mapped: mapped pages would count as this process's
    memory until all of the model is in it.

    :param directory: holds ``model.safetensors``, or an index and the files that it names
    :raises UserError: when there are no safetensors weights, or they are packed or cannot be read
    """

    def __init__(self, directory: Path):
        if is_packed(directory):
            raise UserError(f'The weights in {directory} are packed: give the directory that they '
                            'were packed from.')
        self.directory = directory
        self.files = _weight_files(directory)
        self._places = {}
        for file in self.files:
            self._places.update(_places(directory / file))

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._places)

    def type_of(self, name: str) -> torch.dtype | None:
        """Return the type of a tensor on disk; None if torch has none that fits."""
        return TYPES.get(self._places[name].type)

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor in the type that it has on disk."""
        place = self._places[name]
        if place.type not in TYPES:
            raise UserError(f'The weight {name} in {self.directory} is of type {place.type}, '
                            'which cannot be read: save the model in bf16, fp16 or fp32.')
        raw = torch.empty(place.size, dtype=torch.uint8)
        with open(self.directory / place.file, 'rb') as file:
            file.seek(place.start)
            if file.readinto(raw.numpy()) != place.size:
                raise UserError(f'The weights in {self.directory / place.file} are cut short.')
        return raw.view(TYPES[place.type]).reshape(place.shape)

    def write(self, name: str, values: torch.Tensor) -> None:
        """Overwrite one tensor, durably, with values of the type and shape that it has on disk."""
        place = self._places[name]
        if values.dtype != TYPES[place.type] or tuple(values.shape) != place.shape:
            raise ValueError(f'{name} is {place.type} {place.shape} on disk, not '
                             f'{values.dtype} {tuple(values.shape)}')
        with open(self.directory / place.file, 'r+b') as file:
            file.seek(place.start)
            file.write(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            file.flush()
            os.fsync(file.fileno())

    def count(self) -> int:
        """Return the number of values in all tensors."""
        return sum(math.prod(place.shape) for place in self._places.values())

    def bytes(self) -> int:
        """Return the size of all weight files."""
        return sum((self.directory / file).stat().st_size for file in self.files)

    def copy(self, directory: Path) -> 'Shards':
        """
        Copy the files, and the index.

        Files that are already there are kept, so that an interrupted run goes on in its copy.
        """
        index = self.directory / 'model.safetensors.index.json'
        for path in [self.directory / file for file in self.files] + [index]:
            if path.exists() and not (directory / path.name).exists():
                partial = directory / (path.name + '.copying')
                shutil.copyfile(path, partial)
                with open(partial, 'rb') as file:
                    os.fsync(file.fileno())
                partial.rename(directory / path.name)
        sync_directory(directory)
        return Shards(directory)


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


def is_packed(directory: Path) -> bool:
    """Say whether a directory's weights are in a packed file, which transformers cannot load."""
    return (directory / PACKED).exists()


def check_weights(directory: Path) -> None:
    """
    Refuse a directory of which other weights could be loaded than those that are hashed.

    :raises UserError: when they could, or when there are no weights
    """
    _weight_files(directory)


def mentions(path: Path, words: tuple[str, ...]) -> list[str]:
    """
    Return those of the words that are keys or values anywhere in a JSON file.

    Values count too: a configuration may rename its own keys (``attribute_map``).

    :raises UserError: when the file is not JSON
    """
    try:    # as transformers reads it, but with one spelling for each string
        text = json.dumps(json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, RecursionError):
        raise UserError(f'The file {path} cannot be read as JSON: save the model again.') from None
    return [word for word in words if f'"{word}"' in text]


def _weight_files(directory: Path) -> list[str]:
    index = directory / INDEX
    if is_packed(directory):
        files = [PACKED]
    else:
        files = _indexed_files(index) if index.is_file() else [WHOLE]
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise UserError(f'The model in {directory} has no weights: {missing[0]} is missing '
                        '(safetensors are needed; save the model with save_pretrained).')
    _check_layout(directory, files)
    _check_redirections(directory)
    return files


def _check_layout(directory: Path, files: list[str]) -> None:
    if files == [PACKED] and (found := sorted(directory.glob('model*.safetensors*'))):
        raise UserError(f'The model in {directory} has its weights twice, in {PACKED} and in '
                        f'{found[0].name}: remove those that were not approved.')
    # transformers prefers the whole; an index of nothing but the whole says the same.
    if files != [WHOLE] and (directory / WHOLE).exists():
        raise UserError(f'The model in {directory} has its weights twice, in {WHOLE} and in the '
                        f'files that {INDEX} names: remove those that were not approved.')
    for pattern in ADDITIONS:
        if found := sorted(directory.glob(pattern)):
            raise UserError(f'The model in {directory} has weights that its hash does not cover: '
                            f'remove {found[0].name}, or save the model again with them merged '
                            'into it.')


def _check_redirections(directory: Path) -> None:
    config = directory / 'config.json'
    if config.is_file() and (found := mentions(config, REDIRECTIONS)):
        raise UserError(f'The configuration {config} names other files to load ({found[0]}), '
                        'which the hash of the weights does not cover: remove that entry.')


def _indexed_files(index: Path) -> list[str]:
    try:
        files = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        outside = [file for file in files if Path(file).name != file]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UserError(f'The index {index} does not tell which files hold the weights: '
                        'save the model again.') from None
    if outside:
        raise UserError(f'The index in {index.parent} names weights outside that directory.')
    return files


def _places(path: Path) -> dict[str, _Place]:
    try:
        with safe_open(path, framework='pt'):   # checks the header, and that no byte is missing
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f'The weights in {path} cannot be read: {error}.') from error
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(length))
    header.pop('__metadata__', None)
    places = {}
    for name, entry in header.items():
        start, end = entry['data_offsets']
        places[name] = _Place(path.name, entry['dtype'], tuple(entry['shape']),
                              8 + length + start, end - start)
    return places
