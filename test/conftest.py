"""What tests share: a ROS graph that nobody else is in."""

import contextlib
import fcntl
import os
from pathlib import Path
import tempfile

import pytest

# Threads of torch that wait for each other on a busy machine are far slower than one, and the
# models of the tests are tiny. Set before anything imports torch, for processes of tests too.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# Domains above 101 use ports that Linux also hands out to other programs.
DOMAINS = range(1, 102)


@pytest.fixture
def ros_domain(tmp_path, monkeypatch):
    """A ROS_DOMAIN_ID that no other test on this machine has, in the environment of this test.

    Processes that the test starts inherit it, with discovery on this machine only and logs in
    the test's own folder.
    """
    with _locked_domain() as domain:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        if os.environ.get('ROS_DISTRO') == 'humble':  # newer ones do not need it, and warn
            monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
        monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'ros_log'))
        yield domain


@contextlib.contextmanager
def _locked_domain():
    """Hold the first free domain; a lock goes with its process, however that ends."""
    folder = Path(tempfile.gettempdir(), f'owled_ros-test-domains-{os.getuid()}')
    folder.mkdir(exist_ok=True)
    for domain in DOMAINS:
        with open(folder / str(domain), 'w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f'no free ROS domain: {len(DOMAINS)} tests hold one each')
