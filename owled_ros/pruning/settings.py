"""What a user may choose when pruning, checked before anything is read."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
import re

from owled_ros.errors import UserError
from owled_ros.pruning.allocation import ALLOCATIONS, HIGHEST
from owled_ros.pruning.methods import METHODS
from owled_ros.pruning.patterns import parse_pattern

COMPONENTS = ('vision', 'projector', 'language', 'head')
GROUPS = {'both': ('vision', 'language'), 'all': ('vision', 'projector', 'language')}
STATISTICS = ('sequential', 'dense')
ROUNDED = 1e-3  # what a sparsity that is given for a pattern may be off by: 0.667 for 1:3


@dataclass(frozen=True, kw_only=True)
class PruningSettings:
    """
    Choose what is pruned, how much, and by which rules.

    :param sparsity: share of the prunable weights to prune, in [0, 0.99]
    :param method: which weights go, a name in ``methods.METHODS``
    :param allocation: how the budget is shared among blocks, a name in
        ``allocation.ALLOCATIONS``
    :param components: 'vision', 'projector', 'language', 'head' (the output head), or several of
        them separated by commas; 'both' is the vision encoder and the language model, 'all' the
        projector too
    :param component_sparsity: a budget of its own for a component, ``{'vision': 0.3}``; the
        others get ``sparsity``
    :param joint: share one budget among all components, instead of the same one each
    :param statistics: whose inputs the projections' statistics are of: 'dense', the dense
        model's, from the same pass in which the allocation measures; they wait on disk: Hessians
        take 4 x columns^2 bytes for every projection with inputs of its own. Or 'sequential',
        the model's as it is pruned, block by block, which takes two passes more
    :param outlier_threshold: OWL's M: a score is an outlier above M times the mean
    :param outlier_width: OWL's lambda: block sparsities span at most 2 lambda
    :param pattern: 'unstructured', or 'n:m' to keep n of every m neighbours of a row (2:4)
    :param include: regular expressions of projections to prune, all when empty
    :param exclude: regular expressions of projections to leave dense
    :param seed: for whatever is drawn at random
    :param minimum_samples: fewer calibration samples than this are refused
    :param device: 'auto', 'cpu' or 'cuda'
    :param activation_bytes: calibration activations beyond this size are spilled to disk
    :raises UserError: when a value cannot be used
    """

    sparsity: float = 0.5
    method: str = 'admm'
    allocation: str = 'fisher'
    components: str = 'both'
    component_sparsity: Mapping[str, float] = field(default_factory=dict)
    joint: bool = False
    statistics: str = 'dense'
    outlier_threshold: float = 5.0
    outlier_width: float = 0.08
    pattern: str = 'unstructured'
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    minimum_samples: int = 4
    device: str = 'auto'
    activation_bytes: int = 256 << 20

    def __post_init__(self):
        _check_name('method', self.method, METHODS)
        _check_name('allocation', self.allocation, ALLOCATIONS)
        _check_name('kind of statistics', self.statistics, STATISTICS)
        for component in self.components.split(','):
            _check_name('component', component.strip(), (*COMPONENTS, *GROUPS))
        _check_sparsity('sparsity', self.sparsity)
        for component, sparsity in self.component_sparsity.items():
            _check_name('component', component, self.pruned_components)
            _check_sparsity(f'sparsity of {component}', sparsity)
        if self.joint and self.component_sparsity:
            raise UserError('A joint budget and a sparsity per component exclude each other: '
                            'give one of them.')
        if not self.outlier_threshold > 0:
            raise UserError(f'The outlier threshold is {self.outlier_threshold}: '
                            'give a number above 0.')
        if not 0 <= self.outlier_width <= 0.5:
            raise UserError(f'The outlier width is {self.outlier_width}: '
                            'give a number from 0 to 0.5.')
        if self.minimum_samples < 1:
            raise UserError(f'The least number of samples is {self.minimum_samples}: give at '
                            'least 1.')
        self._check_pattern()
        for expression in (*self.include, *self.exclude):
            _check_expression(expression)

    def _check_pattern(self):
        pattern = parse_pattern(self.pattern)
        if pattern is None:
            return
        sparsity = 1 - pattern[0] / pattern[1]
        asked = {self.component_sparsity.get(c, self.sparsity) for c in self.pruned_components}
        if any(abs(one - sparsity) > ROUNDED for one in asked):
            raise UserError(f'The pattern {self.pattern} prunes a share of {sparsity:.4g} of every '
                            f'block: give this as the sparsity, not {self.sparsity}.')
        if self.allocation != 'uniform':
            raise UserError(f'The pattern {self.pattern} prunes every block alike: '
                            f'choose the allocation uniform, not {self.allocation}.')

    @property
    def pruned_components(self) -> tuple[str, ...]:
        """Return the components that are pruned, in the order in which they run."""
        named = [name.strip() for name in self.components.split(',')]
        chosen = {component for name in named for component in GROUPS.get(name, (name,))}
        return tuple(component for component in COMPONENTS if component in chosen)

    def sparsity_of(self, component: str) -> float:
        """Return the share of a component's prunable weights to prune; a pattern says it itself."""
        if (pattern := parse_pattern(self.pattern)) is not None:
            return 1 - pattern[0] / pattern[1]
        return self.component_sparsity.get(component, self.sparsity)

    def chooses(self, projection: str) -> bool:
        """Say whether the regular expressions let a projection of this name be pruned."""
        if any(re.search(expression, projection) for expression in self.exclude):
            return False
        return not self.include or any(re.search(e, projection) for e in self.include)

    def code(self) -> str:
        """Return what ``record`` does as Python, without what is as by default."""
        given = [f'{name}={value!r}' for name, value in self.record().items()
                 if value != getattr(PruningSettings(), name)]
        return f'PruningSettings({", ".join(given)})'

    def record(self) -> dict:
        """Return what decides the result, without what only decides where it is computed."""
        values = asdict(self)
        del values['activation_bytes']
        return values


def parse_shares(texts: Iterable[str]) -> dict[str, float]:
    """
    Read 'vision=0.3' as a component and its sparsity.

    :raises UserError: when a text is not of this form
    """
    shares = {}
    for text in texts:
        component, _, share = text.partition('=')
        try:
            shares[component.strip()] = float(share)
        except ValueError:
            raise UserError(f'The sparsity of a component, {text!r}, cannot be read: write it as '
                            'in vision=0.3.') from None
    return shares


def _check_name(what: str, name: str, known) -> None:
    if name not in known:
        raise UserError(f'There is no {what} {name!r}: choose one of {", ".join(known)}.')


def _check_sparsity(what: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value <= HIGHEST:
        raise UserError(f'The {what} is {value}: give a number from 0 to {HIGHEST}, beyond which '
                        'no block is pruned.')


def _check_expression(expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        raise UserError(f'The regular expression {expression!r} cannot be read: {error}.'
                        ) from None
