"""Fair times on a computer that others use too: turns, rotated weights, a copy beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import statistics
import time

import torch

CACHE_TIMES = 1.25      # weights rotate through so many last-level caches
NO_CACHE = 32 << 20     # bytes, where the size of the cache is not told


@dataclass(frozen=True)
class Contestant:
    """
    One way to do a piece of work.

    :param turns: calls on different copies of the weights, so that none is in a cache
    :param bytes: that one call has to read
    :param prepare: called in every round before the turns, and not timed
    """

    name: str
    turns: list[Callable[[], object]]
    bytes: int = 0
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Times:
    """Seconds of one call in each round, all contestants in turn in every round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> tuple[float, float, float]:
        """Return how many times faster `fast` is: median, lowest and highest of the rounds."""
        ratios = [a / b for a, b in zip(self.seconds[slow], self.seconds[fast])]
        return statistics.median(ratios), min(ratios), max(ratios)

    def spread(self, name: str) -> tuple[float, float, float]:
        """Return the median, lowest and highest of the rounds."""
        return self.median(name), min(self.seconds[name]), max(self.seconds[name])

    def fastest(self, names) -> str:
        """Return the contestant with the lowest median."""
        return min(names, key=self.median)


def in_turn(contestants: list[Contestant], rounds: int, device: torch.device) -> Times:
    """Time contestants round by round; the first round warms up and does not count."""
    seconds = {contestant.name: [] for contestant in contestants}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for contestant in contestants:
                if contestant.prepare is not None:
                    contestant.prepare()
                _finish(device)
                began = time.perf_counter()
                for turn in contestant.turns:
                    turn()
                _finish(device)
                if number:
                    seconds[contestant.name].append(
                        (time.perf_counter() - began) / len(contestant.turns))
    return Times(seconds)


def _finish(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def rotation_bytes(device: torch.device) -> int:
    """Return how many bytes of weights no cache of a device holds."""
    if device.type == 'cuda':
        cache = torch.cuda.get_device_properties(device).L2_cache_size
    else:
        cache = _last_level_cache()
    return int(CACHE_TIMES * cache)


def _last_level_cache() -> int:
    sizes = [NO_CACHE]
    for path in Path('/sys/devices/system/cpu/cpu0/cache').glob('index*/size'):
        text = path.read_text().strip()
        if text.endswith('K') and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes)


def copying(size: int, device: torch.device) -> Contestant:
    """Return torch's own copy of so many bytes, which are read and written."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return Contestant('copy', [lambda: target.copy_(source)], 2 * source.numel() * 4)


def bandwidth(device: torch.device, rounds: int = 3) -> dict[str, float]:
    """Return GB/s of torch's own copy (bytes read and written) and sum (read), at their best."""
    copy = copying(rotation_bytes(device), device)
    source = torch.ones(rotation_bytes(device) // 4, device=device)
    times = in_turn([copy, Contestant('read', [source.sum])], rounds, device)
    return {'copy': copy.bytes / 1e9 / min(times.seconds['copy']),
            'read': source.numel() * 4 / 1e9 / min(times.seconds['read'])}
