"""
Pruning a small model in memory with the package's own methods and allocations.

``owled_ros.pruning.prune`` streams a model from disk and back, sample by sample, and measures
everything anew; a table of hundreds of cells needs neither. Here the model stays in memory,
samples go through in batches, and what was measured of the dense model serves all cells of a
seed. Statistics, methods, allocations and rounding are the package's; ``perplexity.py --verify``
shows that both ways give the same model.
"""

from contextlib import contextmanager
import ctypes
from pathlib import Path
from types import SimpleNamespace

from owled_ros.pruning import PruningSettings
from owled_ros.pruning.allocation import allocate, ALLOCATIONS, Share, share_out
from owled_ros.pruning.fisher import histogram, measure_fisher
from owled_ros.pruning.measuring import measure_outliers, outlier_shares
from owled_ros.pruning.methods import METHODS
from owled_ros.pruning.patterns import Cut
from owled_ros.pruning.pipeline import hash_text
from owled_ros.pruning.statistics import Collector, InputHessian
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import Block, find_chains, Projection
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

BATCH = 8       # samples that go through a block together

_THRESHOLD, _TRIM, _PAD = -3, -1, -2    # of glibc's malloc.h
_LARGEST = 32 << 20                     # glibc takes no higher threshold


def keep_memory() -> None:
    """Let glibc reuse the memory of tensors, which ``StreamedModel`` forbids: it is faster."""
    libc = ctypes.CDLL(None)
    for name, value in ((_THRESHOLD, _LARGEST), (_TRIM, 1 << 30), (_PAD, 256 << 20)):
        libc.mallopt(name, value)


@contextmanager
def matrix_products(precision: str):
    """Do float32 products in 'ieee' float32, or with inputs rounded to 'bf16' (much faster)."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


class Hessian(InputHessian):
    """
    The package's statistic, its products taken of inputs rounded to bf16 and summed in float32.

    Under autocast a projection multiplies such inputs anyway, so that this is X^T X of what it
    is given; those of the output and down projections are bf16 already.
    """

    def add(self, x: torch.Tensor) -> None:
        with torch.autocast('cpu', enabled=False), matrix_products('bf16'):
            super().add(x)


class Statistics:
    """
    What ``Collector`` accumulated, kept beyond it.

    :param of: statistic by projection
    """

    def __init__(self, of: dict[Projection, InputHessian] | None = None):
        self._of = dict(of or {})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the sums by name of projection, each in memory of its own."""
        return {p.name: statistic.total.clone() for p, statistic in self._of.items()}

    def take(self, projections, collector: Collector) -> None:
        """Keep a block's statistics."""
        self._of |= {p: collector.of(p) for p in projections}

    def of(self, projection: Projection):
        """Return what was accumulated for a projection, as ``Collector.of`` does."""
        return self._of[projection]


