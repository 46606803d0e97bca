"""
Where tensors lie in memory: what lasts is kept out of glibc's heap.

In the heap tensors that come and go are cheap, since their pages stay. But weights and activations
that are kept while others are freed leave holes there, and the process took three times the memory
that its tensors needed. Mapped from the system each by itself they leave none.
"""

import ctypes
import sys
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3   # of glibc's malloc.h
_LARGE = 1 << 16    # a larger bound is faster, and let the peak triple from run to run


@contextmanager
def lasting():
    """Map the tensors that are made meanwhile, which are going to stay, outside of the heap."""
    _set(_MMAP_THRESHOLD, 1 << 16)
    try:
        yield
    finally:
        _set(_MMAP_THRESHOLD, _LARGE)


def return_memory() -> None:
    """Give what is free at the end of the heap back to the system."""
    if _LIBC is not None and hasattr(_LIBC, 'malloc_trim'):
        _LIBC.malloc_trim(0)


def _set(option: int, value: int) -> None:
    if _LIBC is not None and hasattr(_LIBC, 'mallopt'):
        _LIBC.mallopt(option, value)


_set(_TRIM_THRESHOLD, 1 << 30)
_set(_MMAP_THRESHOLD, _LARGE)
