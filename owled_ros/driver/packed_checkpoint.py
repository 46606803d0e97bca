"""
Model directories whose pruned projections are packed on disk, in one file that holds all weights.

transformers builds the model as it does every other, with its own names, types, ties and buffers.
In the place of a packed weight it is given a stand-in: one NaN, seen as often as the weight has
elements, so that it takes no memory, and none can be left in the model unseen.
"""

from pathlib import Path

from owled_ros.driver.weight_count import refuse_larger
from owled_ros.errors import UserError
from owled_ros.pruning.shards import PACKED
from owled_ros.pruning.streaming import match_names
from owled_ros.sparse.linear import prunable_linears, put_module, SparseLinear, TorchKernels
from owled_ros.sparse.packing import load_packed, PackedWeight, part_names
from safetensors import safe_open
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText


def load_packed_model(directory: Path, device: torch.device, dtype: torch.dtype,
                      keep: bool) -> nn.Module:
    """
    Load a packed directory's model; what is not packed comes to the CPU.

    :param device: where what stays packed goes
    :param dtype: of all that is not packed
    :param keep: leave packed what is packed, its values memory-mapped; else nothing stays packed
    :raises UserError: when the file is damaged, or does not hold what the configuration asks for
    """
    path = directory / PACKED
    packed = load_packed(path)
    model, told = _build(directory, path, packed, dtype)
    _check_names(path, told)
    names = {source: target for target, source in match_names(model, list(packed))[0].items()}
    linears = prunable_linears(model)
    for name, weight in packed.items():
        module_name = names.get(name, '').removesuffix('.weight')
        linear = linears.get(module_name)
        if linear is None:
            raise UserError(f'{path} holds {name!r} packed, which is no linear layer of its own in '
                            'the model that config.json describes; pack the model again')
        _fill(model, module_name, linear, weight, device if keep else None)
    return model


def _build(directory: Path, path: Path, packed: dict[str, PackedWeight], dtype: torch.dtype):
    """Return the model with stand-ins for packed weights, and what transformers tells of it."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ValueError(f'a {config.model_type} makes no text from images')
    with safe_open(path, framework='pt') as file:
        others = set(file.keys()) - set(part_names(packed))
        if twice := others & set(packed):
            raise UserError(f'{path} holds {min(twice)!r} twice, packed and as it is; pack the '
                            'model again')
        stand_in = torch.full((), torch.nan, dtype=dtype)
        weights = {name: file.get_slice(name) for name in others}
        refuse_larger(config, [weight.get_shape() for weight in weights.values()]
                      + [(weight.rows, weight.columns) for weight in packed.values()], path)
        weights |= {name: stand_in.expand(weight.rows, weight.columns)
                    for name, weight in packed.items()}
        # Mismatches are not ignored: they are told, and refused in one sentence.
        return AutoModelForImageTextToText._model_mapping[type(config)].from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, local_files_only=True,
            ignore_mismatched_sizes=True, output_loading_info=True)


def _check_names(path: Path, told: dict) -> None:
    """Refuse a file with which transformers has drawn a weight at random, or left one out."""
    if told['mismatched_keys']:
        name, found, wanted = min(told['mismatched_keys'])
        raise UserError(f'the weight {name} in {path} has the shape {tuple(found)}, config.json '
                        f'asks for {tuple(wanted)}; pack the model again')
    if told['missing_keys']:
        raise UserError(f'{path} lacks the weight {min(told["missing_keys"])}, which config.json '
                        'asks for; pack the model again')
    if told['unexpected_keys']:
        raise UserError(f'{path} holds {min(told["unexpected_keys"])!r}, for which the model that '
                        'config.json describes has no place; pack the model again')


def _fill(model, name: str, linear: nn.Linear, weight: PackedWeight,
          device: torch.device | None) -> None:
    """Put a packed weight in the place of its stand-in, unpacked without a device."""
    dtype = linear.weight.dtype
    if device is None or dtype != model.dtype:      # transformers keeps some in float32
        linear.weight = nn.Parameter(weight.dense(dtype), requires_grad=False)
        return
    weight = weight.held_in(dtype)
    if not torch.isfinite(weight.values).all():
        raise UserError(f'the packed weight {name} is too large for {dtype}; load the model in '
                        'bfloat16 or float32')
    # Where it is to run is chosen later, and with what: nothing of that is needed here.
    put_module(model, name, SparseLinear(weight.to(device), linear.bias, kernels=TorchKernels()))
