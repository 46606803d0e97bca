"""
What pruning costs: time and memory against llm-compressor and against OWL's original procedure.

    python benchmarks/calibration_cost.py --json docs/results/calibration_cost.json

Every side prunes the same model (a Llama of 24 blocks with seeded random weights, stored in bf16)
to a sparsity of 0.5 on the same samples, on the CPU with as many threads, its weights and
activations in float32, from a directory to a directory. Runs are processes of their own; those
of a comparison take turns. llm-compressor gets an environment of its own, which is made when no
interpreter is given (``--peer-python``).

Memory does not depend on the precision of products: where they are as many as for 128 samples of
2048 tokens, ``--memory-products bf16`` lets every side alike round their inputs to bf16, which
some processors multiply much faster. The other sides may leave after some blocks of each pass
(``--memory-blocks``): the peak that they have reached by then is the least that they need.

What was measured is kept in the work directory until all is done: a benchmark that was stopped
goes on when it is started again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
import hashlib
import json
import os
from pathlib import Path
import platform
import shutil
import statistics
import subprocess
import sys
import time
import venv

from calibration.sides import Job, random_tokens, VOCABULARY
from safetensors import safe_open
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

PEER = 'llmcompressor==0.14.0.1'
SIDES = Path(__file__).with_name('calibration') / 'sides.py'
FULL_TOKENS = 128 * 2048
ACTIVATION_BYTES = 256 << 20    # that owled_ros may keep in memory of so many tokens


@dataclass(frozen=True)
class Size:
    """The size of a model of the Llama family."""

    blocks: int
    width: int
    inner: int
    heads: int


LARGE = Size(blocks=24, width=1280, inner=3456, heads=20)   # 558 million parameters
QUICK = Size(blocks=6, width=256, inner=688, heads=4)
SMALL = Size(blocks=2, width=64, inner=192, heads=4)        # to warm up with


@dataclass(frozen=True)
class Run:
    """One thing to measure: which side prunes, and how."""

    side: str
    method: str
    allocation: str
    statistics: str

    @property
    def name(self) -> str:
        """Return a name for files and for people."""
        words = [self.side, self.method, self.allocation, self.statistics]
        return ' '.join(word for word in words if word != 'uniform')


WANDA = Run('owled_ros', 'wanda', 'uniform', 'sequential')
SPARSEGPT = Run('owled_ros', 'sparsegpt', 'uniform', 'sequential')
OWL = Run('owled_ros', 'wanda', 'owl', 'sequential')
OWL_DENSE = Run('owled_ros', 'wanda', 'owl', 'dense')
PEER_WANDA = Run('llm-compressor', 'wanda', 'uniform', 'sequential')
PEER_SPARSEGPT = Run('llm-compressor', 'sparsegpt', 'uniform', 'sequential')
ORIGINAL = Run('original', 'wanda', 'owl', 'sequential')

# (name, ours, theirs, the most that ours may take of theirs; None: shown beside, no bar)
TIMES = (
    ('time, Wanda, of llm-compressor', WANDA, PEER_WANDA, 1.0),
    ('time, SparseGPT, of llm-compressor', SPARSEGPT, PEER_SPARSEGPT, 1.0),
    ('time, OWL with dense statistics, of the original', OWL_DENSE, ORIGINAL, 0.6),
    ('time, OWL with sequential statistics, of the original', OWL, ORIGINAL, None),
)
MEMORIES = (
    ('peak memory, OWL with dense statistics, of the original', OWL_DENSE, ORIGINAL, 0.25),
    ('peak memory, OWL with sequential statistics, of the original', OWL, ORIGINAL, 0.25),
    ('peak memory, Wanda, of llm-compressor', WANDA, PEER_WANDA, None),
    ('peak memory, SparseGPT, of llm-compressor', SPARSEGPT, PEER_SPARSEGPT, None),
)


class Bench:
    """
    Runs sides and keeps what they measured.

    :param work: a directory for models, outputs and environments
    :param threads: of every side
    """

    def __init__(self, work: Path, size: Size, threads: int, peer_python: str | None):
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.threads = threads
        self.model = make_model(work / f'model-{size.blocks}x{size.width}', size)
        self.small = make_model(work / 'small', SMALL)
        self.pythons = {'llm-compressor': peer_python or make_peer_environment(work / 'peer')}

    def output(self, run: Run) -> Path:
        """Return where a run leaves its model when the time is measured."""
        return self.work / 'out' / run.name

    def measure(self, run: Run, number: int, samples: int, tokens: int, **how) -> dict:
        """Run a side once; return what it measured, or has measured before this was stopped."""
        output = self.output(run) if not how else self.work / 'out' / f'memory {run.name}'
        job = json.dumps(asdict(Job(
            **asdict(run), model=str(self.model), output=str(output), threads=self.threads,
            small_model=str(self.small), samples=samples, tokens=tokens,
            activation_bytes=ACTIVATION_BYTES * samples * tokens // FULL_TOKENS, **how)))
        key = hashlib.sha256(job.encode()).hexdigest()[:12]
        measured = self.work / 'measured' / f'{key}-{number}.json'
        if measured.exists():
            return json.loads(measured.read_text())
        for left in (output, output.with_name(f'.{output.name}.partial')):  # it would go on
            shutil.rmtree(left, ignore_errors=True)
        output.parent.mkdir(exist_ok=True)
        path = output.with_name(output.name + '.json')
        path.write_text(job)
        done = subprocess.run(
            [self.pythons.get(run.side, sys.executable), SIDES, path], text=True,
            capture_output=True, check=False,
            env={**os.environ, 'OMP_NUM_THREADS': str(self.threads)})
        if done.returncode:
            raise SystemExit(f'{done.stdout}\n{done.stderr}\n{run.name} failed: see above.')
        found = json.loads(done.stdout.splitlines()[-1])
        measured.parent.mkdir(exist_ok=True)
        measured.write_text(json.dumps(found))
        print(f'{time.strftime("%H:%M:%S")} {run.name}: {found["wall_s"]:.1f} s, '
              f'{found["processor_s"]:.1f} s of the processor, {found["peak_mb"]:.0f} MB',
              flush=True)
        return found


def make_model(directory: Path, size: Size) -> Path:
    """Save a Llama with seeded random weights in bf16, if it is not there."""
    if not directory.exists():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=size.width, intermediate_size=size.inner,
            num_hidden_layers=size.blocks, num_attention_heads=size.heads,
            num_key_value_heads=size.heads, tie_word_embeddings=False)).to(torch.bfloat16)
        partial = directory.with_name(directory.name + '.partial')
        model.save_pretrained(partial)
        partial.rename(directory)
    return directory


def make_peer_environment(directory: Path) -> str:
    """Return the interpreter of an environment with llm-compressor, made if it is not there."""
    python = directory / 'bin' / 'python'
    if not (directory / 'ready').exists():
        print(f'Installing {PEER} into {directory}: some GB, some minutes', flush=True)
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', PEER], check=True)
        (directory / 'ready').touch()
    return str(python)


# -- time -----------------------------------------------------------------------------------------

def measure_times(bench: Bench, samples: int, tokens: int, repetitions: int,
                  comparisons=TIMES) -> list[dict]:
    """Return a row for every run of the comparisons; the runs take turns."""
    runs = list(dict.fromkeys(run for _, ours, theirs, _ in comparisons for run in (ours, theirs)))
    found = {run: [] for run in runs}
    for repetition in range(repetitions):
        for run in runs if repetition % 2 == 0 else reversed(runs):
            found[run].append(bench.measure(run, repetition, samples, tokens))
    return [{'kind': 'time', **asdict(run), 'samples': samples, 'tokens': tokens,
             'threads': bench.threads, 'torch': several[0]['torch'],
             **_spread(several, 'wall_s'), **_spread(several, 'processor_s'),
             'peak_mb': max(one['peak_mb'] for one in several)}
            for run, several in found.items()]


def _spread(several: Sequence[dict], name: str) -> dict:
    values = [round(one[name], 2) for one in several]
    return {name: statistics.median(values), f'{name}_all': values}


# -- memory ---------------------------------------------------------------------------------------

def measure_memory(bench: Bench, samples: int, tokens: int, products: str,
                   blocks: int | None, comparisons=MEMORIES) -> list[dict]:
    """Return a row for every run of the comparisons."""
    rows = []
    runs = dict.fromkeys(run for _, ours, theirs, _ in comparisons for run in (ours, theirs))
    for run in runs:
        left_after = None if run.side == 'owled_ros' else blocks
        found = bench.measure(run, 0, samples, tokens, products=products,
                              only_blocks=left_after)
        rows.append({'kind': 'memory', **asdict(run), 'samples': samples, 'tokens': tokens,
                     'threads': bench.threads, 'products': products,
                     'left_after_blocks': left_after, 'peak_mb': found['peak_mb'],
                     'peak_mb_at': found['peak_mb_at'], 'wall_s': round(found['wall_s'], 1)})
    return rows


# -- results --------------------------------------------------------------------------------------

def masks_agree(first: Path, second: Path) -> float:
    """Return the share of places, of all weights of blocks, pruned by both models or by none."""
    same, total = 0, 0
    with safe_open(first / 'model.safetensors', 'pt') as one, \
            safe_open(second / 'model.safetensors', 'pt') as other:
        for name in one.keys():
            if name.endswith('_proj.weight'):
                equal = (one.get_tensor(name) == 0) == (other.get_tensor(name) == 0)
                same += int(equal.sum())
                total += equal.numel()
    return same / total


def output_errors(dense: Path, pruned: dict[Run, Path]) -> dict[Run, float]:
    """Return the relative error of each pruned model's logits on tokens that were held out."""
    tokens = random_tokens(1, 256, seed=2)[0]

    @torch.no_grad()
    def logits(directory):
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)(tokens).logits

    expected = logits(dense)
    return {run: ((logits(directory) - expected).norm() / expected.norm()).item()
            for run, directory in pruned.items()}


