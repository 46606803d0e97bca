"""Peak memory is bounded by a block: it does not grow with depth."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

# The libraries' own pages come in while the first model is pruned, more or fewer of them from run
# to run: a small one goes first, and the peak is counted from where it left the process.
PRUNE = """
import json
import sys
from pathlib import Path
import torch
from owled_ros.pruning import PruningSettings, prune

def kilobytes(name):
    return int(Path('/proc/self/status').read_text().split(name + ':')[1].split()[0])

def prune_one(model, output):
    draw = torch.Generator().manual_seed(0)
    samples = [{'input_ids': torch.randint(0, 50, (1, 64), generator=draw)} for _ in range(4)]
    prune(model, samples, PruningSettings(activation_bytes=1_000_000, **settings), output,
          progress=lambda line: None)

torch.set_num_threads(1)
small, model, output = map(Path, sys.argv[1:4])
settings = json.loads(sys.argv[4])
prune_one(small, output.with_name(output.name + '-small'))
before = kilobytes('VmRSS')
Path('/proc/self/clear_refs').write_text('5')   # the peak counts anew from here
prune_one(model, output)
print(kilobytes('VmHWM') - before)
"""


def make_model(directory, depth: int, width: int):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=50, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
        num_attention_heads=4, num_key_value_heads=4,
    )).to(torch.bfloat16).save_pretrained(directory, max_shard_size='10MB')
    return directory


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('settings', [
    {}, {'statistics': 'sequential', 'method': 'wanda', 'allocation': 'owl'}])
def test_peak_memory_does_not_grow_with_depth(tmp_path, settings):
    small = make_model(tmp_path / 'small', depth=48, width=16)
    peaks = {}
    for depth in (12, 48):
        model = make_model(tmp_path / f'{depth}', depth, width=384)
        done = subprocess.run(
            [sys.executable, '-c', PRUNE, small, model, tmp_path / f'out{depth}',
             json.dumps(settings)],
            env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True,
            timeout=900)
        assert done.returncode == 0, done.stderr
        peaks[depth] = int(done.stdout)
    # Besides weights a block has modules, buffers and names; and the heap has holes, by chance.
    # A model that stayed in memory would add 170 MB.
    assert peaks[48] < 1.1 * peaks[12] + 8_000, peaks
