"""Fewer bits instead of fewer weights: what a pruned model is compared with.

Round to nearest, symmetric, one scale per output row (Krishnamoorthi, arXiv 1806.08342, section
2.2), of the projections that pruning would touch. The weights are written back as numbers, so the
result is loaded as any model is.
"""

from pathlib import Path
import shutil

from owled_ros.driver.checkpoint import weight_files
from owled_ros.pruning.streaming import StreamedModel
from owled_ros.pruning.structure import possible_blocks
from safetensors.torch import load_file, save_file
import torch


def quantise(model_dir, output, bits):
    """Copy a model directory to `output` with its projections rounded to `bits` bits a weight.

    Returns the bytes that its weights take when the rounded ones are packed.
    """
    shutil.copytree(model_dir, output)
    projections = projection_weights(Path(model_dir))
    packed = 0
    for path in weight_files(output):
        tensors = load_file(path)
        for name, weight in tensors.items():
            if name in projections:
                tensors[name] = round_rows(weight.float(), bits).to(weight.dtype)
                packed += weight.numel() * bits // 8 + 2 * weight.shape[0]  # an fp16 scale a row
            else:
                packed += weight.numel() * weight.element_size()
        save_file(tensors, path, metadata={'format': 'pt'})
    return packed


def projection_weights(model_dir):
    """Names on disk of the weights of all blocks' projections."""
    model = StreamedModel(model_dir, torch.device('cpu'))
    return {model.disk_name(projection.weight) for block in possible_blocks(model)
            for projection in block.projections}


def round_rows(weight, bits):
    """Round a weight (rows, columns) to 2^bits - 1 levels, symmetric around 0, row by row."""
    highest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / highest
    return (weight / scale).round().clamp(-highest, highest) * scale
