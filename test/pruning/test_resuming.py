"""Killed at any point and run again, a run ends with the bytes of one that was left alone."""

from dataclasses import replace
import os
import random
import signal
import time

from owled_ros.errors import UserError
from owled_ros.pruning import archive, pipeline, progress, prune, PruningSettings, shards, stash
import pytest
from safetensors import SafetensorError

SETTINGS = PruningSettings(sparsity=0.6, components='all', activation_bytes=20_000)
SEQUENTIAL = replace(SETTINGS, statistics='sequential', method='wanda', allocation='owl')


def run(llava_dir, samples, output, settings=SETTINGS):
    return prune(llava_dir, samples, settings, output, progress=lambda line: None)


def count_calls(monkeypatch, act):
    """Call ``act`` with a running number whenever something is read, written or put aside."""
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            act(calls)
            return function(*args, **kwargs)
        return call

    for owner, name in ((shards.Shards, 'read'), (shards.os, 'fsync'), (stash.Stash, 'put'),
                        (shards.Shards, 'write'), (shards.shutil, 'copyfile'),
                        (progress.Path, 'rename'), (progress.Path, 'unlink'), (os, 'rmdir')):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return lambda: calls


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(llava_dir, samples, output, settings, monkeypatch, at):
    """Run in a process that is killed at its ``at``-th call; say whether it was."""
    child = run_in_a_child(llava_dir, samples, output, settings, lambda: count_calls(
        monkeypatch, lambda number: kill_self() if number == at else None))
    return os.waitpid(child, 0)[1] == int(signal.SIGKILL)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def run_in_a_child(llava_dir, samples, output, settings, prepare=lambda: None):
    """Start a run in a process of its own; return its number."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            run(llava_dir, samples, output, settings)
        finally:
            os._exit(0)
    return child


def run_undisturbed(llava_dir, samples, output, settings):
    """Return what a run writes, and how many calls it makes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = count_calls(monkeypatch, lambda number: None)
        run(llava_dir, samples, output, settings)
        return contents(output), calls()


@pytest.fixture(scope='module')
def undisturbed(llava_dir, samples, tmp_path_factory):
    return run_undisturbed(
        llava_dir, samples, tmp_path_factory.mktemp('undisturbed') / 'out', SETTINGS)


@pytest.fixture(scope='module')
def undisturbed_sequential(llava_dir, samples, tmp_path_factory):
    return run_undisturbed(
        llava_dir, samples, tmp_path_factory.mktemp('undisturbed') / 'out', SEQUENTIAL)


def kill_and_run_again(llava_dir, samples, output, settings, monkeypatch, expected, points):
    """Kill a run at some points, one after the other, then let it end; compare."""
    killed = [run_and_die(llava_dir, samples, output, settings, monkeypatch, at)
              for at in points]
    assert killed[0]    # those after it have less to do, and may be done before their time
    run(llava_dir, samples, output, settings)
    assert contents(output) == expected
    assert [path.name for path in output.parent.iterdir()] == ['out']


@pytest.mark.parametrize('seed', range(3))
def test_killed_at_random_points(llava_dir, samples, undisturbed, tmp_path, monkeypatch, seed):
    expected, calls = undisturbed
    assert not any('statistics' in name for name in expected)
    kill_and_run_again(llava_dir, samples, tmp_path / 'out', SETTINGS, monkeypatch, expected,
                       random.Random(seed).sample(range(60, calls), 3))


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_killed_with_sequential_statistics(
        llava_dir, samples, undisturbed_sequential, tmp_path, monkeypatch, share):
    expected, calls = undisturbed_sequential
    kill_and_run_again(llava_dir, samples, tmp_path / 'out', SEQUENTIAL, monkeypatch, expected,
                       [int(share * calls), int(0.4 * calls)])


