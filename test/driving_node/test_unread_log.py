"""A standard error that nobody reads stops neither driving nor ending; what is read is whole."""

import contextlib
import fcntl
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading

from owled_ros.msg import DrivingAction
import pytest
import rig as rig_module

SOON = 2.0  # s
LAST = b'ends on SIGTERM'
# Puts the stream that the environment names in the place of stderr, and fills it if it is to.
PROGRAM = """
import contextlib, os, socket, stat, sys
name = os.environ['STDERR_OF_NODE']
if stat.S_ISSOCK(os.stat(name).st_mode):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(name)
    fd = stream.detach()
else:
    fd = os.open(name, os.O_WRONLY | os.O_NOCTTY)
os.dup2(fd, 2)
if 'FILL_STDERR' in os.environ:
    os.set_blocking(2, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(2, b'x' * size)
    os.set_blocking(2, True)
    sys.argv += ['--log-level', 'debug']
sys.path.insert(0, {folder!r})
from scripted_driver import main
sys.exit(main())
"""


@contextlib.contextmanager
def pipe(folder):
    os.mkfifo(folder / 'stream')
    hears = os.open(folder / 'stream', os.O_RDWR)
    fcntl.fcntl(hears, fcntl.F_SETPIPE_SZ, 4096)
    yield folder / 'stream', hears
    os.close(hears)


@contextlib.contextmanager
def terminal(folder):
    hears, tells = os.openpty()
    yield os.ttyname(tells), hears
    os.close(hears)
    os.close(tells)


@contextlib.contextmanager
def connection(folder):
    """Open what stderr is under systemd."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / 'stream'))
        server.listen()
        taken = []
        threading.Thread(target=lambda: taken.append(server.accept()[0]), daemon=True).start()
        yield folder / 'stream', taken
        taken[0].close()


@pytest.fixture(params=[pipe, terminal, connection])
def stream(request, tmp_path, monkeypatch):
    """Return what the test could read the node's standard error from."""
    with request.param(tmp_path) as (name, hears):
        monkeypatch.setenv('STDERR_OF_NODE', str(name))
        yield hears


@pytest.fixture
def program(tmp_path):
    path = tmp_path / 'program.py'
    path.write_text(PROGRAM.format(folder=str(Path(rig_module.__file__).parent)))
    return path


def fill(pid):
    """Fill what the node itself has before its standard error, if anything."""
    fd = os.open(f'/proc/{pid}/fd/2', os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b'x' * 4096)
    os.close(fd)


def reader_of(hears):
    """Return a list that fills with what is read, as it comes."""
    def read():
        with contextlib.suppress(OSError):  # it was closed
            while data := os.read(hears if isinstance(hears, int) else hears[0].fileno(), 4096):
                parts.append(data)
    parts = []
    threading.Thread(target=read, daemon=True).start()
    return parts


@pytest.mark.parametrize('model_process', [False, True])
def test_it_drives_and_ends_though_nobody_reads(
        start, stream, program, monkeypatch, tmp_path, model_process):
    monkeypatch.setenv('FILL_STDERR', '1')
    rig = start(program=program, model_process=model_process)
    rig.wait_until_heard()
    with contextlib.suppress(OSError):  # a terminal or pipe needs nothing before it
        fill(rig.process.pid)
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    assert rig.change('deactivate') and rig.change('activate')
    since = len(rig.actions)
    rig.drive(lambda: rig.statuses(since).count(DrivingAction.OK) >= 3, 'more actions')
    status, seconds = rig.signal(signal.SIGTERM)
    assert status == 0 and seconds < SOON
    rig.wait(lambda: rig.actions[-1].status == DrivingAction.INACTIVE, 'INACTIVE')
    logs = [path.read_bytes() for path in (tmp_path / 'ros_log').iterdir()]
    assert any(LAST in log for log in logs)


def test_the_last_lines_come_out(start, stream, program):
    rig = start(program=program)
    rig.wait_until_heard()
    parts = reader_of(stream)
    assert rig.signal(signal.SIGTERM)[0] == 0
    rig.wait(lambda: LAST in b''.join(parts), 'the last line')


def test_the_last_lines_are_in_a_file(start, program, tmp_path, monkeypatch):
    (tmp_path / 'log').touch()
    monkeypatch.setenv('STDERR_OF_NODE', str(tmp_path / 'log'))
    rig = start(program=program)
    rig.wait_until_heard()
    assert rig.signal(signal.SIGTERM)[0] == 0
    assert LAST in (tmp_path / 'log').read_bytes()


HANG = """
import ctypes, os, sys, time
from owled_ros.ros.shutdown import end_within
from owled_ros.ros.standard_error import standard_error_that_never_blocks
@standard_error_that_never_blocks()
def main():
    for _ in range(int(sys.argv[1])):
        print('x' * 1000 + 'a line', file=sys.stderr)
        os.system('echo of a child >&2')
    time.sleep(1)  # before a socket the words are carried by a thread, which needs the GIL too
    end_within(0.5)
    ctypes.PyDLL(None).sleep(60)  # holds the GIL
main()
"""


@pytest.mark.parametrize('family', ['pipe', 'socket'])
@pytest.mark.parametrize('lines', [1, 100])
def test_the_end_of_a_hang_does_not_wait_for_a_reader(family, lines):
    hears, tells = os.pipe() if family == 'pipe' else map(socket.socket.detach, socket.socketpair())
    if lines > 1:
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(tells, False)
            while True:
                os.write(tells, b'x' * 4096)
        os.set_blocking(tells, True)
    with subprocess.Popen([sys.executable, '-c', HANG, str(lines)], stderr=tells) as process:
        assert process.wait(20) == 1
    os.close(tells)
    words = b''.join(iter(lambda: os.read(hears, 1 << 20), b''))
    os.close(hears)
    assert lines > 1 or b'a line\nof a child\n' in words
    assert lines > 1 or family == 'socket' or b'in main' in words


RETURN = """
import sys
from owled_ros.ros.standard_error import standard_error_that_never_blocks
@standard_error_that_never_blocks()
def main():
    print('could not start', file=sys.stderr)
    return 2
sys.exit(main())
"""


def test_words_before_a_return_come_out():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run([sys.executable, '-c', RETURN], stderr=theirs, timeout=60)
        assert done.returncode == 2 and ours.recv(100) == b'could not start\n'
