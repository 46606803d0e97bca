"""A Driver in a process of its own: it can hang, crash or be killed without the caller.

What crosses between the two is plain: a picture in shared memory, and short JSON texts, each sent
as one block of bytes through a socket pair. Nothing is pickled. The shared memory is anonymous
(memfd) and the process dies with the thread that started it, so that neither is left behind.
"""

import contextlib
import ctypes
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
import io
import json
import math
import mmap
from multiprocessing.connection import Connection
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import tempfile

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, InvalidAction, Maneuver, Route
from owled_ros.driver.memory import free_caches, is_out_of_memory, settle
from owled_ros.errors import UserError

POLL = 0.1        # s between looks at whether the caller was asked to stop
PATIENCE = 5.0    # s for a process that was killed to be gone
SHARED = Path('/dev/shm')
LARGEST = 1 << 20  # bytes of a text; none of ours comes near
LONGEST = 2000     # characters of an error that are told
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
# Unlike with -m, no module is taken from the folder that the caller happens to be in.
PROGRAM = ('import sys; sys.path = [path for path in sys.path if path]; '
           'from owled_ros.driver.process import main; main(*sys.argv[1:])')
FACTS = ('name', 'hash', 'backend', 'backend_reason', 'requested_sparsity', 'measured_sparsity')
ERRORS = {'user': UserError, 'action': InvalidAction, 'memory': MemoryError}


class Stopped(InterruptedError):
    """The caller was asked to stop while it waited for the process."""


class ProcessEnded(RuntimeError):
    """The process of the model is gone; `restart` starts another one."""


def load_embedded_or_named(model, **how):
    """Load a Driver; imports torch, so only who computes calls it."""
    from owled_ros.driver.driver import Driver
    return Driver.load(model, **how)


# The caller's side ---------------------------------------------------------------------------

@dataclass(frozen=True)
class Decision:
    """An action as decoded, before any limit."""

    action: Action


class ExplanationStream:
    """The explanation that the process writes."""

    def __init__(self, driver):
        self._driver = driver
        self.text, self.complete, self.confidence = '', False, 1.0

    def advance(self, tokens):
        """Decode up to `tokens` more; return True when the explanation is complete."""
        told = self._driver.ask('advance', tokens=tokens)
        self.text, self.complete = told['text'], told['complete']
        self.confidence = told['confidence']
        return self.complete