@pytest.mark.parametrize('settings', [SETTINGS, SEQUENTIAL], ids=['dense', 'sequential'])
def test_killed_at_random_times(llava_dir, samples, tmp_path, settings):
    start = time.monotonic()
    os.waitpid(run_in_a_child(llava_dir, samples, tmp_path / 'expected', settings), 0)
    duration = time.monotonic() - start
    chance = random.Random(settings.statistics)
    for _ in range(5):
        child = run_in_a_child(llava_dir, samples, tmp_path / 'out', settings)
        time.sleep(chance.uniform(0.05, 0.95) * duration)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    run(llava_dir, samples, tmp_path / 'out', settings)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'expected')


def test_what_is_done_is_not_done_again(llava_dir, samples, undisturbed, tmp_path, monkeypatch):
    """Between the last byte of the result and its place no work is lost."""
    expected, _ = undisturbed
    rename = progress.Path.rename

    def refuse(path, target):
        if path.name == '.out.partial':
            raise OSError('somebody is in the way')
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Path, 'rename', refuse)
        with pytest.raises(UserError, match='somebody is in the way'):
            run(llava_dir, samples, tmp_path / 'out')
    lines = []
    prune(llava_dir, samples, SETTINGS, tmp_path / 'out', progress=lines.append)
    assert contents(tmp_path / 'out') == expected and len(lines) == 1


def test_an_interrupted_run_of_something_else_is_thrown_away(
        llava_dir, samples, undisturbed, tmp_path):
    stopped = []

    def stop(line):
        if 'pruning' in line and '(5/6)' in line:
            stopped.append(line)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(llava_dir, samples, PruningSettings(sparsity=0.3), tmp_path / 'out', progress=stop)
    assert stopped and (tmp_path / '.out.partial').is_dir()
    run(llava_dir, samples, tmp_path / 'out')
    assert contents(tmp_path / 'out') == undisturbed[0]


def test_two_runs_do_not_share_an_output(llava_dir, samples, tmp_path):
    def start_another(line):
        if '(2/7)' not in line:
            return
        with pytest.raises(UserError, match='Another process is writing'):
            run(llava_dir, samples, tmp_path / 'out')

    prune(llava_dir, samples, SETTINGS, tmp_path / 'out', progress=start_another)


def no_space(*_, **__):
    raise OSError(28, 'No space left on device')


def no_space_for_safetensors(*_, **__):
    raise SafetensorError('Error while serializing: I/O error: No space left on device')


def test_companions_are_copied_again(samples, tmp_path, monkeypatch, save_llava):
    model = save_llava(tmp_path / 'model')
    (model / 'additional_chat_templates').mkdir()
    (model / 'additional_chat_templates' / 'tool.jinja').write_text('{{ messages }}')
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, 'write_report', no_space)
        with pytest.raises(UserError, match='No space left'):
            run(model, samples, tmp_path / 'out')
    run(model, samples, tmp_path / 'out')
    assert (tmp_path / 'out' / 'additional_chat_templates' / 'tool.jinja').is_file()


@pytest.mark.parametrize('settings, owner, name, full', [
    (SEQUENTIAL, shards.Shards, 'write', no_space),
    (SEQUENTIAL, stash, 'save_file', no_space_for_safetensors),
    (SETTINGS, archive, 'save_file', no_space_for_safetensors),
    (SETTINGS, shards.shutil, 'copyfile', no_space),
])
def test_a_full_disk_loses_nothing(
        llava_dir, samples, undisturbed, undisturbed_sequential, tmp_path, monkeypatch, settings,
        owner, name, full):
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(UserError, match='No space left.*run it again'):
            run(llava_dir, samples, tmp_path / 'out', settings)
    assert not (tmp_path / 'out').exists()
    assert (tmp_path / '.out.partial' / 'work' / 'run.json').exists()
    run(llava_dir, samples, tmp_path / 'out', settings)
    expected, _ = undisturbed if settings is SETTINGS else undisturbed_sequential
    assert contents(tmp_path / 'out') == expected


def test_an_output_that_cannot_be_written_is_said(llava_dir, samples, tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(progress.Path, 'mkdir', read_only)
    with pytest.raises(UserError, match=f'into {tmp_path}/out stopped: .*Read-only file system'):
        run(llava_dir, samples, tmp_path / 'out')
    assert not list(tmp_path.iterdir())
