"""A driver with the `load` of its base class, and habits of its own."""

import os
from pathlib import Path
import sys
import time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'driving_node'))
from scripted_driver import ScriptedDriver  # noqa: E402


class Inherited(ScriptedDriver):
    """Loaded by the method of its base, and has numbers that JSON does not know."""

    measured_sparsity = np.float32(0.25)
    hash = str(os.getpid())  # of another model in each process

    def decide(self, frame, ego, command):
        if ego.speed < 0:
            if os.fork() == 0:  # a process that outlives it, and holds what it had open
                time.sleep(30)
            os._exit(4)
        return super().decide(frame, ego, command)
