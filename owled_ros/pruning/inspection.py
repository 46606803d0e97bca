"""What a model directory holds: its blocks, how much of them is zero, its size and hash."""

import json
from pathlib import Path

from owled_ros.pruning.shards import hash_weights
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import Block, OUTSIDE, possible_blocks, Projection
import torch


def inspect_model(directory: Path) -> dict:
    """
    Count weights and zeros of a model's blocks, reading one weight at a time.

    Nothing is run, so a list of modules counts as blocks by its looks alone, and the last list
    is taken for the language model. A projector or an output head is counted where ``owled.json``
    tells of it.

    :param directory: a directory that transformers loads, with safetensors weights
    :return: directory, hash, bytes, parameters, and blocks: name, component, weights, zeros
    :raises UserError: when the directory holds no model that can be read
    """
    model = StreamedModel(Path(directory), torch.device('cpu'))
    blocks = []
    for block in possible_blocks(model) + _pruned_outside(Path(directory)):
        zeros = sum(int((model.read(projection.weight) == 0).sum())
                    for projection in block.projections)
        blocks.append({'name': block.name, 'component': block.component,
                       'weights': block.count, 'zeros': zeros})
    return {
        'directory': str(directory), 'hash': hash_weights(directory)[:12],
        'bytes': model.shards.bytes(),
        'parameters': sum(parameter.numel() for parameter in model.module.parameters()),
        'blocks': blocks,
    }


def _pruned_outside(directory: Path) -> list[Block]:
    try:
        record = json.loads((directory / 'owled.json').read_text())
        return [Block(block['name'], block['component'], tuple(
            Projection(p['name'], *p['shape']) for p in block['projections']))
            for block in record['blocks'] if block['component'] in OUTSIDE]
    except (OSError, ValueError, KeyError, TypeError):
        return []   # not a model of ours
