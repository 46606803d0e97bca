"""
A model whose weights come from disk when they are needed and leave again.

The skeleton is the class that transformers would load, with parameters that have a shape and no
memory. Weights are cast to float32 when they come in, whatever type they have on disk.
"""

from contextlib import contextmanager
from copy import deepcopy
import inspect
import math
import os
from pathlib import Path

from owled_ros.errors import UserError
from owled_ros.pruning.heap import map_tensors, return_memory
from owled_ros.pruning.shards import Shards
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import rename_source_key, WeightConverter, WeightRenaming
from transformers.initialization import no_init_weights


class StreamedModel:
    """
    A transformers model directory, loaded a module at a time.

    :param directory: what ``save_pretrained`` wrote
    :param device: where loaded weights go
    :raises UserError: when the directory holds no model that can be streamed
    """

    def __init__(self, directory: Path, device: torch.device):
        map_tensors()
        self.directory = directory
        self.device = device
        self.shards = Shards(directory)
        self.module = _skeleton(directory).eval()
        _move_buffers(self.module, device)
        self._sources, self._conversions = match_names(self.module, self.shards.names())
        self._tied = _names_by_tensor(self.module)

    def load(self, prefix: str, *, but: tuple[str, ...] = ()) -> None:
        """
        Load the weights of a module and all below it, as float32.

        :param prefix: the module's name, '' for the whole model
        :param but: names of modules below it that are left out
        :raises UserError: when a weight is missing or is not finite
        """
        loaded = {}
        for name, tensor in _tensors(self.module.get_submodule(prefix), prefix):
            if not any(name.startswith(left_out + '.') for left_out in but):
                key = self._tied_names(name)[0]
                if key not in loaded:
                    loaded[key] = self.read(name, tensor)
                _place(self.module, name, loaded[key])

    def release(self, prefix: str) -> None:
        """Free the memory of a module's weights."""
        for name, tensor in _tensors(self.module.get_submodule(prefix), prefix):
            if isinstance(tensor, nn.Parameter):
                _place(self.module, name, torch.empty_like(tensor, device='meta'))
        return_memory()

    def read(self, name: str, like: torch.Tensor | None = None) -> torch.Tensor:
        """Return one weight in float32 (integers as they are) on the device, checked."""
        stored = self._stored(name)
        if like is not None and stored.shape != like.shape:
            raise UserError(f'The weight {name} in {self.directory} has shape '
                            f'{tuple(stored.shape)}, its config asks for {tuple(like.shape)}.')
        if not stored.is_floating_point():
            return stored.to(self.device)
        values = stored.to(self.device, torch.float32)
        if not all_finite(values):
            raise UserError(f'The weight {name} in {self.directory} holds NaN or infinite '
                            'values: the model is damaged, get it again.')
        return values

    @property
    def picks_tokens(self) -> bool:
        """Return whether the model can be told of which tokens the logits are wanted."""
        return 'logits_to_keep' in inspect.signature(type(self.module).forward).parameters

    def logits(self, inputs: dict, places: torch.Tensor) -> torch.Tensor:
        """
        Return the logits of some tokens of one sample, places x vocabulary.

        Where the model can be told which tokens are wanted it computes no others.

        :param inputs: the model's inputs, by name
        :param places: of the tokens, in the sample
        """
        wanted = {'logits_to_keep': places.to(self.device)} if self.picks_tokens else {}
        logits = self.module(**inputs, use_cache=False, **wanted).logits[0]
        return logits if wanted else logits[places]

    def disk_name(self, name: str) -> str | None:
        """Return the tensor that a weight is, as it is, on disk; None when it is converted."""
        names = [tied for tied in self._tied_names(name) if tied in self._sources]
        return self._sources[names[0]] if names else None

    def is_shared(self, name: str) -> bool:
        """Say whether the weight is also that of another module."""
        return len(self._tied_names(name)) > 1

    def _tied_names(self, name: str) -> list[str]:
        return self._tied.get(name, [name])

    def _stored(self, name: str) -> torch.Tensor:
        on_disk = self.disk_name(name)
        if on_disk is not None:
            return self.shards.read(on_disk)
        if name in self._conversions:
            return self._converted(name)
        raise UserError(f'The model in {self.directory} has no weight {name}.')

    def _converted(self, name: str) -> torch.Tensor:
        """Return a weight that transformers makes of others (fused, split, reshaped)."""
        converter, parts = self._conversions[name]
        converter = deepcopy(converter)
        for target, pattern, source in parts:
            converter.add_tensor(target, source, pattern, self.shards.read(source))
        made = converter.convert(parts[0][0], model=self.module, config=self.module.config)
        value = made[name]
        return value[0] if isinstance(value, list) else value