def compare_outputs(bench: Bench, rows: list[dict], comparisons=TIMES) -> None:
    """Add to the rows of ``measure_times`` how near the models are to each other and to dense."""
    runs = {_run_of(row): row for row in rows}
    for run, error in output_errors(bench.model, {r: bench.output(r) for r in runs}).items():
        runs[run]['output_error'] = round(error, 5)
    for _, ours, theirs, _ in comparisons:
        agreement = masks_agree(bench.output(ours), bench.output(theirs))
        runs[ours]['same_mask_as'] = {theirs.name: round(agreement, 5)}


def bars_of(rows: Sequence[dict]) -> list[dict]:
    """Return every ratio of ours to theirs that the rows hold, and whether it meets its bar."""
    bars = []
    for kind, samples, tokens in dict.fromkeys(map(_size_of, rows)):
        what, comparisons = {'time': ('wall_s', TIMES), 'memory': ('peak_mb', MEMORIES)}[kind]
        found = {_run_of(row): row[what] for row in rows
                 if _size_of(row) == (kind, samples, tokens)}
        for name, ours, theirs, bar in comparisons:
            if ours in found and theirs in found:
                value = found[ours] / found[theirs]
                bars.append({'name': name, 'samples': samples, 'tokens': tokens,
                             'value': round(value, 3), 'bar': bar,
                             'met': None if bar is None else value <= bar})
    return bars