class DriverProcess:
    """Has the methods of a Driver. One thread's own, but for `kill`."""

    def __init__(self, load, stopping, model, **how):
        """Start the process; it calls load(model, **how), a function that can be imported.

        Started again, it is asked for the hash and the backend of the first time: another model
        must not drive under the name of this one.

        stopping: threading.Event; Stopped from any method when it is set. Raises what loading
        raises: UserError, MemoryError, or RuntimeError.
        """
        self._load = _name(load)
        self._stopping = stopping
        self._asked = {'model': model, 'how': how}
        self._process = self._connection = None
        self._memory = _anonymous_file()
        self._picture = None  # the memory, mapped
        try:
            told = self._start()
        except BaseException:
            self.close()
            raise
        vars(self).update({name: told[name] for name in FACTS})
        self._asked['how'] = how | {'expected_hash': self.hash, 'backend': self.backend}

    def restart(self):
        """Start the process anew and load the same model there."""
        self._end()
        self._start()

    def _start(self):
        """Start the process; return what is told of the loaded model."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, '-c', PROGRAM, self._load, str(theirs.fileno()),
                 str(self._memory), str(os.getpid())],
                stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), self._memory),
                env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
        self._connection = Connection(ours.detach())
        return self.ask('load', **self._asked)

    def warm_up(self):
        self.ask('warm_up')

    def decide(self, frame, ego, command):
        """Decode the action for a frame (height, width, 3) uint8 RGB and an EgoState."""
        self._show(frame)
        told = self.ask('decide', shape=frame.shape, command=[int(command.route),
                                                              command.speed_limit],
                        ego=[ego.speed, ego.yaw_rate, ego.acceleration])
        return Decision(_action(told))

    def explain(self, decision):
        """Return the ExplanationStream of the decision that was made last."""
        self.ask('explain')
        return ExplanationStream(self)

    def process_id(self):
        """Return the id of the process, None between two; from any thread."""
        process = self._process
        return process and process.pid

    def kill(self, process_id):
        """End the process at once, unless another one took its place; from any thread.

        Who waits for its answer gets ProcessEnded.
        """
        process = self._process
        if process is not None and process.pid == process_id:
            process.kill()

    def close(self):
        """End the process and free the memory that is shared with it."""
        self._end()
        self._picture = None
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def ask(self, what, **details):
        """Have something done, and return what is told of it; raise what it raised."""
        try:
            self._connection.send_bytes(json.dumps({'do': what} | details).encode())
            while not self._connection.poll(POLL):
                if self._stopping.is_set():
                    raise Stopped('the model was stopped')
                # A process that it left behind may hold its end of the connection open.
                if self._process.poll() is not None and not self._connection.poll(0):
                    raise EOFError
            told = json.loads(self._connection.recv_bytes(LARGEST))
        except (EOFError, OSError) as error:
            if isinstance(error, Stopped):
                raise
            raise ProcessEnded(f'the process of the model has ended ({self._how_it_ended()})') \
                from None
        if 'error' in told:
            raise ERRORS.get(told['error'], RuntimeError)(told['words'])
        return told

    def _show(self, frame):
        if self._picture is None or len(self._picture) < frame.nbytes:
            os.ftruncate(self._memory, frame.nbytes)
            self._picture = mmap.mmap(self._memory, frame.nbytes)
        np.frombuffer(self._picture, np.uint8, frame.size)[:] = frame.reshape(-1)

    def _how_it_ended(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(PATIENCE)
            if status >= 0:
                return f'exit status {status}'
            with contextlib.suppress(ValueError):  # one of the real-time signals
                return signal.Signals(-status).name
            return f'signal {-status}'
        return 'it closed its ears'

    def _end(self):
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # held up in the kernel
                self._process.wait(PATIENCE)
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _anonymous_file():
    """Return a file descriptor of memory that nobody else can find."""
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('owled_ros-frame')
    # Pythons that were built for an old libc, as those of conda, lack it.
    with tempfile.TemporaryFile(dir=SHARED if SHARED.is_dir() else None) as file:
        return os.dup(file.fileno())


def _name(load):
    """Return the module:name by which another process finds a function; UserError without any."""
    owner = getattr(load, '__self__', None)  # of a class method: its own class, not a base
    path = f'{owner.__qualname__}.{load.__name__}' if isinstance(owner, type) \
        else load.__qualname__
    module = (owner if isinstance(owner, type) else load).__module__
    if not _is_found(load, module, path):
        raise UserError(f'another process cannot import {path} of {module}; load the model by a '
                        'function at the top of a module, or set model_process to false')
    return f'{_importable(module)}:{path}'


def _is_found(load, module, path):
    try:
        if find_spec(_importable(module)) is None:
            return False
        return _attribute(sys.modules[module], path) == load
    except (AttributeError, ImportError, KeyError, ValueError):
        return False


def _importable(module):
    """Return the name under which another process imports a module of this one."""
    if module != '__main__':
        return module
    main = sys.modules[module]
    return main.__spec__.name if main.__spec__ else Path(main.__file__).stem


def _attribute(found, path):
    for name in path.split('.'):
        found = getattr(found, name)
    return found


def _action(told):
    """Return the Action in an answer; what is no maneuver is left for those who check actions."""
    maneuver = told['maneuver']
    if maneuver in set(Maneuver):
        maneuver = Maneuver(maneuver)
    return Action(told['acceleration'], told['curvature'], maneuver, told['confidence'])


# The process's side --------------------------------------------------------------------------

class Server:
    """Does what it is asked to, one thing at a time, until nobody is there to ask."""

    def __init__(self, load, connection, memory):
        self._load, self._connection, self._memory = load, connection, memory
        self._driver = self._decision = self._stream = None
        self._shared = self._frame = None

    def serve(self):
        while True:
            try:
                asked = json.loads(self._connection.recv_bytes(LARGEST))
            except (EOFError, OSError):
                return
            self._connection.send_bytes(self._answer(asked).encode())

    def _answer(self, asked):
        try:
            told = getattr(self, 'do_' + asked.pop('do'))(**asked) or {}
            return json.dumps(told, default=_plain)
        except BaseException as error:  # SystemExit too: it is said, not done
            told = {'error': _kind(error), 'words': str(error)[:LONGEST] or type(error).__name__}
        # Here the exception is gone, and with it what its frames held.
        if told['error'] == 'memory':
            self._stream = self._decision = None
            free_caches()
        return json.dumps(told)

    def do_load(self, model, how):
        self._driver = self._load(model, **how)
        return {name: getattr(self._driver, name) for name in FACTS}

    def do_warm_up(self):
        self._driver.warm_up()
        settle()

    def do_decide(self, shape, ego, command):
        size = math.prod(shape)
        # Both are kept: to map and to fill fresh pages takes longer than to copy a picture.
        if self._shared is None or len(self._shared) < size:
            self._shared = mmap.mmap(self._memory, size)
        if self._frame is None or self._frame.shape != tuple(shape):
            self._frame = np.empty(shape, np.uint8)
        self._frame.reshape(-1)[:] = np.frombuffer(self._shared, np.uint8, size)
        self._decision = self._driver.decide(
            self._frame, EgoState(*ego), Command(Route(command[0]), command[1]))
        action = self._decision.action
        return {name: getattr(action, name)
                for name in ('acceleration', 'curvature', 'maneuver', 'confidence')}

    def do_explain(self):
        self._stream = self._driver.explain(self._decision)

    def do_advance(self, tokens):
        complete = self._stream.advance(tokens)
        return {'text': self._stream.text, 'complete': bool(complete),
                'confidence': self._stream.confidence}


def _plain(value):
    """Make a number of what JSON does not know; what is none goes as text, and is refused there."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _kind(error):
    if isinstance(error, InvalidAction):
        return 'action'
    if isinstance(error, UserError):
        return 'user'
    return 'memory' if is_out_of_memory(error) else 'other'


def main(load, connection, memory, parent):
    """Be the process of a DriverProcess."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # it died before it could be noticed
    # ^C, and what a service manager sends to all of a service, are for the caller to act on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The node's standard error, which never blocks: what does not fit is dropped here too.
    if sys.stderr is not None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, 'w', closefd=False),
                                      errors='backslashreplace', line_buffering=True)
    Server(_function(load), Connection(int(connection)), int(memory)).serve()


def _function(name):
    """Return the function that `_name` means; where there is none, one that says so."""
    module, _, path = name.partition(':')
    try:
        return _attribute(import_module(module), path)
    except Exception as error:
        failure = UserError(f'the process of the model cannot import {name}: {error}')

    def load(model, **how):
        raise failure
    return load
