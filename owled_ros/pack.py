"""A pruned model in, the same with its pruned projections packed out: the command's work."""

from pathlib import Path
import shutil

from owled_ros.driver.checkpoint import load_model, locate
from owled_ros.errors import UserError
from owled_ros.pruning import hash_weights
from owled_ros.pruning.pipeline import check_free, check_place, copy_companions
from owled_ros.pruning.progress import put_in_place, sync_files
from owled_ros.pruning.shards import PACKED
from owled_ros.pruning.streaming import all_finite, StreamedModel
from owled_ros.sparse.linear import prunable_linears, WORTH_PACKING, zero_share
from owled_ros.sparse.packing import pack, save_packed
from safetensors import SafetensorError
import torch

PACKED_TYPES = (torch.bfloat16, torch.float16, torch.float32)


def pack_model(model, output, progress=print):
    """Write a model's directory anew, its pruned projections packed; return what was written.

    model: 'embedded', a directory, or a name on the hub; output: the directory to make, which
    appears when it is whole. Raises UserError when there is nothing to pack, or something that
    was given cannot be used.
    """
    output = Path(output).resolve()
    check_free(output)
    check_place(output)
    source = locate(model)
    partial = output.with_name(f'.{output.name}.packing')
    try:
        shutil.rmtree(partial, ignore_errors=True)      # of a run that was killed
        partial.mkdir()
        told = _write(source, partial, progress)
        sync_files(partial)
        put_in_place(partial, output)
    except (OSError, SafetensorError) as error:
        raise UserError(f'packing into {output} stopped: {error}; mend that and run it again') \
            from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {'output': str(output), **told}


def _write(source, partial, progress):
    """Write all that is in a packed directory into one that is empty; return what it is."""
    progress(f'reading {source}')
    streamed = StreamedModel(source, torch.device('cpu'))
    projections = {streamed.disk_name(f'{name}.weight')
                   for name in prunable_linears(streamed.module)}
    packed, others, weights = {}, {}, 0
    for name in streamed.shards.names():
        tensor = streamed.shards.read(name)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise UserError(f'the weight {name} in {source} holds NaN or infinite values; the '
                            'model is damaged, get it again')
        if name in projections and worth_packing(tensor):
            packed[name] = pack(tensor)
            weights += tensor.numel()
        else:
            others[name] = tensor
    if not packed:
        raise UserError(f'no projection of the model in {source} has {WORTH_PACKING:.0%} zeros, '
                        'so that there is nothing to pack; calibrate it first')
    progress(f'writing {len(packed)} packed projections and {len(others)} other tensors')
    copy_companions(source, partial, results=True)
    save_packed(partial / PACKED, packed, others)
    shutil.copymode(partial / 'config.json', partial / PACKED)  # safetensors lets only us read
    size, count = sum(weight.bytes for weight in packed.values()), len(packed)
    del packed, others
    _try(source, partial)
    return {'hash': hash_weights(partial)[:12], 'projections': count,
            'packed_bytes': size, 'packed_share': size / (2 * weights),
            'bytes': (partial / PACKED).stat().st_size, 'original_bytes': streamed.shards.bytes()}


def _try(source, partial):
    """Load what was written: what cannot be loaded is not put in place."""
    try:
        load_model(partial, 'cpu', packed=True)
    except UserError as error:
        raise UserError(f'the model in {source} cannot be packed, because what was written cannot '
                        f'be loaded: {error}') from error


def worth_packing(tensor):
    """Whether a weight takes less memory packed, and comes out the same."""
    return tensor.dtype in PACKED_TYPES and tensor.dim() == 2 \
        and zero_share(tensor) >= WORTH_PACKING
