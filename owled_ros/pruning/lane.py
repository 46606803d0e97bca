"""Samples on their way through a model, block by block."""

from owled_ros.errors import UserError
from owled_ros.pruning.replay import (
    hidden_from,
    hidden_of,
    Reached,
    replaced,
    run_until_reached,
    with_hidden,
)
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector
from owled_ros.pruning.streaming import all_finite, StreamedModel
from owled_ros.pruning.structure import Chain, ENTRY, Projection
import torch
from torch.nn import functional

LOGITS = 128    # tokens whose logits are in memory together: vocabularies are large


class Lane:
    """
    A set of samples that go through the model together, one chain after the other.

    Of each sample only what the next step needs is kept: what its chain's root was called with,
    the output of the block before, and the outputs that are read later (taps).

    :param name: tells this lane's tensors in the stash from those of others
    :param samples: the model's inputs, one dictionary of tensors each
    """

    def __init__(self, name: str, model: StreamedModel, chains: list[Chain], samples: list[dict],
                 stash: Stash):
        self.name = name
        self.chains = chains
        self.samples = samples
        self._model = model
        self._stash = stash

    def fork(self, name: str, count: int) -> 'Lane':
        """Return a lane of another name, whose first samples stand where they do in this one."""
        other = Lane(name, self._model, self.chains, self.samples[:count], self._stash)
        for key in other._keys():
            if (self.name, *key) in self._stash:
                self._stash.put((name, *key), self._stash.get((self.name, *key)))
        return other

    def enter(self, chain: Chain) -> None:
        """Bring every sample to a chain: the chains before it must have been gone through."""
        self._leave()
        for index in range(len(self.samples)):
            with torch.no_grad():
                call = self.run_to_root(index, chain)
            if call is not None:
                self._stash.put((self.name, 'call', index), call)

    def advance(self, chain: Chain, position: int) -> None:
        """
        Take every sample through one block, whose weights must be loaded, or the entry.

        Behind the last block nothing is kept of a sample: ``losses`` goes through the exit.
        """
        if position == ENTRY:
            self.enter(chain)
        if position in (ENTRY, chain.end):
            return
        for index in self.present():
            hidden = self._step(index, chain, position)
            self._stash.put((self.name, 'hidden', index), hidden)
            if position in chain.taps:
                self._stash.put((self.name, 'tap', index, chain.root, position), hidden)

    def observe(self, chain: Chain, position: int, collector: Collector) -> None:
        """
        Run every sample through one block, the entry or the exit, without taking it on.

        After the first sample the projection that came last is not computed any more: nothing
        that is observed depends on what it puts out.
        """
        with collector, torch.no_grad():
            if position == ENTRY:
                for index in range(len(self.samples)):
                    self.run_to_root(index, chain)
            elif position == chain.end:
                self.losses()
            else:
                unread = {}
                for index in self.present():
                    with replaced(self._model.module, unread):
                        self._run(index, chain, position)
                    unread = unread or _unread(collector.last())

    def losses(self) -> tuple[float, int]:
        """
        Return the sum of the loss over all predicted tokens, and their number.

        All chains must have been gone through, and the weights outside of blocks be loaded.
        """
        total, count = 0.0, 0
        for index in range(len(self.samples)):
            for places in self.predicted(index):
                with torch.no_grad():
                    total += self.loss(index, places).item()
                count += len(places)
        return total, count

    def predicted(self, index: int) -> list[torch.Tensor]:
        """Return the places of a sample's tokens that should predict the next, some at a time."""
        labels = labels_of(self.samples[index], self._model.module.config)[0, 1:]
        places = (labels != -100).nonzero().flatten()
        size = LOGITS if self._model.picks_tokens else max(len(places), 1)
        return [part for part in places.split(size) if len(part)]

    def loss(self, index: int, places: torch.Tensor, outputs: dict | None = None) -> torch.Tensor:
        """
        Return the summed loss of what a sample predicts at some places.

        :param outputs: block outputs to take instead of those kept: (root, position) -> tensor
        """
        makers = {}
        for chain in self.chains:
            makers |= self._stubs(index, chain, outputs)
        with replaced(self._model.module, makers):
            logits = self._model.logits(self._inputs(index), places)
        labels = labels_of(self.samples[index], self._model.module.config)[0, places + 1]
        return functional.cross_entropy(
            logits.float(), labels.to(logits.device), reduction='sum')

    def close(self) -> None:
        """Forget all that was kept."""
        for key in self._keys():
            self._stash.drop((self.name, *key))

    def present(self) -> list[int]:
        """Return the samples that reach the chain: those without an image skip the encoder."""
        return [index for index in range(len(self.samples))
                if (self.name, 'call', index) in self._stash]

    def call(self, index: int) -> tuple[tuple, dict]:
        """Return what the root of the entered chain is called with."""
        return self._stash.get((self.name, 'call', index))

    def hidden(self, index: int) -> torch.Tensor | None:
        """Return a sample's output of the block it went through last; None if it skips them."""
        return self._kept('hidden', index)

    @torch.no_grad()
    def given(self, index: int, chain: Chain) -> torch.Tensor | None:
        """Return what the first block of an entered chain is given; None if a sample skips it."""
        if index not in self.present():
            return None

        def arrive(name, forward):
            def run(*args, **kwargs):
                raise Reached(hidden_of(args, kwargs))
            return run

        args, kwargs = self.call(index)
        root = self._model.module.get_submodule(chain.root)
        with replaced(self._model.module, {chain.blocks[0].name: arrive}):
            return run_until_reached(root, *args, **kwargs)

    def output(self, index: int, chain: Chain, position: int) -> torch.Tensor | None:
        """Return a sample's output of a block that is among the taps; None if there is none."""
        return self._kept('tap', index, chain.root, position)

    def run_to_root(self, index: int, chain: Chain, outputs: dict | None = None):
        """
        Return what a chain's root is called with; None if the sample goes past it.

        :param outputs: block outputs to take instead of those kept: (root, position) -> tensor
        """
        number = [other.root for other in self.chains].index(chain.root)

        def arrive(name, forward):
            def run(*args, **kwargs):
                raise Reached((args, kwargs) if name == chain.root else None)
            return run

        makers = {later.root: arrive for later in self.chains[number:]}
        for earlier in self.chains[:number]:
            makers |= self._stubs(index, earlier, outputs)
        with replaced(self._model.module, makers):
            return run_until_reached(self._model.module, **self._inputs(index), use_cache=False)

    def run_block(self, call, chain: Chain, position: int, before: torch.Tensor | None):
        """
        Return the hidden states that a block puts out.

        :param call: what the chain's root is called with
        :param before: the output of the block before; None for the first
        """
        makers = {block.name: _stub(chain, None) for block in chain.blocks[:position]}
        if position:
            makers[chain.blocks[position - 1].name] = _stub(chain, before)
        makers[chain.blocks[position].name] = _only
        root = self._model.module.get_submodule(chain.root)
        with replaced(self._model.module, makers):
            return run_until_reached(root, *call[0], **call[1])

    @torch.no_grad()
    def _step(self, index: int, chain: Chain, position: int) -> torch.Tensor:
        hidden = self._run(index, chain, position)
        if not all_finite(hidden):
            raise UserError(f'The output of {chain.blocks[position].name} holds NaN or infinite '
                            'values: a calibration sample or the model is damaged.')
        return hidden

    def _run(self, index: int, chain: Chain, position: int) -> torch.Tensor:
        before = self.hidden(index) if position else None
        return self.run_block(self.call(index), chain, position, before)

    def _leave(self) -> None:
        for index in range(len(self.samples)):
            self._stash.drop((self.name, 'call', index))
            self._stash.drop((self.name, 'hidden', index))

    def _keys(self):
        for index in range(len(self.samples)):
            yield 'call', index
            yield 'hidden', index
            for chain in self.chains:
                for position in chain.taps:
                    yield 'tap', index, chain.root, position

    def _kept(self, *key) -> torch.Tensor | None:
        key = (self.name, *key)
        return self._stash.get(key) if key in self._stash else None

    def _inputs(self, index: int) -> dict:
        return {name: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                for name, value in self.samples[index].items() if name != 'labels'}

    def _stubs(self, index: int, chain: Chain, outputs: dict | None) -> dict:
        """Return stubs for a chain that was gone through."""
        def stub(position):
            if outputs is not None:
                return _stub(chain, outputs.get((chain.root, position)))
            return _stub(chain, self.output(index, chain, position))
        return {block.name: stub(position) for position, block in enumerate(chain.blocks)}


