"""Two real processes, started by torchrun, prune as one does."""

import json
import os
import subprocess
import sys

from owled_ros.errors import UserError
from owled_ros.pruning import prune, PruningSettings
from owled_ros.pruning.processes import ALONE, Processes
from owled_ros.pruning.streaming import find_device
import pytest
from safetensors.torch import load_file, save_file
import torch

CASES = {
    'wanda': {'method': 'wanda', 'allocation': 'owl', 'statistics': 'sequential'},
    'sparsegpt': {'method': 'sparsegpt', 'allocation': 'fisher', 'components': 'all'},
    'admm': {'method': 'admm', 'allocation': 'ablation', 'sparsity': 0.6,
             'statistics': 'sequential'},
    'default': {},
    'again': {'method': 'wanda', 'allocation': 'owl', 'statistics': 'sequential'},    # undisturbed
}
# What every process does: all cases, then one in which only the second is given a NaN, and one in
# which only the second finds its disk full.
WORK = """
import json, os, signal, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from owled_ros.errors import UserError
from owled_ros.pruning import PruningSettings, prune, stash

work, dies = Path(sys.argv[1]), sys.argv[2] == 'dies'
rank = int(os.environ['RANK'])
torch.set_num_threads(1)
samples = [load_file(path) for path in sorted((work / 'samples').iterdir())]
lines = []

def run(name, settings, given):
    prune(work / 'model', given, PruningSettings(**settings), work / name, progress=tell)

def tell(line):
    lines.append(line)

if dies:
    from owled_ros.pruning import pipeline
    step, steps = pipeline.Lane.advance, []
    def advance(*args):
        steps.append(args)
        if rank == 1 and len(steps) == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)
    pipeline.Lane.advance = advance
for name, settings in json.loads((work / 'cases.json').read_text()).items():
    run(name, settings, samples)
def refuse(*args):
    try:
        run(*args)
    except UserError as error:
        lines.append(f'refused: {error}')

def full(*_):
    raise OSError(28, 'No space left on device')

if rank == 1:
    stash.save_file = full
refuse('full', {'activation_bytes': 20_000}, samples)
samples[1]['pixel_values'][0, 0, 0, 0] = torch.nan
refuse('damaged', {}, samples)
(work / f'lines{rank}.json').write_text(json.dumps(lines))
"""


def torchrun(*command):
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         *map(str, command)], env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=900)


@pytest.fixture(scope='module')
def work(llava_dir, samples, tmp_path_factory):
    """Return a directory in which two processes have been at work, at first killed."""
    work = tmp_path_factory.mktemp('work')
    (work / 'model').symlink_to(llava_dir)
    (work / 'samples').mkdir()
    for index, sample in enumerate(samples):
        save_file(sample, work / 'samples' / f'{index}.safetensors')
    (work / 'cases.json').write_text(json.dumps(CASES))
    (work / 'work.py').write_text(WORK)
    killed = torchrun(work / 'work.py', work, 'dies')
    assert killed.returncode != 0 and (work / '.wanda.partial' / 'work').is_dir()
    assert not (work / 'wanda').exists()
    done = torchrun(work / 'work.py', work, 'lives')
    assert done.returncode == 0, done.stderr
    return work


def zeros(directory):
    return torch.cat([(values == 0).flatten() for name, values in sorted(
        load_file(directory / 'model.safetensors').items())
        if '.layers.' in name or 'projector' in name])


@pytest.mark.parametrize('name', ['wanda', 'sparsegpt', 'admm', 'default'])
def test_two_processes_prune_as_one_does(work, llava_dir, samples, tmp_path, name):
    record = prune(llava_dir, samples, PruningSettings(**CASES[name]), tmp_path / 'one',
                   progress=lambda line: None)
    found = json.loads((work / name / 'owled.json').read_text())
    assert found['processes'] == 2 and record['processes'] == 1
    assert (zeros(work / name) == zeros(tmp_path / 'one')).double().mean() >= 0.9999
    for model in ('dense', 'pruned'):
        assert found['loss'][model] == pytest.approx(record['loss'][model], rel=1e-4)
    assert found['loss']['tokens'] == record['loss']['tokens']
    assert found['sparsity'] == record['sparsity']
    for mine, theirs in zip(found['blocks'], record['blocks'], strict=True):
        assert mine['pruned'] == pytest.approx(theirs['pruned'], rel=1e-3)
        assert mine['output_error'] == pytest.approx(theirs['output_error'], rel=1e-2)


def test_killed_in_one_process_it_goes_on_with_the_same_bytes(work):
    files = sorted(path.name for path in (work / 'wanda').iterdir())
    assert files == sorted(path.name for path in (work / 'again').iterdir())
    for name in files:
        assert (work / 'wanda' / name).read_bytes() == (work / 'again' / name).read_bytes(), name


def test_an_error_in_one_process_ends_all_with_one_sentence(work):
    lines = [json.loads((work / f'lines{rank}.json').read_text()) for rank in range(2)]
    assert 'hold NaN or infinite values' in lines[0][-1] and lines[0][-1] == lines[1][-1]
    assert len(lines[1]) == 2   # the first tells for both
    assert not list(work.glob('*damaged*')) and not list(work.glob('.damaged*'))


def test_what_is_done_is_kept_when_one_process_finds_its_disk_full(work):
    for rank in range(2):
        lines = json.loads((work / f'lines{rank}.json').read_text())
        refused = next(line for line in lines if line.startswith('refused'))
        assert 'No space left on device' in refused and 'run it again' in refused
    assert (work / '.full.partial' / 'work').is_dir()


def test_the_command_says_what_is_wrong_once(tmp_path):
    done = torchrun('-m', 'owled_ros.cli', 'calibrate', tmp_path / 'no-bag', '--output',
                    tmp_path / 'out')
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count('owled: ') == 1


def test_more_processes_than_samples_are_refused(llava_dir, samples, tmp_path, monkeypatch):
    crowd = Processes(0, 7)
    monkeypatch.setattr(Processes, 'join', lambda device: crowd)
    monkeypatch.setattr(Processes, 'fail', lambda self, error: None)
    with pytest.raises(UserError, match='cannot be shared by 7 processes'):
        prune(llava_dir, samples, PruningSettings(), tmp_path / 'out', progress=print)


def test_samples_are_shared_out():
    shares = [Processes(rank, 3).share(range(7)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]] and ALONE.share('ab') == ['a', 'b']


def test_every_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert find_device('auto') == torch.device('cuda')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert find_device('auto') == find_device('cuda') == torch.device('cuda:1')
    assert find_device('cpu') == torch.device('cpu')
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(UserError, match='more processes than the 2 GPUs'):
        find_device('auto')
