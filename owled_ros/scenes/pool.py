"""Processes that render: one core each, and none that stays when the one that asked is gone."""

from contextlib import contextmanager
from multiprocessing import get_context, parent_process
import os
import threading

import cv2


@contextmanager
def rendering_pool(processes):
    """Yield a pool of `processes` processes, ended with the block or with this process."""
    # Spawned: a fork would take locks of torch's threads along.
    with get_context('spawn').Pool(processes, initializer=settle) as pool:
        yield pool


def settle():
    """Keep a process of the pool to one core, and let it end when its parent is killed."""
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
    parent_process().join()
    os._exit(1)  # nobody is left who waits for a result
