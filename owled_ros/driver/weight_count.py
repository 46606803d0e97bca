"""Refuses a configuration that asks for far more weights than there are, before they are made.

transformers makes all weights that a configuration asks for, and then tells which of them the
checkpoint lacks: by a damaged one any amount of memory can be filled meanwhile.
"""

from owled_ros.errors import UserError
import torch
from transformers import AutoModelForImageTextToText

MOST_TIMES = 2      # the weights that are there; what is missing exactly is found when they load


def refuse_larger(config, held, where):
    """
    Raise UserError when a model would be several times as large as its weights.

    :param config: of a vision-language model, without code of its own
    :param held: how many numbers the checkpoint holds
    :param where: the checkpoint
    """
    if getattr(config, 'quantization_config', None) is not None:
        return      # several weights in one number
    with torch.device('meta'):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > MOST_TIMES * held:
        raise UserError(f'config.json asks for {wanted / 1e6:.0f} million weights, but {where} '
                        f'holds {held / 1e6:.0f} million; take a whole checkpoint with its own '
                        'config.json')
