"""
Several processes at one run: each has a share of the samples, what they accumulate is summed.

torchrun starts them and tells each its rank. All of them go through the model in step; only the
first reads what is finished, writes, and reports. Values other than tensors travel as JSON.
"""

import atexit
from collections.abc import Callable, Sequence
from datetime import timedelta
import json
import os

from owled_ros.errors import UserError
import torch
from torch import distributed

PATIENCE = timedelta(days=1)    # torchrun ends all when one dies; slow is not dead


class Stopped(UserError):
    """What stopped a run has to be mended; then it goes on where it was."""


class Processes:
    """
    The processes of a run, seen from one of them.

    Before every exchange each tells whether it has failed, so that none waits for one that has.

    :param rank: number of this one, from 0
    :param count: how many there are
    :param device: where tensors that are exchanged lie
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None):
        self.rank = rank
        self.count = count
        self.device = device
        self._failed = False

    @classmethod
    def join(cls, device: torch.device) -> 'Processes':
        """Return the processes that torchrun has started, connected; or this one alone."""
        if not distributed.is_available() or int(os.environ.get('WORLD_SIZE', '1')) == 1:
            return cls()
        if not distributed.is_initialized():
            if device.type == 'cuda':
                torch.cuda.set_device(device)
            distributed.init_process_group(
                'cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo', timeout=PATIENCE)
            atexit.register(distributed.destroy_process_group)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, samples: Sequence) -> list:
        """Return this process's part of something that all have."""
        return list(samples[self.rank::self.count])

    def gather(self, value=None) -> list:
        """
        Return what every process gives, by rank: anything that JSON can hold.

        :raises UserError: what another process has failed with; ``Stopped`` if it was none
        """
        return [value] if self.count == 1 else self._gather(value)

    def from_first(self, make: Callable):
        """Return what the first process makes, in all of them."""
        return self.gather(make() if self.is_first else None)[0]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor of all processes, in place; return it."""
        if self.count > 1:
            self.gather()
            _exchange(distributed.all_reduce, tensor)
        return tensor

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Add up numbers of all processes."""
        return self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def spread(self, tensor: torch.Tensor, rank: int) -> torch.Tensor:
        """Give a tensor of one process to all of them, in place; return it."""
        if self.count > 1:
            self.gather()
            # As bytes: not every backend knows every type.
            _exchange(distributed.broadcast, tensor.view(-1).view(torch.uint8), rank)
        return tensor

    def fail(self, error: Exception) -> None:
        """Tell the others that this one has failed, unless it has failed because they did."""
        if self.count == 1 or self._failed:
            return
        text = str(error)
        if not isinstance(error, UserError):
            text = f'Process {self.rank} has failed: {type(error).__name__}: {error}'
        refused = isinstance(error, UserError) and not isinstance(error, Stopped)
        try:
            self._gather(None, [refused, text])
        except UserError:
            pass

    def _gather(self, value, failure: list | None = None) -> list:
        content = json.dumps([failure, value]).encode()
        content = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)
        sizes = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(content)
        _exchange(distributed.all_reduce, sizes)
        padded = content.new_zeros(int(sizes.max()))
        padded[:len(content)] = content
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        _exchange(distributed.all_gather, parts, padded)
        found = [json.loads(bytes(part[:size].tolist()))
                 for part, size in zip(parts, sizes.tolist())]
        for failure, _ in found:
            if failure:
                self._failed = True
                raise (UserError if failure[0] else Stopped)(failure[1])
        return [value for _, value in found]


ALONE = Processes()


def _exchange(function: Callable, *arguments) -> None:
    try:
        function(*arguments)
    except RuntimeError as error:
        raise Stopped('Another process of this run has ended: run it again, and it goes on after '
                      'the last finished block.') from error
