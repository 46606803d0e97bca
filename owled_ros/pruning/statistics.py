"""
What is accumulated of a projection's inputs, and the hooks that accumulate it.

A statistic is fed with the inputs X (tokens x columns) of a projection, as often as it is called;
it can be added to that of other samples, so that samples may be shared among processes.
"""

from collections.abc import Iterable

from owled_ros.errors import UserError
from owled_ros.pruning.processes import Processes
from owled_ros.pruning.structure import Projection
import torch
from torch import nn

PANEL = 512     # columns of a Hessian that are computed together


class Statistic:
    """
    A sum over all tokens, in float64: so it hardly depends on the order of the samples.

    :param total: the sum so far
    """

    kept_as = torch.float64     # beyond the block that is being gone through

    def __init__(self, total: torch.Tensor):
        self.total = total


class InputNorms(Statistic):
    """
    The norm of every input column, ||X_j||_2 over all tokens (Wanda, arXiv 2306.11695, sec. 3).

    ``total`` holds the squares of the norms, float64 (columns,).
    """

    @classmethod
    def empty(cls, columns: int, device: torch.device) -> 'InputNorms':
        """Return the statistic of a projection with that many inputs, before any token."""
        return cls(torch.zeros(columns, dtype=torch.float64, device=device))

    def add(self, x: torch.Tensor) -> None:
        """Take in inputs (tokens x columns)."""
        self.total += x.float().square().sum(0)

    def is_finite(self) -> bool:
        """Say whether nothing that was taken in was NaN or infinite."""
        return bool(torch.isfinite(self.total).all())

    def norms(self) -> torch.Tensor:
        """Return ||X_j||_2 for every column j, float32 (columns,)."""
        return self.total.sqrt().float()


class InputHessian(Statistic):
    """
    The second moments of the inputs, H = X^T X.

    They are the Hessian of the squared error of the outputs for every output row (SparseGPT, arXiv
    2301.00774, sec. 2).

    ``total`` is H, the upper triangle of it (columns x columns).
    """

    kept_as = torch.float32

    @classmethod
    def empty(cls, columns: int, device: torch.device) -> 'InputHessian':
        """Return the statistic of a projection with that many inputs, before any token."""
        return cls(torch.zeros(columns, columns, dtype=torch.float64, device=device))

    def add(self, x: torch.Tensor) -> None:
        """Take in inputs (tokens x columns)."""
        x = x.float()
        for start in range(0, x.shape[1], PANEL):   # H is symmetric: one triangle is computed
            end = start + PANEL
            self.total[start:end, start:] += x[:, start:end].T @ x[:, start:]

    def is_finite(self) -> bool:
        """Say whether nothing that was taken in was NaN or infinite."""
        return bool(torch.isfinite(self.total.diagonal()).all())

    def norms(self) -> torch.Tensor:
        """Return ||X_j||_2 for every column j, float32 (columns,)."""
        return self.total.diagonal().sqrt().float()

    def matrix(self) -> torch.Tensor:
        """Return H, float32 (columns x columns)."""
        upper = self.total.float().triu_()
        return upper + upper.triu(1).T


def wanda_scores(weight: torch.Tensor, norms: torch.Tensor,
                 out: torch.Tensor | None = None) -> torch.Tensor:
    """Return |W_ij| * ||X_j||_2 (rows x columns) for input norms (columns,)."""
    return torch.abs(weight, out=out).mul_(norms)


class Collector:
    """
    Accumulates a statistic for each of a block's projections while the block runs.

    Projections that are given the very same tensor (query, key and value) share one statistic.

    :param statistic: the class to accumulate, e.g. ``InputNorms``
    """

    def __init__(self, model: nn.Module, projections: Iterable[Projection], statistic: type):
        self._modules = {p: model.get_submodule(p.name) for p in projections}
        self._statistic = statistic
        self._of = {}           # projection -> statistic
        self._previous = None   # the tensor seen last, and its statistic
        self._calls = []        # projections, in the order in which they were called
        self._hooks = []

    def __enter__(self):
        for projection, module in self._modules.items():
            self._hooks.append(module.register_forward_pre_hook(self._hook(projection)))
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._previous = None

    def add_up(self, processes: Processes) -> None:
        """Add what the collectors of the same block have seen in other processes."""
        if processes.count == 1:
            return
        first = {}      # name of a projection -> name of that whose statistic it shares
        for known in processes.gather(self.sharing()):
            first = known | first
        sums = {}
        for projection in self._modules:
            if projection.name not in first:
                continue
            name = first[projection.name]
            if name not in sums:
                mine = self._of.get(projection) or self._statistic.empty(
                    projection.columns, processes.device)
                processes.sum(mine.total)
                sums[name] = mine
            self._of[projection] = sums[name]

    def sharing(self) -> dict[str, str]:
        """Return the name of the first projection that has the same statistic, for each."""
        first = {}
        return {projection.name: first.setdefault(id(self._of[projection]), projection.name)
                for projection in self._modules if projection in self._of}

    def of(self, projection: Projection):
        """Return what was accumulated for a projection."""
        if projection not in self._of:
            raise UserError(f'No calibration sample reaches {projection.name}: give samples that '
                            'do, or leave it dense with an exclude expression.')
        return self._of[projection]

    def last(self) -> Projection | None:
        """Return the projection that was called last; None if it was called before that too."""
        if self._calls and self._calls.count(self._calls[-1]) == 1:
            return self._calls[-1]
        return None

    def _hook(self, projection: Projection):
        def see(module, args):
            x = args[0]
            self._calls.append(projection)
            known = self._of.get(projection)
            if self._previous is not None and self._previous[0] is x \
                    and known in (None, self._previous[1]):
                self._of[projection] = self._previous[1]
                return
            if known is None:
                known = self._of[projection] = self._statistic.empty(
                    projection.columns, x.device)
            known.add(x.detach().reshape(-1, projection.columns))
            if not known.is_finite():
                raise UserError(f'The inputs of {projection.name} hold NaN or infinite values: '
                                'a calibration sample or the model is damaged.')
            self._previous = (x, known)
        return see
