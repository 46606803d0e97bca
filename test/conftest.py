"""What tests share: a ROS graph that nobody else is in."""

import os
from pathlib import Path
import sys

import pytest

# Threads of torch that wait for each other on a busy machine are far slower than one, and the
# models of the tests are tiny. Set before anything imports torch, for processes of tests too.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402

# Read when triton is imported, its own functions included, which any test may be the first to do.
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def ros_domain(tmp_path, monkeypatch):
    """Set a ROS_DOMAIN_ID that no other test on this machine has, in this test's environment.

    Processes that the test starts inherit it, with discovery on this machine only and logs in
    the test's own folder.
    """
    from ros_domain import environment, locked_domain
    with locked_domain() as domain:
        for name, value in environment(domain, tmp_path / 'ros_log').items():
            monkeypatch.setenv(name, value)
        yield domain
