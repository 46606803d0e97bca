"""Samples on their way through a model, block by block."""

import torch
from torch.nn import functional

from owled_ros.errors import UserError
from owled_ros.pruning.replay import (
    Reached, hidden_from, hidden_of, replaced, run_until_reached, with_hidden)
from owled_ros.pruning.stash import Stash
from owled_ros.pruning.statistics import Collector
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import Chain


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
        self.samples = samples
        self.name = name
        self._model = model
        self._chains = chains
        self._stash = stash

    def enter(self, chain: Chain) -> None:
        """Bring every sample to a chain: the chains before it must have been gone through."""
        self._leave()
        for index in range(len(self.samples)):
            call = self._run_to_root(index, chain)
            if call is not None:
                self._stash.put((self.name, 'call', index), call)

    def advance(self, chain: Chain, position: int) -> None:
        """Take every sample through one block, whose weights must be loaded."""
        for index in self._present():
            hidden = self._run_block(index, chain, position)
            self._stash.put((self.name, 'hidden', index), hidden)
            if position in chain.taps:
                self._stash.put((self.name, 'tap', index, chain.root, position), hidden)

    def observe(self, chain: Chain, position: int, collector: Collector) -> None:
        """Run every sample through one block without taking it on."""
        with collector:
            for index in self._present():
                self._run_block(index, chain, position)

    def hidden(self, index: int) -> torch.Tensor | None:
        """Return a sample's output of the block it went through last; None if it skips them."""
        key = (self.name, 'hidden', index)
        return self._stash.get(key) if key in self._stash else None

    def losses(self) -> tuple[float, int]:
        """
        Return the sum of the loss over all predicted tokens, and their number.

        All chains must have been gone through, and the weights outside of blocks be loaded.
        """
        total, count = 0.0, 0
        for index, sample in enumerate(self.samples):
            logits = self._run_head(index)
            labels = labels_of(sample, self._model.module.config).to(logits.device)
            loss = functional.cross_entropy(
                logits[0, :-1].float(), labels[0, 1:], ignore_index=-100, reduction='sum')
            total += loss.item()
            count += int((labels[0, 1:] != -100).sum())
        return total, count

    def close(self) -> None:
        """Forget all that was kept."""
        self._leave()
        for index in range(len(self.samples)):
            for chain in self._chains:
                for position in chain.taps:
                    self._stash.drop((self.name, 'tap', index, chain.root, position))

    def _leave(self) -> None:
        for index in range(len(self.samples)):
            self._stash.drop((self.name, 'call', index))
            self._stash.drop((self.name, 'hidden', index))

    def _present(self) -> list[int]:
        """Return the samples that reach the chain: those without an image skip the encoder."""
        return [index for index in range(len(self.samples))
                if (self.name, 'call', index) in self._stash]

    def _inputs(self, index: int) -> dict:
        return {name: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                for name, value in self.samples[index].items() if name != 'labels'}

    @torch.no_grad()
    def _run_to_root(self, index: int, chain: Chain):
        """Return what the chain's root is called with; None if the sample goes past it."""
        number = self._chains.index(chain)

        def arrive(name, forward):
            def run(*args, **kwargs):
                raise Reached((args, kwargs) if name == chain.root else None)
            return run

        makers = {later.root: arrive for later in self._chains[number:]}
        for earlier in self._chains[:number]:
            makers |= self._taps(index, earlier)
        with replaced(self._model.module, makers):
            return run_until_reached(self._model.module, **self._inputs(index), use_cache=False)

    @torch.no_grad()
    def _run_head(self, index: int) -> torch.Tensor:
        makers = {}
        for chain in self._chains:
            makers |= self._taps(index, chain)
        with replaced(self._model.module, makers):
            return self._model.module(**self._inputs(index), use_cache=False).logits

    def _taps(self, index: int, chain: Chain) -> dict:
        """Return stubs for a chain that was gone through."""
        def stub(position):
            key = (self.name, 'tap', index, chain.root, position)
            return _stub(chain, self._stash.get(key) if key in self._stash else None)
        return {block.name: stub(position) for position, block in enumerate(chain.blocks)}

    @torch.no_grad()
    def _run_block(self, index: int, chain: Chain, position: int) -> torch.Tensor:
        args, kwargs = self._stash.get((self.name, 'call', index))
        makers = {block.name: _stub(chain, None) for block in chain.blocks[:position]}
        if position:
            makers[chain.blocks[position - 1].name] = _stub(
                chain, self._stash.get((self.name, 'hidden', index)))
        makers[chain.blocks[position].name] = _only
        root = self._model.module.get_submodule(chain.root)
        with replaced(self._model.module, makers):
            hidden = run_until_reached(root, *args, **kwargs)
        if not torch.isfinite(hidden).all():
            raise UserError(f'The output of {chain.blocks[position].name} holds NaN or infinite '
                            'values: a calibration sample or the model is damaged.')
        return hidden


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


def _stub(chain: Chain, hidden: torch.Tensor | None):
    """
    Make a block return a stored tensor.

    Where none is stored nobody should read the output: it is NaN, so that a mistake shows.
    """
    def make(name, forward):
        def run(*args, **kwargs):
            result = hidden
            if result is None:
                result = torch.full_like(hidden_of(args, kwargs), torch.nan)
            return with_hidden(result, chain.tuple_size)
        return run
    return make
