"""
One run of one side of ``calibration_cost.py``, in a process and an interpreter of its own.

    python benchmarks/calibration/sides.py JOB.json

The job says which side, and with what. A line of JSON comes out at the end: seconds of the wall
clock and of the processor, and the peak of resident memory above what the process held before the
run, when the libraries were imported and had pruned a very small model once. The clock runs from
the model's directory to the pruned model's directory.
"""

import ctypes
from dataclasses import dataclass
import json
from pathlib import Path
import shutil
import sys
import time

import torch

VOCABULARY = 32000


@dataclass(frozen=True)
class Job:
    """
    What a run does.

    :param side: 'owled_ros', 'llm-compressor' or 'original'
    :param statistics: owled_ros only: 'sequential' or 'dense'
    :param samples: how many, of ``tokens`` random tokens each
    :param products: 'ieee' float32, or 'bf16': inputs of matrix products rounded, float32 stored
    :param only_blocks: leave when so many blocks are done in each pass; not for owled_ros
    """

    side: str
    method: str
    allocation: str
    statistics: str
    model: str
    output: str
    small_model: str
    samples: int
    tokens: int
    threads: int
    activation_bytes: int
    sparsity: float = 0.5
    products: str = 'ieee'
    only_blocks: int | None = None

    def calibration(self) -> list[torch.Tensor]:
        """Return the samples: token ids (1 x tokens), the same for every side."""
        return random_tokens(self.samples, self.tokens, seed=0)

    def held_out(self) -> list[torch.Tensor]:
        """
        Return what owled_ros measures its losses on, a 32nd of the calibration tokens.

        That is the share that its default (four samples) has of 128 samples.
        """
        return random_tokens(4, max(self.samples * self.tokens // 128, 2), seed=1)


class Peaks:
    """The peak of resident memory so far, noted whenever a side has finished a block."""

    def __init__(self):
        ctypes.CDLL(None).malloc_trim(0)    # what warming up has left in glibc's heap
        self._before = _megabytes('VmRSS')
        Path('/proc/self/clear_refs').write_text('5')   # the peak counts anew from here
        self.at = {}

    def note(self, step: str) -> None:
        """Note, and tell, the peak [MB] above what the process held before, at a step."""
        self.at[step] = round(_megabytes('VmHWM') - self._before, 1)
        print(f'{step}: peak {self.at[step]:.0f} MB', file=sys.stderr, flush=True)


def random_tokens(count: int, tokens: int, *, seed: int) -> list[torch.Tensor]:
    """Return samples of random token ids (1 x tokens)."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (1, tokens), generator=draw) for _ in range(count)]


def run_owled_ros(job: Job, note) -> None:
    from owled_ros.pruning import prune, PruningSettings

    settings = PruningSettings(
        method=job.method, allocation=job.allocation, sparsity=job.sparsity, device='cpu',
        statistics=job.statistics, activation_bytes=job.activation_bytes)
    prune(job.model, [{'input_ids': ids} for ids in job.calibration()], settings, job.output,
          held_out=[{'input_ids': ids} for ids in job.held_out()],
          # Without the time left; other lines than those of blocks name this machine's folders.
          progress=lambda line: note(line.partition(',')[0]) if ' block ' in line else None)


def run_llm_compressor(job: Job, note) -> None:
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    modifier = {'wanda': WandaPruningModifier, 'sparsegpt': SparseGPTModifier}[job.method]
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)

    def enter(number):
        if number == job.only_blocks:
            raise _Enough
        note(f'in block {number}')

    for number, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda module, args, number=number: enter(number))
    try:
        oneshot(
            model=model, processor=object(), pipeline='sequential',
            recipe=[modifier(sparsity=job.sparsity, ignore=['re:.*lm_head'])],
            dataset=DataLoader([{'input_ids': ids[0]} for ids in job.calibration()]))
        model.to(torch.bfloat16).save_pretrained(job.output)
    except _Enough:
        pass


def run_original(job: Job, note) -> None:
    from original_owl import OriginalOwl

    original = OriginalOwl(Path(job.model), job.calibration(), note, job.only_blocks)
    original.prune(job.sparsity)
    if job.only_blocks is None:
        original.model.to(torch.bfloat16).save_pretrained(job.output)


SIDES = {'owled_ros': run_owled_ros, 'llm-compressor': run_llm_compressor,
         'original': run_original}


class _Enough(Exception):
    """All blocks that the job asks for are done."""


def _megabytes(name: str) -> float:
    status = Path('/proc/self/status').read_text()
    return int(status.split(name + ':')[1].split()[0]) * 1024 / 1e6


def _warm_up(job: Job) -> None:
    """Prune a small model, so that what the libraries do once is done."""
    small = Job(**{**job.__dict__, 'model': job.small_model, 'output': job.output + '-small',
                   'samples': 4, 'tokens': 16, 'only_blocks': None})
    SIDES[job.side](small, lambda step: None)
    shutil.rmtree(small.output)


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(job.threads)
    torch.backends.mkldnn.matmul.fp32_precision = job.products
    _warm_up(job)
    peaks = Peaks()
    wall, processor = time.perf_counter(), time.process_time()
    SIDES[job.side](job, peaks.note)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peaks.note('end')
    print(json.dumps({'wall_s': wall, 'processor_s': processor, 'peak_mb': peaks.at['end'],
                      'peak_mb_at': peaks.at, 'torch': torch.__version__}))


if __name__ == '__main__':
    main()
