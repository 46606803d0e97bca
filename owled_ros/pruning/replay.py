"""
Parts of a model's own forward, run with the other parts replaced by what they returned before.

Between two blocks a model may do anything: pick the mask of this block, add image features, read
a depth that it will need at the end. So the code that calls the blocks always runs, as it is,
and a block that is not the one in question is replaced by a stub that returns a stored tensor.
"""

from contextlib import contextmanager

import torch
from torch import nn


class Reached(Exception):
    """The part of the forward that was wanted has been run; carries what was wanted."""

    def __init__(self, value=None):
        super().__init__('stop here')
        self.value = value


@contextmanager
def replaced(model: nn.Module, makers: dict):
    """
    Replace the forward of some modules.

    :param makers: name of a module -> function of (name, its forward) that gives a new forward
    """
    modules = {name: model.get_submodule(name) for name in makers}
    try:
        for name, module in modules.items():
            module.forward = makers[name](name, module.forward)
        yield
    finally:
        for module in modules.values():
            module.__dict__.pop('forward', None)


def run_until_reached(function, *args, **kwargs):
    """Call a function that ends by raising ``Reached``; return what that carries."""
    try:
        function(*args, **kwargs)
    except Reached as reached:
        return reached.value
    return None


def hidden_of(args: tuple, kwargs: dict) -> torch.Tensor:
    """Return the hidden states among a block's arguments: the first tensor, by position first."""
    if 'hidden_states' in kwargs:
        return kwargs['hidden_states']
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value
    raise ValueError('a block was called without a tensor')


def hidden_from(result) -> torch.Tensor:
    """Return the hidden states in what a block returned: a tensor, or a tuple that starts so."""
    return result[0] if isinstance(result, tuple) else result


def with_hidden(hidden: torch.Tensor, size: int):
    """Return hidden states as a block does: in a tuple of ``size``, or bare when that is 0."""
    return (hidden, *[None] * (size - 1)) if size else hidden
