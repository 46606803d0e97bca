"""Statistics of the dense model, kept on disk until their block is pruned."""

import json
import os
from pathlib import Path

from owled_ros.pruning.progress import sync_directory
from owled_ros.pruning.statistics import Collector
from owled_ros.pruning.structure import Block, Projection
from safetensors import safe_open
from safetensors.torch import save_file
import torch


class Archive:
    """
    What was accumulated of the inputs of every block's projections, a file for each block.

    Hessians of all blocks together may be larger than the model, so that no more than one block's
    are in memory. A file is there as a whole or not at all, and on the disk when ``put`` returns.

    :param directory: made when something is put there
    :param statistic: the class of what is accumulated
    """

    def __init__(self, directory: Path, statistic: type):
        self.statistic = statistic
        self._directory = directory

    def put(self, block: Block, projections: tuple[Projection, ...], found: Collector) -> None:
        """
        Keep a block's statistics; one that several projections share is kept once.

        :raises UserError: when a projection has none
        """
        totals = {projection.name: found.of(projection).total.to(self.statistic.kept_as)
                  for projection in projections}
        names = found.sharing()
        self._directory.mkdir(exist_ok=True)
        path = self._path(block)
        partial = path.with_name(path.name + '.writing')
        save_file({name: totals[name] for name in names.values()}, partial,
                  {'statistic_of': json.dumps(names)})
        with open(partial, 'rb') as file:
            os.fsync(file.fileno())
        partial.rename(path)
        sync_directory(self._directory)

    def get(self, block: Block, device: torch.device) -> 'Archived':
        """Return a block's statistics."""
        with safe_open(self._path(block), framework='pt', device=str(device)) as file:
            names = json.loads(file.metadata()['statistic_of'])
            kept = {name: self.statistic(file.get_tensor(name)) for name in names.values()}
        return Archived({name: kept[key] for name, key in names.items()})

    def _path(self, block: Block) -> Path:
        return self._directory / f'{block.name}.safetensors'


class Archived:
    """Statistics that were kept, given out as a ``Collector`` does."""

    def __init__(self, of_name: dict):
        self._of_name = of_name

    def of(self, projection: Projection):
        """Return what was accumulated for a projection."""
        return self._of_name[projection.name]
