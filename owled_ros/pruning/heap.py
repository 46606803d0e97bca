"""
Where tensors lie in memory: outside of glibc's heap.

In the heap, weights and activations that are kept while others are freed leave holes, and the
process took three times the memory that its tensors needed. Mapped from the system each by itself
they leave none, at the price of finding their pages anew each time.
"""

import ctypes
import sys

_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_MMAP_THRESHOLD = -3    # of glibc's malloc.h


def map_tensors() -> None:
    """Map whatever is larger than 64 KiB by itself, from now on in this process."""
    if _LIBC is not None and hasattr(_LIBC, 'mallopt'):
        _LIBC.mallopt(_MMAP_THRESHOLD, 1 << 16)


def return_memory() -> None:
    """Give what is free at the end of the heap back to the system."""
    if _LIBC is not None and hasattr(_LIBC, 'malloc_trim'):
        _LIBC.malloc_trim(0)
