"""Model directories: where they are, whether they are whole, what they hash to, loading them."""

from importlib import resources
import json
from pathlib import Path

from owled_ros.driver.format_file import FORMAT_FILE
from owled_ros.driver.packed_checkpoint import load_packed_model
from owled_ros.driver.weight_count import refuse_larger
from owled_ros.errors import UserError
from owled_ros.pruning.shards import check_weights, hash_weights, is_packed, mentions
from safetensors import safe_open
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
)

EMBEDDED = 'embedded'
AUDIO_TOKENIZER = 'audio_tokenizer'


def locate(model):
    """Return the directory of a model: 'embedded', a path, or a name on the hub.

    Raises UserError where there is no such directory or it holds no safetensors weights.
    """
    if str(model) == EMBEDDED:
        directory = Path(str(resources.files('owled_ros'))) / 'assets' / EMBEDDED
    else:
        directory = Path(model).expanduser()
    if not directory.is_dir():
        directory = _from_hub(str(model), directory)
    if not (directory / 'config.json').is_file():
        raise UserError(f'{directory} holds no config.json; give the directory of a model in the '
                        f"transformers format, or '{EMBEDDED}'")
    if not weight_files(directory):
        raise UserError(f'{directory} holds no weights (*.safetensors); save the model with '
                        f'save_pretrained(..., safe_serialization=True)')
    return directory


def _from_hub(name, directory):
    if name.count('/') != 1 or name.startswith(('.', '/', '~')):
        raise UserError(f'there is no model directory {directory}; give an existing directory, a '
                        f"name on the hub, or '{EMBEDDED}'")
    try:
        from huggingface_hub import snapshot_download
        return Path(snapshot_download(
            name, allow_patterns=[
                '*.safetensors', '*.json', '*.txt', '*.model', '*.jinja', FORMAT_FILE]))
    except Exception as error:
        raise UserError(f'{name} is neither a directory nor a model that the hub gives '
                        f'({type(error).__name__}); check the name and the network') from error


def weight_files(directory):
    """Return the safetensors files of a model directory, sorted by name."""
    return sorted(Path(directory).glob('*.safetensors'))


def weights_hash(directory, expected=''):
    """Return the first 12 hex digits of the SHA-256 of a directory's weights.

    Raises UserError when `expected` (any number of leading digits) is given and differs.
    """
    found = hash_weights(directory)
    if expected and not found.startswith(expected.lower()):
        raise UserError(f'the weights in {directory} have the hash {found[:len(expected)]}, not '
                        f'the expected {expected}; use the model that was approved, or correct '
                        f'the expected hash')
    return found[:12]


def load_processor(directory):
    """Load a directory's processor; raises UserError where it cannot be used."""
    _refuse_audio_tokenizer(Path(directory))
    try:
        # False, not left out: transformers would ask, and somebody might say yes.
        how = {'local_files_only': True, 'trust_remote_code': False}
        processor = AutoProcessor.from_pretrained(directory, **how)
        if getattr(processor, 'image_processor', None) is not None:
            # The same pixels whether or not torchvision, which resizes otherwise, is installed.
            processor.image_processor = AutoImageProcessor.from_pretrained(
                directory, backend='pil', **how)
        return processor
    except ImportError as error:    # of video processors, which are loaded with all the others
        raise UserError(f'the processor in {directory} needs a library that is not installed '
                        f'({_first_line(error)}); install it with pip') from error
    except Exception as error:
        raise UserError(f'the processor in {directory} cannot be loaded ({_first_line(error)}); '
                        f'save it beside the model with processor.save_pretrained') from error


def _refuse_audio_tokenizer(directory):
    # transformers would load it from any path that is named there, pickled weights included.
    config, separate = (directory / f'{name}_config.json' for name in (
        'processor', AUDIO_TOKENIZER))
    if separate.exists():
        raise UserError(f'{separate} names an audio tokenizer, which may lie anywhere; remove the '
                        f'file, driving needs none')
    if config.is_file() and mentions(config, (AUDIO_TOKENIZER,)):
        raise UserError(f'{config} names an audio tokenizer, which may lie anywhere; remove the '
                        f'entry {AUDIO_TOKENIZER}, driving needs none')


def load_model(directory, device='auto', dtype='auto', *, packed=False):
    """Load a directory's model for inference; raises UserError where it cannot be used.

    packed: leave packed what the directory holds packed, for make_sparse; else all is dense.
    """
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    check_weights(Path(directory))
    try:
        if is_packed(Path(directory)):
            model = load_packed_model(Path(directory), device, dtype, keep=packed)
        else:
            refuse_larger(AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False),
                _shapes(directory), directory)
            model, told = AutoModelForImageTextToText.from_pretrained(
                directory, dtype=dtype, local_files_only=True, use_safetensors=True,
                trust_remote_code=False, output_loading_info=True)
            _check_whole(directory, told)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'the model in {directory} cannot be loaded as a vision-language model '
                        f'({_first_line(error)})') from error
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise UserError(f'the weight {name} of the model in {directory} is not finite; the '
                            f'checkpoint is damaged, take another one')
    return model.to(device).eval()


def _shapes(directory):
    """Return the shapes of all tensors in a directory's weight files."""
    shapes = []
    for path in weight_files(directory):
        with safe_open(path, framework='pt') as file:
            shapes += [file.get_slice(name).get_shape() for name in file.keys()]
    return shapes


def _check_whole(directory, told):
    # transformers draws them at random and only warns.
    if missing := told['missing_keys']:
        raise UserError(f'{directory} lacks the weight {min(missing)} that the model needs '
                        f'({len(missing)} in all); take a whole checkpoint, or install a newer '
                        f'transformers (this is {transformers.__version__}), which may know it by '
                        'another name')


def recorded_sparsity(directory):
    """Return the requested and the measured sparsity in a directory's owled.json, 0 without one.

    Raises UserError where the file does not say.
    """
    path = Path(directory) / 'owled.json'
    if not path.is_file():
        return 0.0, 0.0
    try:
        sparsity = json.loads(path.read_text())['sparsity']
        shares = float(sparsity['requested']), float(sparsity['measured'])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise UserError(f'{path} does not tell the sparsity ({_first_line(error)}); calibrate '
                        f'again, or remove it') from error
    if not all(0 <= share <= 1 for share in shares):
        raise UserError(f'{path} tells a sparsity of {shares[0]:g} and {shares[1]:g}; calibrate '
                        f'again, or remove it')
    return shares


def choose_device(device):
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'the device {device!r} is unknown; use auto, cpu or cuda') from error
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(f'the device {device} was asked for, but torch {torch.__version__} finds '
                        f'no CUDA GPU here; use auto or cpu')
    return chosen


def choose_dtype(dtype, device):
    if dtype != 'auto':
        chosen = getattr(torch, dtype, None)
        if chosen not in (torch.float32, torch.float16, torch.bfloat16):
            raise UserError(f'the type {dtype!r} is unknown; use auto, float32, float16 or '
                            f'bfloat16')
        return chosen
    if device.type != 'cuda':
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
