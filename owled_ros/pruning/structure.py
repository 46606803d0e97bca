"""
Finds the blocks and projections of a model, whatever its family.

Nothing is listed by name. A chain is a list of sibling modules that contain linear layers and
that the model calls one after the other, each fed with what the one before it returned; that is
seen by watching one sample go through. A chain's modules are the blocks, the linear layers in
them the projections. The chain that runs last is the language model, those before it see. What
lies between (the projector, also called merger or connector) is the linear layers that read what
a chain put out, and that a later chain reads; the output head, those that read what the last chain
put out, and that the model's result is made of.
"""

from contextlib import contextmanager
from dataclasses import dataclass

from owled_ros.errors import UserError
from owled_ros.pruning.replay import hidden_from, hidden_of, replaced, with_hidden
from owled_ros.pruning.streaming import StreamedModel
import torch
from torch import nn

ENTRY = -1  # the position of what lies before a chain's first block
OUTSIDE = ('projector', 'head')     # components that lie outside of the chains' blocks


@dataclass(frozen=True)
class Projection:
    """A linear layer in a block: weight (rows = outputs, columns = inputs)."""

    name: str
    rows: int
    columns: int

    @property
    def weight(self) -> str:
        """Return the name of its weight."""
        return f'{self.name}.weight'

    @property
    def count(self) -> int:
        """Return the number of its weights."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Block:
    """One module of a chain, or what lies before or behind one, with all linear layers in it."""

    name: str
    component: str
    projections: tuple[Projection, ...]

    @property
    def count(self) -> int:
        """Return the number of weights in its projections."""
        return sum(projection.count for projection in self.projections)


@dataclass(frozen=True)
class Chain:
    """
    Blocks that feed one another.

    :param component: 'vision' or 'language'
    :param root: the module whose forward calls the blocks
    :param blocks: in the order in which they run
    :param entry: the linear layers on the way to the first block from the chains before
    :param exit: those on the way from the last chain to the result; none of other chains
    :param taps: indices of the blocks whose output is read by more than the next block; the last
        is always one, others where features of several depths are used
    :param tuple_size: a block returns a tuple of this size, or a bare tensor when it is 0
    """

    component: str
    root: str
    blocks: tuple[Block, ...]
    taps: tuple[int, ...]
    tuple_size: int
    entry: Block
    exit: Block

    @property
    def end(self) -> int:
        """Return the position of what lies behind the last block."""
        return len(self.blocks)

    def steps(self) -> list[tuple[int, Block]]:
        """Return position and block of all that is gone through, entry first and exit last."""
        return [(ENTRY, self.entry), *enumerate((*self.blocks, self.exit))]

    def at(self, position: int) -> Block:
        """Return the block at a position; the entry at ``ENTRY``, the exit at ``end``."""
        return dict(self.steps())[position]


@torch.enable_grad()     # the caller may have switched it off
def find_chains(model: StreamedModel, sample: dict) -> list[Chain]:
    """
    Find the chains of a model by watching a sample go through it.

    :param model: keeps the weights outside of blocks in memory when this returns
    :param sample: the model's inputs, by name
    :return: the chains in the order in which they run
    :raises UserError: when there is none, or a block is of a kind that cannot be pruned
    """
    skipped = set()
    while True:
        lists = _block_lists(model.module, skipped)
        passage = _watch(model, lists, sample)
        broken = {name for name in lists if not passage.is_chain(name)}
        if not broken:
            break
        skipped |= broken
    names = [name for name in passage.order() if name in lists]
    if not names:
        raise UserError(f'The model in {model.directory} has no prunable block: no list of '
                        'sibling modules with linear layers that feed one another.')
    chains = [_chain(model, passage, names, number) for number in range(len(names))]
    for number, chain in enumerate(chains):
        inside = [other for other in chains[:number] + chains[number + 1:]
                  if f'{other.blocks[0].name}.'.startswith(f'{chain.root}.' if chain.root else '')]
        if inside:
            raise UserError(f'The blocks {chain.blocks[0].name} and {inside[0].blocks[0].name} '
                            f'of {model.directory} are called by the same module, which is not '
                            'supported.')
    return chains


def possible_blocks(model: StreamedModel) -> list[Block]:
    """Return what looks like blocks without running the model; the last list as language."""
    lists = _block_lists(model.module, set())
    last = list(lists)[-1] if lists else None
    return [_block(model, block, 'language' if name == last else 'vision')
            for name, blocks in lists.items() for block in blocks]


def _block_lists(model: nn.Module, skipped: set[str]) -> dict[str, list[str]]:
    """Return the outermost lists of modules that may be blocks: name -> names of the modules."""
    lists = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(outer + '.') for outer in lists)
        if inside or name in skipped or not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        children = list(module)
        if len(children) > 1 and all(_holds_linear(child) for child in children):
            lists[name] = [f'{name}.{index}' for index in range(len(children))]
    return lists


def _holds_linear(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear) and any(
        isinstance(child, nn.Linear) for child in module.modules())


def _chain(model: StreamedModel, passage: '_Passage', names: list[str], number: int) -> Chain:
    name = names[number]
    component = 'language' if name == names[-1] else 'vision'
    blocks = tuple(_block(model, block, component) for block in passage.lists[name])
    entry = _outside(model, 'projector', passage.on_the_way(names, number))
    behind = passage.on_the_way(names, len(names)) if name == names[-1] else []
    return Chain(component, passage.root(name), blocks, passage.taps(name),
                 passage.tuple_size[name], entry, _outside(model, 'head', behind))


def _outside(model: StreamedModel, component: str, names: list[str]) -> Block:
    """Return linear layers as a block, named after the innermost module that holds them all."""
    if not names:
        return Block('', component, ())
    parents = [name.split('.')[:-1] for name in names]
    common = []
    for parts in zip(*parents):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return Block('.'.join(common) or component, component, tuple(
        _projection(name, model.module.get_submodule(name)) for name in names))


def _block(model: StreamedModel, name: str, component: str) -> Block:
    module = model.module.get_submodule(name)
    for short, parameter in module.named_parameters():
        if parameter.dim() == 3:
            raise UserError(f'The experts in {name}.{short} are grouped in one tensor, which is '
                            'not supported: choose a model without a mixture of experts.')
    return Block(name, component, tuple(
        _projection(f'{name}.{short}', child)
        for short, child in module.named_modules() if isinstance(child, nn.Linear)))


def _projection(name: str, module: nn.Linear) -> Projection:
    return Projection(name, module.out_features, module.in_features)


class _Passage:
    """What was seen while one sample went through a model with candidate lists of blocks."""

    def __init__(self, lists: dict[str, list[str]]):
        self.lists = lists
        self.calls = []         # names of candidates, in the order of their calls
        self.leaves = {}        # candidate -> what its output is made of: a leaf for autograd
        self.inputs = {}        # candidate -> sums of the tensors that it was given
        self.reshaping = set()  # lists whose modules return another shape than they are given
        self.tuple_size = {}
        self.entered = {}       # module -> how often it was called
        # Linear layer outside of candidates -> its calls: sum of the input, output, and the
        # modules that had been entered by then.
        self.linears = {}
        self.result = None

    def order(self) -> list[str]:
        """Return the names of the lists that ran, in order."""
        ran = [name for name, mine in self.lists.items() if set(mine) & set(self.calls)]
        return sorted(ran, key=lambda name: min(
            self.calls.index(call) for call in self.lists[name] if call in self.calls))

    def is_chain(self, name: str) -> bool:
        """Say whether each module of a list ran once and was fed by exactly the one before."""
        mine = self.lists[name]
        if not set(mine) & set(self.calls):
            return True     # did not run: it stays dense as a whole and is not taken apart
        if [call for call in self.calls if call in mine] != mine or name in self.reshaping:
            return False
        return all(self._reads(self.inputs[block], mine) == mine[max(0, index - 1):index]
                   for index, block in enumerate(mine))

    def taps(self, name: str) -> tuple[int, ...]:
        """Return which modules of a list are read outside of it."""
        mine = self.lists[name]
        read = set(self._reads(self._given(but=mine), mine)) | {mine[-1]}
        return tuple(index for index, block in enumerate(mine) if block in read)

    def on_the_way(self, names: list[str], number: int) -> list[str]:
        """
        Return the linear layers between the chains before one and the root of this one.

        :param number: of this one; when there are not so many, the result takes its place
        """
        before = [block for name in names[:number] for block in self.lists[name]]
        given = self._given(but=before)
        passed = [self.root(name) for name in names[:number]]
        ahead = {self.root(name) for name in names[number:number + 1]}
        found = []
        for name, calls in self.linears.items():
            mine = [(read, made) for read, made, entered in calls
                    if entered.issuperset(passed) and not entered & ahead]
            if self._reads([read for read, _ in mine], before) and \
                    _sources(given, dict(enumerate(made for _, made in mine))):
                found.append(name)
        return found

    def root(self, name: str) -> str:
        """Return the innermost module around a list that was called, and once."""
        while name:
            name = name.rpartition('.')[0]
            if self.entered.get(name) == 1:
                return name
        return ''

    def _given(self, but: list[str]) -> list[torch.Tensor]:
        """Return the sums of the result, and of what other candidates than some are given."""
        given = [sums for block, sums in self.inputs.items() if block not in but]
        return [self.result.sum(), *(s for sums in given for s in sums)]

    def _reads(self, sums: list[torch.Tensor], candidates: list[str]) -> list[str]:
        """Return the candidates whose output some of the sums were computed from."""
        return _sources(sums, {name: self.leaves[name] for name in candidates
                               if name in self.leaves})


def _sources(sums: list[torch.Tensor], tensors: dict) -> list:
    """Return the keys of the tensors that some of the sums were computed from."""
    total = sum(s for s in sums if s.requires_grad)
    if not isinstance(total, torch.Tensor) or not tensors:
        return []
    gradients = torch.autograd.grad(total, list(tensors.values()), retain_graph=True,
                                    allow_unused=True)
    return [key for key, gradient in zip(tensors, gradients) if gradient is not None]


def _watch(model: StreamedModel, lists: dict[str, list[str]], sample: dict) -> _Passage:
    """
    Run a sample with every candidate's output cut off from its input.

    Autograd then tells who reads whose output. Only the first module of each list is computed
    (all of them where the shape changes): the others return something of the right shape.
    """
    passage = _Passage(lists)
    owner = {block: name for name, mine in lists.items() for block in mine}
    model.load('', but=tuple(owner))

    def cut(block: str, forward):
        name = owner[block]

        def run(*args, **kwargs):
            given = hidden_of(args, kwargs)
            passage.calls.append(block)
            # Sums instead of tensors: what is kept of a block must not be as large as its output.
            passage.inputs[block] = [value.sum() for value in (*args, *kwargs.values())
                                     if isinstance(value, torch.Tensor) and value.requires_grad]
            returned = given
            if name not in passage.tuple_size or name in passage.reshaping:
                returned = _compute(model, block, forward, args, kwargs, passage.tuple_size, name)
                if returned.shape != given.shape:
                    passage.reshaping.add(name)
            nothing = torch.zeros((), dtype=returned.dtype, device=returned.device)
            passage.leaves[block] = nothing.expand(returned.shape).requires_grad_()
            return with_hidden(returned.detach() + passage.leaves[block],
                               passage.tuple_size[name])
        return run

    with replaced(model.module, dict.fromkeys(owner, cut)), _counting(model.module, passage):
        passage.result = model.logits(sample, torch.tensor([0]))
    return passage


def _compute(model, block, forward, args, kwargs, tuple_size, name) -> torch.Tensor:
    model.load(block)
    with torch.no_grad():
        result = forward(*args, **kwargs)
    model.release(block)
    tuple_size[name] = len(result) if isinstance(result, tuple) else 0
    return hidden_from(result)


@contextmanager
def _counting(model: nn.Module, passage: _Passage):
    """Count how often the modules around the lists are called; note what runs between them."""
    names = {''}
    for name in passage.lists:
        parts = name.split('.')
        names.update('.'.join(parts[:end]) for end in range(1, len(parts)))

    def count(name):
        def hook(module, args):
            passage.entered[name] = passage.entered.get(name, 0) + 1
        return hook

    def note(name):
        def hook(module, args, made):
            if made.requires_grad:
                passage.linears.setdefault(name, []).append(
                    (args[0].sum(), made, set(passage.entered)))
        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(count(name)) for name in names]
    hooks += [module.register_forward_hook(note(name)) for name, module in model.named_modules()
              if isinstance(module, nn.Linear)
              and not any(f'{name}.'.startswith(f'{outer}.') for outer in passage.lists)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