def labels_of(sample: dict, config) -> torch.Tensor:
    """Return the tokens (1 x length) that a sample should predict; -100 where none is."""
    if 'labels' in sample:
        return sample['labels']
    labels = sample['input_ids'].clone()
    if 'attention_mask' in sample:
        labels[sample['attention_mask'] == 0] = -100
    for name in ('image_token_id', 'image_token_index', 'video_token_id'):
        token = getattr(config, name, None)
        if token is not None:
            labels[labels == token] = -100
    return labels


def _only(name, forward):
    """Let a block run, and nothing after it."""
    def run(*args, **kwargs):
        raise Reached(hidden_from(forward(*args, **kwargs)))
    return run


def _unread(projection: Projection | None) -> dict:
    """Let a projection put out NaN, uncomputed, so that it shows if somebody reads it."""
    def make(name, forward):
        def run(x):
            return x.new_full((*x.shape[:-1], projection.rows), torch.nan)
        return run
    return {projection.name: make} if projection else {}


def _stub(chain: Chain, hidden: torch.Tensor | None):
    """
    Make a block return a stored tensor.

    Where none is stored nobody should read the output: it is NaN, so that a mistake shows.
    """
    def make(name, forward):
        def run(*args, **kwargs):
            if hidden is None:
                given = hidden_of(args, kwargs)
                result = given.new_full((), torch.nan).expand_as(given)
            else:   # not a leaf of autograd itself, so that the model may change it in place
                result = hidden * 1 if hidden.requires_grad else hidden
            return with_hidden(result, chain.tuple_size)
        return run
    return make
