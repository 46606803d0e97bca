"""A driving node in a process of its own for each test."""

from pathlib import Path
import sys

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def start(tmp_path, ros_domain):
    """Return a function that starts a node, by a script and **parameters, and returns its Rig."""
    from rig import Rig
    rigs = []

    def start_rig(*arguments, **parameters):
        folder = tmp_path / f'node{len(rigs)}'
        folder.mkdir()
        rigs.append(Rig(folder, *arguments, **parameters))
        return rigs[-1]

    yield start_rig
    for rig in rigs:
        rig.close()
