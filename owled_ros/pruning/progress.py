"""What a run has finished, kept so that it survives a power cut."""

import fcntl
import json
import os
from pathlib import Path
import shutil
import time

from owled_ros.errors import UserError
from owled_ros.pruning.processes import ALONE, Processes

RECORD = 'owled.json'
WORK = 'work'           # where things lie that the result is made with
TELLING_AFTER = 5.0     # s
TELLING_FROM = 0.02     # of all the work


class Forecast:
    """
    The time that a run will still take, from how much of its work is done.

    :param total: all its work, in any unit
    :param clock: gives the time in seconds
    """

    def __init__(self, total: float, clock=time.monotonic):
        self._total = total
        self._done = 0.0
        self._clock = clock
        self._start = clock()

    def add(self, work: float) -> None:
        """Note that some of the work is done."""
        self._done += work

    def skip(self, work: float) -> None:
        """Note that some of the work need not be done."""
        self._total -= work

    def left(self) -> str:
        """Say how long it will take, in words; '' while too little is done to tell."""
        elapsed = self._clock() - self._start
        if elapsed < TELLING_AFTER or self._done < TELLING_FROM * self._total:
            return ''
        minutes = elapsed * max(self._total / self._done - 1, 0) / 60
        if minutes < 1:
            return ', less than a minute left'
        return f', about {minutes:.0f} min left' if minutes < 90 else \
            f', about {minutes / 60:.1f} h left'


class Progress:
    """
    The finished steps of a run, in a directory of its own.

    A step is a name and something that JSON can hold. It is there as a whole or not at all, and
    it is on the disk when ``save`` returns: so what it tells of has to be written before.

    The run is done when its record is there, which is written after all else.

    :param directory: the unfinished output; made when it is not there, and emptied when it
        holds another run than this
    :param fingerprint: tells this run from others
    :param processes: at work on this run; the first of them reads and writes for all
    :raises UserError: when another run is at work there
    """

    def __init__(self, directory: Path, fingerprint: str, processes: Processes = ALONE):
        self._directory = directory
        self._fingerprint = fingerprint
        self.work = directory / WORK
        self._processes = processes
        self._lock = None
        if processes.is_first:
            directory.mkdir(exist_ok=True)
            self._lock = _lock(directory)
            if fingerprint not in (self._read('run'), (self._result() or {}).get('run')):
                self._begin()
        processes.gather()

    def _begin(self) -> None:
        for path in self._directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.work.mkdir()
        self.save('run', self._fingerprint)

    def result(self) -> dict | None:
        """Return the record of this run if all that is left to do is to clear up."""
        return self._processes.from_first(self._result)

    def _result(self) -> dict | None:
        record = read_record(self._directory)
        return record if record and record['run'] == self._fingerprint else None

    def load(self, step: str):
        """Return what was saved of a step; None if it is not finished."""
        return self._processes.from_first(lambda: self._read(step))

    def save(self, step: str, value) -> None:
        """Note that a step is finished."""
        if self._processes.is_first:
            write_durably(self.work / f'{step}.json', json.dumps(value).encode())

    def close(self) -> None:
        """Let another run go on here."""
        if self._lock is not None:
            os.close(self._lock)

    def clear(self) -> None:
        """Leave nothing but the result."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _read(self, step: str):
        path = self.work / f'{step}.json'
        return json.loads(path.read_text()) if path.exists() else None


def read_record(directory: Path) -> dict | None:
    """Return the record of a pruned model in a directory; None when there is none."""
    try:
        record = json.loads((directory / RECORD).read_text())
        return record if isinstance(record['run'], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sync_files(directory: Path) -> None:
    """Put all files below a directory on the disk, and their names."""
    for path in sorted(directory.rglob('*')):
        if path.is_dir():
            sync_directory(path)
        else:
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
    sync_directory(directory)


def put_in_place(partial: Path, output: Path) -> None:
    """Let a directory that is whole, and on the disk, appear where it belongs."""
    if output.exists():
        output.rmdir()
    partial.rename(output)
    sync_directory(output.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, even after a power cut."""
    partial = path.with_name(path.name + '.writing')
    with open(partial, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(directory: Path) -> int:
    """Lock a directory for as long as this process lives, or until the handle is closed."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f'Another process is writing {directory}: wait for it to end.') from None
    return handle
