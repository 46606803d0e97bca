"""Refuses a configuration that asks for far more weights than there are, before they are made.

transformers makes all weights that a configuration asks for, and then tells which of them the
checkpoint lacks: by a damaged one any amount of memory can be filled meanwhile.
"""

import math

from owled_ros.errors import UserError
import torch
from transformers import AutoModelForImageTextToText

MOST_TIMES = 2      # the weights that are there; what is missing exactly is found when they load
QUANTISED = 8       # at most so many of them in one number
LAYER_COUNTS = ('depth', 'n_layer', 'n_layers', 'num_hidden_layers', 'num_layers')


def refuse_larger(config, shapes, where):
    """
    Raise UserError when a model would be several times as large as its weights.

    :param config: of a vision-language model, without code of its own
    :param shapes: of all tensors that the checkpoint holds
    :param where: the checkpoint
    """
    # Even without weights a layer takes time and memory.
    layers = max(_layer_counts(config.to_dict()), default=0)
    if layers > len(shapes):
        raise UserError(f'config.json asks for {layers} layers, but {where} holds {len(shapes)} '
                        'tensors; take a whole checkpoint with its own config.json')
    with torch.device('meta'):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    held = sum(map(math.prod, shapes))
    packed = getattr(config, 'quantization_config', None) is not None
    if wanted > MOST_TIMES * (QUANTISED if packed else 1) * held:
        raise UserError(f'config.json asks for {wanted / 1e6:.0f} million weights, but {where} '
                        f'holds {held / 1e6:.0f} million; take a whole checkpoint with its own '
                        'config.json')


def _layer_counts(values):
    """Yield all numbers of layers in a configuration and those within it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _layer_counts(value)
        elif name in LAYER_COUNTS and isinstance(value, int):
            yield value
