"""What is settled costs the garbage collector nothing; what is freed can be given back or kept."""

import ctypes
import gc
import subprocess
import sys
import weakref

from owled_ros.driver.memory import free_caches, free_model, settle
import pytest


class Cycle:
    """Something that only the garbage collector can clear away."""

    def __init__(self):
        self.myself = self


def test_a_settled_model_is_freed_when_it_is_given_back():
    model = Cycle()
    seen = weakref.ref(model)
    try:
        settle()
        frozen = gc.get_freeze_count()
        del model
        free_caches()
        assert seen() is not None   # it is not looked at
    finally:
        free_model()
    # From Python 3.12 on every collection freezes what is immortal: a few objects of Python's own.
    assert seen() is None and gc.get_freeze_count() < frozen / 10


def test_what_comes_later_is_still_collected():
    settle()
    try:
        seen = weakref.ref(Cycle())
        free_caches()
        assert seen() is None
    finally:
        free_model()


FREEING = """
import ctypes, resource, sys
from owled_ros.driver.memory import reuse_freed
if sys.argv[1] == 'kept':
    reuse_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def fill():
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'), reason='needs glibc')
def test_the_next_batch_needs_no_memory_from_the_system():
    faults = {how: int(subprocess.check_output([sys.executable, '-c', FREEING, how]))
              for how in ('given back', 'kept')}
    assert faults['given back'] > 100   # with pages as large as can be: one for 2 MiB
    assert faults['kept'] < faults['given back'] / 10