def all_finite(values: torch.Tensor) -> bool:
    """Say whether no value is NaN or infinite, without a copy of them all."""
    return values.numel() == 0 or all(math.isfinite(value) for value in values.aminmax())


def find_device(name: str) -> torch.device:
    """Return the device of a name; 'auto' is a GPU where there is one, each process its own."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'There is no device {name!r} here: choose cpu or auto.')
    if name == 'cuda' and 'LOCAL_RANK' in os.environ:
        number, count = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
        if number >= count:
            raise UserError(f'There are more processes than the {count} GPUs here: start '
                            f'{count}, or choose the device cpu.')
        name = f'cuda:{number}'
    try:
        return torch.device(name)
    except RuntimeError:
        raise UserError(f'There is no device {name!r}: choose auto, cpu or cuda.') from None


def _skeleton(directory: Path) -> nn.Module:
    if not (directory / 'config.json').is_file():
        raise UserError(f'There is no model in {directory}: config.json is missing.')
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f'The config in {directory} cannot be used: '
                        f'{_first_line(error)}') from error
    if getattr(config, 'quantization_config', None) is not None:
        raise UserError(f'The model in {directory} is quantised: prune the original one.')
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            with no_init_weights(), _parameters_without_memory():
                model = auto._model_mapping[type(config)](config)
            model.tie_weights()
            return model
    raise UserError(f'The model in {directory} is a {config.model_type}: only models that make '
                    'text, from images or not, can be pruned.')


def _move_buffers(module: nn.Module, device: torch.device) -> None:
    """Move what a checkpoint does not hold, such as the numbers of positions, to a device."""
    for child in module.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = buffer.to(device)


@contextmanager
def _parameters_without_memory():
    """
    Let modules be built with their buffers real and their parameters on the meta device.

    Buffers that are not saved (rotary frequencies) exist only through being computed, so that
    building all of it on the meta device would lose them.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module, name, parameter):
        if parameter is not None and parameter.device.type != 'meta':
            parameter = nn.Parameter(parameter.detach().to('meta', torch.float32),
                                     requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def match_names(model: nn.Module, names: list[str]) -> tuple[dict, dict]:
    """
    Find the tensors on disk that the model's weights are made of.

    transformers renames tensors when it loads older checkpoints, and makes some weights of
    several tensors. Its own rules are asked, so that the answer is the one that loading gives.

    :return: weight -> tensor on disk, and weight -> (converter, [(weight, pattern, tensor)])
    """
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    wanted = model.state_dict()
    sources, parts = {}, {}
    for name in names:
        target, pattern = rename_source_key(
            name, renamings, converters, model.base_model_prefix, wanted)
        if target not in wanted and name in wanted:
            target, pattern = name, None
        if pattern is None:
            sources[target] = name
        else:
            parts.setdefault(target, []).append((target, pattern, name))
    made = {target: (by_pattern[pieces[0][1]], pieces) for target, pieces in parts.items()}
    return sources, made


def _names_by_tensor(model: nn.Module) -> dict[str, list[str]]:
    """Return, for every weight that has several names, all of them."""
    names = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}


def _tensors(module: nn.Module, prefix: str):
    """Yield name and tensor of everything that a checkpoint holds for a module."""
    yield from module.named_parameters(prefix, remove_duplicate=False)
    for name, child in module.named_modules(prefix=prefix):
        for short, buffer in child._buffers.items():
            if buffer is not None and short not in child._non_persistent_buffers_set:
                yield (f'{name}.{short}' if name else short), buffer


def _place(model: nn.Module, name: str, values: torch.Tensor) -> None:
    owner, _, short = name.rpartition('.')
    module = model.get_submodule(owner)
    if short in module._buffers:
        module._buffers[short] = values
    else:
        module._parameters[short] = nn.Parameter(values, requires_grad=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
