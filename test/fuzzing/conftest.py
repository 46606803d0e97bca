"""What fuzz tests share: bounds on time and memory, and a model directory to spoil."""

import contextlib
import os
from pathlib import Path
import resource
import shutil
import signal

from hypothesis import HealthCheck, settings
import pytest

SECONDS = 20          # for one example; a hang ends the test there instead of the run
RESIDENT = 400        # MB of memory that one example may fill beside what was there
ADDRESSES = 8000      # MB of address space, so that a bomb hurts the test and not the machine

# Examples are drawn from a fixed seed, so that a run that was green is green again;
# OWLED_FUZZ_EXAMPLES=20000 draws more, and new ones.
examples = int(os.environ.get('OWLED_FUZZ_EXAMPLES', 0))
settings.register_profile(
    'owled', max_examples=examples or 100, derandomize=not examples, deadline=None, database=None,
    suppress_health_check=list(HealthCheck))
settings.load_profile('owled')


class Hang(BaseException):
    """Not an Exception: nothing that catches those may swallow it."""


@contextlib.contextmanager
def _bounds():
    def hang(number, frame):
        raise Hang(f'it took longer than {SECONDS} s')

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError):  # where the kernel cannot, the peak is that of the run
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    resource.setrlimit(resource.RLIMIT_AS, (_memory('VmSize') + (ADDRESSES << 20), hard))
    resident, before = _memory('VmRSS'), signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    grown = (_memory('VmHWM') - resident) >> 20
    assert grown < RESIDENT, f'{grown} MB of memory were filled'


def _memory(name):
    """Return a size of this process in bytes, by its name in /proc."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) << 10
    raise LookupError(name)


@pytest.fixture(scope='session')
def bounded():
    """Return a context manager in which a hang and a huge allocation become exceptions."""
    return _bounds


@pytest.fixture(scope='session')
def embedded():
    """Return the directory of the embedded model."""
    from owled_ros.driver.checkpoint import locate
    return locate('embedded')


@pytest.fixture
def model(tmp_path, embedded):
    """Return a copy of the embedded model that may be spoilt."""
    copy = tmp_path / 'model'
    shutil.copytree(embedded, copy)
    return copy