class InMemoryModel:
    """
    A decoder of the Llama family, whose blocks can be pruned and restored.

    :param directory: of a saved model
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.module.requires_grad_(False)
        sample = {'input_ids': torch.arange(8)[None]}
        chain, = find_chains(StreamedModel(directory, torch.device('cpu')), sample)
        self.blocks: tuple[Block, ...] = chain.blocks
        self._dense = {p: self.weight(p).data for p in self.projections}

    @property
    def projections(self) -> list[Projection]:
        """All projections that may be pruned, in order."""
        return [p for block in self.blocks for p in block.projections]

    def weight(self, projection: Projection) -> torch.nn.Parameter:
        """Return a projection's weight, rows x columns."""
        return self.module.get_submodule(projection.name).weight

    def restore(self) -> None:
        """Make the model dense again."""
        for projection, dense in self._dense.items():
            self.weight(projection).data = dense

    def sparsity(self) -> float:
        """Return the share of zeros in the weights that may be pruned."""
        zeros = sum(int((self.weight(p) == 0).sum()) for p in self.projections)
        return zeros / sum(p.count for p in self.projections)

    # -- forward passes ---------------------------------------------------------------------

    @torch.no_grad()
    def embed(self, samples: torch.Tensor) -> list[torch.Tensor]:
        """Return the first block's inputs, in batches (8 x 512 x width)."""
        return [self.module.model.embed_tokens(batch) for batch in samples.split(BATCH)]

    @torch.no_grad()
    def through(self, number: int, hidden: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return a block's outputs for its inputs, both in batches."""
        block = self.module.get_submodule(self.blocks[number].name)
        positions = torch.arange(hidden[0].shape[1])[None]
        rotary = self.module.model.rotary_emb(hidden[0], positions)
        with torch.autocast('cpu', torch.bfloat16):
            return [block(batch, position_embeddings=rotary) for batch in hidden]

    @torch.no_grad()
    def losses(self, samples: torch.Tensor) -> list[float]:
        """Return the mean loss per predicted token [nats] of every sample."""
        result = []
        with torch.autocast('cpu', torch.bfloat16):
            for batch in samples.split(BATCH):
                hidden = self.module.model(batch, use_cache=False).last_hidden_state
                result += [functional.cross_entropy(
                    self.module.lm_head(states[:-1]).float(), sample[1:]).item()
                    for states, sample in zip(hidden, batch)]
        return result

    # -- measuring --------------------------------------------------------------------------

    def measure_inputs(self, samples: torch.Tensor) -> Statistics:
        """Return the Hessian of every projection, on the dense model."""
        statistics = Statistics()
        hidden = self.embed(samples)
        for number, block in enumerate(self.blocks):
            with Collector(self.module, block.projections, Hessian) as collector:
                hidden = self.through(number, hidden)
            statistics.take(block.projections, collector)
        return statistics

    def measure_outliers(self, statistics: Statistics, settings: PruningSettings) -> dict:
        """Return the outlier share of every block and projection (OWL)."""
        subject = SimpleNamespace(model=self, settings=settings)
        outliers = {}
        for block in self.blocks:
            outliers[block.name], own = outlier_shares(subject, block.projections, statistics)
            outliers |= {p.name: share for p, share in zip(block.projections, own)}
        return outliers

    def measure_fisher(self, samples: torch.Tensor) -> dict[str, list[int]]:
        """Return a histogram of log10(W^2 F) for every projection, as ``fisher`` measures it."""
        weights = [self.weight(p).requires_grad_() for p in self.projections]
        squares = [torch.zeros_like(weight) for weight in weights]
        for sample in samples:
            with torch.autocast('cpu', torch.bfloat16):
                logits = self.module(sample[None], use_cache=False).logits[0, :-1]
            loss = functional.cross_entropy(logits.float(), sample[1:])
            for square, gradient in zip(squares, torch.autograd.grad(loss, weights)):
                square.addcmul_(gradient, gradient, value=1 / len(samples))
        for weight in weights:
            weight.requires_grad_(False)
        return {p.name: histogram(weight.detach().square() * square)
                for p, weight, square in zip(self.projections, weights, squares)}

    # -- pruning ----------------------------------------------------------------------------

    def plan(self, evidence: dict, settings: PruningSettings) -> dict[str, int]:
        """Return how many weights of each projection are pruned."""
        if ALLOCATIONS[settings.allocation].by_projection:
            members = [(p.name, (p,)) for p in self.projections]
        else:
            members = [(block.name, block.projections) for block in self.blocks]
        shares = [Share('language', sum(p.count for p in projections), evidence.get(name))
                  for name, projections in members]
        wanted = {p: sparsity for (_, projections), sparsity in zip(
            members, allocate(shares, settings)) for p in projections}
        limits = [p.count for p in wanted]
        whole = share_out([p.count * sparsity for p, sparsity in wanted.items()], limits,
                          round(settings.sparsity * sum(limits)))
        return {p.name: count for p, count in zip(wanted, whole)}

    def prune(self, samples: torch.Tensor, settings: PruningSettings) -> None:
        """Measure and prune as ``owled_ros.pruning.prune`` does, nothing taken from before."""
        statistics = self.measure_inputs(samples)
        measure = ALLOCATIONS[settings.allocation].measure
        evidence = {}
        if measure is measure_fisher:
            evidence = self.measure_fisher(samples)
        elif measure is measure_outliers:
            evidence = self.measure_outliers(statistics, settings)
        counts = self.plan(evidence, settings)
        if settings.statistics == 'dense':
            self.prune_dense(counts, statistics, settings)
        else:
            self.prune_sequentially(counts, samples, settings)

    def prune_dense(self, counts, statistics: Statistics, settings: PruningSettings) -> None:
        """Prune every projection by what was measured of the dense model."""
        for block in self.blocks:
            self._prune_block(block, counts, statistics, settings)

    def prune_sequentially(self, counts, samples: torch.Tensor,
                           settings: PruningSettings) -> None:
        """Prune block by block, each measured behind the pruned ones before it."""
        statistic = METHODS[settings.method].statistic
        statistic = Hessian if statistic is InputHessian else statistic
        hidden = self.embed(samples)
        for number, block in enumerate(self.blocks):
            with Collector(self.module, block.projections, statistic) as collector:
                self.through(number, hidden)
            self._prune_block(block, counts, collector, settings)
            hidden = self.through(number, hidden)

    @torch.no_grad()
    def _prune_block(self, block: Block, counts, statistics, settings) -> None:
        method = METHODS[settings.method]
        for projection in block.projections:
            seed = int(hash_text(f'{settings.seed} {projection.name}')[:15], 16)
            cut = Cut(counts[projection.name], seed=seed)
            weight = self.weight(projection)
            weight.data, _ = method.prune(weight.data, statistics.of(projection), cut)