def merge(before: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Return rows of before and new ones, which take the place of those of the same run."""
    measured = {(_size_of(row), _run_of(row)) for row in rows}
    return [row for row in before if (_size_of(row), _run_of(row)) not in measured] + list(rows)


def _size_of(row: dict) -> tuple[str, int, int]:
    return row['kind'], row['samples'], row['tokens']


def _run_of(row: dict) -> Run:
    return Run(*(row[field] for field in Run.__dataclass_fields__))


def table(rows: Sequence[dict], bars: Sequence[dict]) -> str:
    """Return rows and bars as two tables of Markdown."""
    lines = ['| | run | samples | wall s (all) | processor s | peak MB | error | same mask |',
             '|---|---|---|---|---|---|---|---|']
    for row in rows:
        wall = f'{row["wall_s"]:.1f}'
        if 'wall_s_all' in row:
            wall += ' (' + ', '.join(f'{value:.1f}' for value in row['wall_s_all']) + ')'
        same = row.get('same_mask_as', {})
        lines.append(' | '.join([
            f'| {row["kind"]}', _run_of(row).name, f'{row["samples"]} x {row["tokens"]}', wall,
            f'{row["processor_s"]:.1f}' if 'processor_s' in row else '',
            f'{row["peak_mb"]:.0f}', f'{row["output_error"]:.4f}' if 'output_error' in row else '',
            ', '.join(f'{share:.2%}' for share in same.values())]) + ' |')
    lines += ['', '| ours of theirs | samples | value | bar | met |', '|---|---|---|---|---|']
    for bar in bars:
        met = {True: 'yes', False: 'no', None: ''}[bar['met']]
        lines.append(f'| {bar["name"]} | {bar["samples"]} x {bar["tokens"]} | '
                     f'{bar["value"]:.3f} | {bar["bar"] or ""} | {met} |')
    return '\n'.join(lines)


def processor() -> str:
    """Return the processor's name."""
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--quick', action='store_true',
                        help='a small model and short samples: some minutes')
    parser.add_argument('--part', choices=('time', 'memory', 'all'), default='all')
    parser.add_argument('--only', default='', metavar='WORDS',
                        help='measure only what is compared under a name with these words')
    parser.add_argument('--samples', type=int, default=4, help='when the time is measured')
    parser.add_argument('--tokens', type=int, default=2048, help='of each sample')
    parser.add_argument('--repetitions', type=int, default=3)
    parser.add_argument('--memory-samples', type=int, default=128)
    parser.add_argument('--memory-products', choices=('ieee', 'bf16'), default='ieee')
    parser.add_argument('--memory-blocks', type=int, metavar='N',
                        help='let the other sides leave after N blocks of each pass')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--peer-python', metavar='PYTHON', help='has llm-compressor')
    parser.add_argument('--work', type=Path, default=Path('build/calibration_cost'),
                        help='a directory for models, results and environments')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='is added to: what was not measured now stays in it')
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.samples, chosen.tokens, chosen.memory_samples = 4, 256, 64
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parse_arguments(arguments)
    bench = Bench(chosen.work, QUICK if chosen.quick else LARGE, chosen.threads,
                  chosen.peer_python)
    rows = []
    if chosen.part != 'memory':
        comparisons = [compared for compared in TIMES if chosen.only in compared[0]]
        rows += measure_times(bench, chosen.samples, chosen.tokens, chosen.repetitions,
                              comparisons)
        compare_outputs(bench, rows, comparisons)
    if chosen.part != 'time':
        rows += measure_memory(bench, chosen.memory_samples, chosen.tokens,
                               chosen.memory_products, chosen.memory_blocks,
                               [compared for compared in MEMORIES if chosen.only in compared[0]])
    shutil.rmtree(chosen.work / 'measured', ignore_errors=True)
    if chosen.json and chosen.json.exists():
        rows = merge(json.loads(chosen.json.read_text())['rows'], rows)
    bars = bars_of(rows)
    print(table(rows, bars))
    print('\nError: of the logits against dense. Same mask: as the side that the bar names.')
    if chosen.json:
        chosen.json.write_text(json.dumps(
            {'rows': rows, 'bars': bars, 'peer': PEER, 'processor': processor()}, indent=1) + '\n')


if __name__ == '__main__':
    main()
