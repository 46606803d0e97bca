"""Running out of memory: how it is told, and what can be freed."""

import atexit
import ctypes
import gc
import sys

atexit.register(gc.unfreeze)    # or libraries complain that they were never cleared away


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # glibc's malloc.h
LARGE = 1 << 30     # bytes; no tensor of a batch is larger


class OutOfMemory(RuntimeError):
    """The model ran out of memory, and again after everything that can be freed was."""


def is_out_of_memory(error):
    """Return whether an exception says so: Python's, a GPU's, or that of torch's CPU allocator."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and (
        'out of memory' in words or 'allocate memory' in words or 'alloc_failed' in words)


def settle():
    """Spare the garbage collector what is there to stay: libraries and a loaded model.

    Going through all their objects takes 0.1 to 0.3 s, in which no thread of the process runs.
    """
    gc.collect()
    gc.freeze()


def reuse_freed():
    """Keep freed memory for the next batch, instead of giving it back to the system each time.

    The system clears what it hands out, which took more than a third of the time of decisions in
    batches. Those about single frames need too little to gain. Changes glibc's malloc, for the
    whole process; others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, LARGE)
        mallopt(M_MMAP_THRESHOLD, LARGE)


def free_model():
    """Give back a model that was settled and that nobody holds any more."""
    gc.unfreeze()
    free_caches()


def free_caches():
    """Give back what no object holds any more, on the GPU too."""
    gc.collect()
    torch = sys.modules.get('torch')  # where it was never imported there is nothing to free
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
