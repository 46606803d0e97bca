"""Peak memory is bounded by a block: it does not grow with depth."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

PRUNE = '''
import sys
from pathlib import Path
import torch
from owled_ros.pruning import PruningSettings, prune

def peak():
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0])

torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
samples = [{'input_ids': torch.randint(0, 50, (1, 64), generator=draw)} for _ in range(4)]
before = peak()
prune(sys.argv[1], samples, PruningSettings(activation_bytes=200_000), sys.argv[2],
      progress=lambda line: None)
print(peak() - before)
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_peak_memory_does_not_grow_with_depth(tmp_path):
    peaks = {}
    for depth in (12, 48):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(
            vocab_size=50, hidden_size=192, intermediate_size=768, num_hidden_layers=depth,
            num_attention_heads=4, num_key_value_heads=4,
        )).to(torch.bfloat16).save_pretrained(tmp_path / f'{depth}', max_shard_size='10MB')
        done = subprocess.run(
            [sys.executable, '-c', PRUNE, tmp_path / f'{depth}', tmp_path / f'out{depth}'],
            env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True,
            timeout=300)
        assert done.returncode == 0, done.stderr
        peaks[depth] = int(done.stdout)
    assert peaks[48] < 1.1 * peaks[12]
