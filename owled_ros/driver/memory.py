"""Running out of memory: how it is told, and what can be freed."""

import atexit
import gc
import sys

atexit.register(gc.unfreeze)    # or libraries complain that they were never cleared away


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
