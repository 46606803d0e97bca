"""Packed model directories: written, loaded to the last bit, refused when they are not whole."""

import hashlib
import json
from pathlib import Path
import shutil
import subprocess
import sys
import threading

from owled_ros.calibration import calibrate, Request
from owled_ros.cli import main
from owled_ros.driver.action import Command, EgoState
from owled_ros.driver.backend import BACKENDS, choose_backend
from owled_ros.driver.checkpoint import load_model, load_processor, locate, weights_hash
from owled_ros.driver.driver import Driver
from owled_ros.driver.process import DriverProcess, load_embedded_or_named
from owled_ros.driver.prompt import DrivingFormat, prompt_inputs
from owled_ros.errors import UserError
from owled_ros.pack import pack_model
from owled_ros.pruning import hash_weights
from owled_ros.pruning.inspection import inspect_model
from owled_ros.pruning.shards import hash_file, Shards
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds, random_scene
from owled_ros.sparse import linear
from owled_ros.sparse.linear import packed_bytes, packed_layers, SparseLinear
from owled_ros.sparse.packing import FILE_FORMAT, load_packed, pack, save_packed
import pytest
from safetensors.torch import load_file, save_file
import torch
from torch import nn
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / 'driving_node'))
from own_models import save_qwen, save_smolvlm  # noqa: E402, I100

WHOLE, PACKED = 'model.safetensors', 'packed.safetensors'
PROJECTION = 'proj'     # in the names of those that are pruned here
UP = 'language_model.model.layers.0.mlp.up_proj.weight'


def save_embedded(directory):
    shutil.copytree(locate('embedded'), directory)
    for name, content in (('owled.json', '{"sparsity": {"requested": 0.5, "measured": 0.49}}'),
                          ('report.html', '<p>'), ('blocks.png', 'a picture')):
        (directory / name).write_text(content)


def prune(directory, share=0.5):
    """Take the smaller weights of every projection of a model directory away."""
    tensors = load_file(directory / WHOLE)
    for name, weight in tensors.items():
        if PROJECTION in name and weight.dim() == 2:
            least = weight.abs().float().quantile(share, 1, keepdim=True)
            tensors[name] = weight * (weight.abs() > least)
    save_file(tensors, directory / WHOLE, {'format': 'pt'})


@pytest.fixture(scope='module', params=[save_embedded, save_smolvlm, save_qwen],
                ids=['embedded', 'smolvlm', 'qwen2_5_vl'])
def pair(request, tmp_path_factory):
    """Return the directories of a pruned model, and of the same packed."""
    folder = tmp_path_factory.mktemp('models')
    request.param(folder / 'pruned')
    prune(folder / 'pruned')
    pack_model(folder / 'pruned', folder / 'packed', progress=lambda line: None)
    return folder / 'pruned', folder / 'packed'


@pytest.fixture(scope='module')
def embedded_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    save_embedded(folder / 'pruned')
    prune(folder / 'pruned')
    pack_model(folder / 'pruned', folder / 'packed', progress=lambda line: None)
    return folder / 'pruned', folder / 'packed'


@pytest.fixture
def copy(embedded_pair, tmp_path):
    """Return a packed directory that may be spoilt."""
    return shutil.copytree(embedded_pair[1], tmp_path / 'model')


def refused(complaint, work, *arguments, **options):
    with pytest.raises(UserError, match=complaint) as refusal:
        work(*arguments, **options)
    assert '\n' not in str(refusal.value)


def cannot_be_loaded(complaint, directory):
    for packed in (False, True):
        refused(complaint, load_model, directory, 'cpu', packed=packed)


def logits(model, directory, dtype=torch.float32):
    """Return what a model says after a prompt with a picture."""
    inputs = prompt_inputs(load_processor(directory), DrivingFormat.of_model(directory),
                           render(random_scene(held_out_seeds(1)[0])), EgoState(8.0), Command())
    with torch.inference_mode():
        return model(**{name: value.to(dtype) if value.is_floating_point() else value
                        for name, value in inputs.items()}).logits


def answer(driver):
    decision = driver.decide(render(random_scene(held_out_seeds(1)[0])), EgoState(8.0))
    stream = driver.explain(decision)
    stream.advance(12)
    action = decision.action    # its confidence may differ in the last bits: auto measures anew
    return action.acceleration, action.curvature, action.maneuver, stream.text


# -- what is written -----------------------------------------------------------------------------

def test_all_but_the_weights_is_copied(pair):
    pruned, packed = pair
    assert {path.name for path in packed.iterdir()} == \
        {path.name for path in pruned.iterdir()} - {WHOLE} | {PACKED}
    for path in pruned.iterdir():
        if path.name != WHOLE:
            assert (packed / path.name).read_bytes() == path.read_bytes()
    assert (packed / PACKED).stat().st_mode == (packed / 'config.json').stat().st_mode


def test_every_weight_is_there_to_the_last_bit(pair):
    pruned, packed = pair
    dense, written, weights = (load_file(pruned / WHOLE), load_file(packed / PACKED),
                               load_packed(packed / PACKED))
    assert {name for name, weight in dense.items() if PROJECTION in name and weight.dim() == 2} \
        >= set(weights) > set()
    for name, weight in dense.items():
        found = weights[name].dense() if name in weights else written[name]
        assert found.dtype == weight.dtype and torch.equal(found, weight), name
    parts = [name for name in written if name not in dense]
    assert len(parts) + len(dense) == len(written) + len(weights) and len(parts) > len(weights)


def test_nothing_that_is_dense_is_packed(embedded_pair):
    pruned, packed = embedded_pair
    tensors = load_file(pruned / WHOLE)
    weights = load_packed(packed / PACKED)
    assert UP in weights
    assert all((tensors[name] == 0).float().mean() >= linear.WORTH_PACKING for name in weights)


def test_the_command_says_what_it_wrote(embedded_pair, tmp_path, capsys):
    pruned, packed = embedded_pair
    assert main(['pack', str(pruned), '--output', str(tmp_path / 'out'), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    weights = load_packed(packed / PACKED)
    assert told['hash'] == weights_hash(tmp_path / 'out') == weights_hash(packed)
    assert told['projections'] == len(weights)
    assert told['packed_bytes'] == sum(weight.bytes for weight in weights.values())
    assert told['packed_share'] == told['packed_bytes'] / sum(
        2 * weight.rows * weight.columns for weight in weights.values())
    assert told['bytes'] == (packed / PACKED).stat().st_size < told['original_bytes']
    assert told['original_bytes'] == (pruned / WHOLE).stat().st_size
    assert main(['pack', str(pruned), '--output', str(tmp_path / 'again')]) == 0
    assert f'{len(weights)} projections packed' in capsys.readouterr().out


def test_weights_in_several_files(embedded_pair, tmp_path):
    pruned, packed = embedded_pair
    sharded = shutil.copytree(pruned, tmp_path / 'sharded')
    tensors = load_file(sharded / WHOLE)
    (sharded / WHOLE).unlink()
    where = {name: f'model-{index % 2}.safetensors' for index, name in enumerate(tensors)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in tensors if where[name] == file},
                  sharded / file, {'format': 'pt'})
    (sharded / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': where}))
    pack_model(sharded, tmp_path / 'out', progress=lambda line: None)
    assert not list((tmp_path / 'out').glob('model*'))
    assert weights_hash(tmp_path / 'out') == weights_hash(packed)


def test_what_cannot_be_packed(embedded_pair, tmp_path):
    pruned, packed = embedded_pair
    refused('nothing to pack; calibrate it first', pack_model, 'embedded', tmp_path / 'out')
    refused('are packed: give the directory that they were packed from', pack_model, packed,
            tmp_path / 'out')
    refused('already holds something', pack_model, pruned, packed)
    refused('no directory', pack_model, pruned, tmp_path / 'not' / 'there')
    refused('no model directory', pack_model, tmp_path / 'nothing', tmp_path / 'out')
    spoilt = shutil.copytree(pruned, tmp_path / 'spoilt')
    tensors = load_file(spoilt / WHOLE)
    tensors[UP][0, 0] = torch.nan
    save_file(tensors, spoilt / WHOLE, {'format': 'pt'})
    refused('holds NaN', pack_model, spoilt, tmp_path / 'out')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['spoilt']
    (tmp_path / '.out.packing').mkdir()     # of a run that was killed
    (tmp_path / '.out.packing' / 'model.safetensors').write_text('half')
    (tmp_path / 'out').mkdir()
    pack_model(pruned, tmp_path / 'out', progress=lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'spoilt']


def test_a_model_that_would_not_load_again_is_not_put_in_place(embedded_pair, tmp_path):
    spoilt = shutil.copytree(embedded_pair[0], tmp_path / 'spoilt')
    tensors = load_file(spoilt / WHOLE)
    del tensors['language_model.model.norm.weight']     # transformers would draw it at random
    save_file(tensors, spoilt / WHOLE, {'format': 'pt'})
    refused('cannot be packed, .* lacks the weight model.language_model.norm.weight',
            pack_model, spoilt, tmp_path / 'out')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['spoilt']


def test_a_full_disk_is_said_and_leaves_nothing(embedded_pair, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('owled_ros.pack.save_packed', full)
    refused('No space left', pack_model, embedded_pair[0], tmp_path / 'out')
    assert not list(tmp_path.iterdir())


# -- the same model ------------------------------------------------------------------------------

@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_unpacked_it_is_the_same_model_bit_for_bit(pair, dtype):
    pruned, packed = (load_model(directory, 'cpu', dtype) for directory in pair)
    assert not packed_layers(packed)
    for kind in ('named_parameters', 'named_buffers'):
        mine, theirs = (dict(getattr(model, kind)(remove_duplicate=False))
                        for model in (packed, pruned))
        assert mine.keys() == theirs.keys()
        assert all(mine[name].dtype == value.dtype and torch.equal(mine[name], value)
                   for name, value in theirs.items())
    tied = [{name for name, value in model.named_parameters(remove_duplicate=False)
             if value is model.get_input_embeddings().weight} for model in (packed, pruned)]
    assert tied[0] == tied[1]
    assert not packed.training
    kind = getattr(torch, dtype)
    assert torch.equal(logits(packed, pair[0], kind), logits(pruned, pair[0], kind))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_packed_it_is_what_packing_at_load_gives(pair, dtype):
    pruned, packed = (load_model(directory, 'cpu', dtype, packed=True) for directory in pair)
    assert len(packed_layers(packed)) == len(load_packed(pair[1] / PACKED))
    for model in (pruned, packed):
        assert choose_backend(model, 'sparse').name == 'sparse'
    mine, theirs = packed_layers(packed), packed_layers(pruned)
    assert mine.keys() == theirs.keys()
    for name, layer in theirs.items():
        assert torch.equal(mine[name].packed.dense(), layer.packed.dense())
        assert mine[name].packed.bytes == layer.packed.bytes
        assert type(mine[name]._kernels) is type(layer._kernels)
    assert packed.dtype == getattr(torch, dtype)
    found, expected = (logits(model, pair[0], packed.dtype) for model in (packed, pruned))
    assert torch.equal(found, expected)


@pytest.mark.parametrize('backend', BACKENDS)
def test_every_backend_answers_the_same(backend, embedded_pair):
    mine, theirs = (Driver.load(directory, backend=backend) for directory in embedded_pair[::-1])
    assert answer(mine) == answer(theirs)
    assert (mine.requested_sparsity, mine.measured_sparsity) == (0.5, 0.49)
    assert mine.name == 'packed' and mine.hash == weights_hash(embedded_pair[1])
    if backend != 'auto':
        assert mine.backend == theirs.backend == backend


def test_types_that_do_not_hold_the_values_round_them_as_a_dense_model_does(embedded_pair,
                                                                            tmp_path):
    """Of float32 values a model in bfloat16 keeps no more than 16 bits."""
    wide = shutil.copytree(embedded_pair[0], tmp_path / 'wide')
    tensors = {name: value.float() * 1.001 if value.is_floating_point() else value
               for name, value in load_file(wide / WHOLE).items()}
    save_file(tensors, wide / WHOLE, {'format': 'pt'})
    told = pack_model(wide, tmp_path / 'packed', progress=lambda line: None)
    assert told['packed_share'] > 1     # 32-bit values, half of them
    models = [load_model(directory, 'cpu', 'bfloat16', packed=True)
              for directory in (wide, tmp_path / 'packed')]
    for model in models:
        choose_backend(model, 'sparse')
    theirs, mine = map(packed_layers, models)
    assert all(torch.equal(mine[name].packed.values, layer.packed.values)
               and mine[name].packed.values.dtype == torch.bfloat16
               for name, layer in theirs.items())


def test_values_too_large_for_the_type_are_refused(copy):
    tensors, weights = contents(copy)
    weights[UP] = pack(weights[UP].dense().float() * 1e8)
    save_packed(copy / PACKED, weights, tensors)
    load_model(copy, 'cpu', 'bfloat16', packed=True)
    for packed, complaint in ((True, 'too large for torch.float16'), (False, 'not finite')):
        refused(complaint, load_model, copy, 'cpu', 'float16', packed=packed)


def test_what_transformers_keeps_in_float32_stays_dense_until_it_is_packed_there(
        embedded_pair, monkeypatch):
    monkeypatch.setattr(transformers.InternVLForConditionalGeneration, '_keep_in_fp32_modules',
                        {'up_proj'}, raising=False)
    pruned, packed = (load_model(directory, 'cpu', 'float16', packed=True)
                      for directory in embedded_pair)
    mine = packed.get_decoder().layers[0].mlp
    assert type(mine.up_proj) is nn.Linear and isinstance(mine.down_proj, SparseLinear)
    assert mine.up_proj.weight.dtype == torch.float32
    assert torch.equal(mine.up_proj.weight, pruned.get_decoder().layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize('wins', [True, False])
def test_a_measurement_decides(wins, embedded_pair, monkeypatch):
    times = (2.0, 1.0) if wins else (1.0, 2.0)
    measured = []

    def seconds(layers, x):
        measured.append([(type(layer), layer.in_features, x.dtype) for layer in layers])
        return times[isinstance(layers[0], SparseLinear)]

    monkeypatch.setattr(linear, '_seconds', seconds)
    model = load_model(embedded_pair[1], 'cpu', packed=True)
    count = len(packed_layers(model))
    backend = choose_backend(model, 'auto')
    assert 'measured, packed against dense' in backend.reason
    assert {kind for group in measured for kind, *_ in group} == {nn.Linear, SparseLinear}
    assert len(packed_layers(model)) == (count if wins else 0)
    assert backend.name == ('sparse' if wins else 'dense')
    if not wins:
        whole = load_model(embedded_pair[0], 'cpu')
        assert torch.equal(logits(model, embedded_pair[0]), logits(whole, embedded_pair[0]))


def test_kernels_that_fail_leave_the_model_dense(embedded_pair, monkeypatch):
    def fail(*_):
        raise RuntimeError('no such instruction')
    monkeypatch.setattr(linear, 'kernels_for', fail)
    monkeypatch.setattr('owled_ros.driver.backend.kernels_for', lambda _: linear.TorchKernels())
    driver = Driver.load(embedded_pair[1])
    assert driver.backend == 'dense' and 'no such instruction' in driver.backend_reason
    assert not packed_layers(driver.model)
    whole = load_model(embedded_pair[0], 'cpu')
    assert torch.equal(logits(driver.model, embedded_pair[0]), logits(whole, embedded_pair[0]))


def test_the_process_of_the_node_takes_it(embedded_pair):
    expected = weights_hash(embedded_pair[1])
    driving = DriverProcess(load_embedded_or_named, threading.Event(), str(embedded_pair[1]),
                            device='cpu', backend='sparse', expected_hash=expected)
    try:
        assert (driving.hash, driving.backend) == (expected, 'sparse')
        driving.restart()
    finally:
        driving.close()


def test_other_commands_take_it(embedded_pair, capsys):
    packed = str(embedded_pair[1])
    assert main(['format', packed]) == 0
    assert main(['evaluate', packed, '--scenes', '2', '--json']) == 0
    told = json.loads('{' + capsys.readouterr().out.partition('{')[2])
    assert told['weight_bytes'] == (embedded_pair[1] / PACKED).stat().st_size


# -- the hash, and what is refused ---------------------------------------------------------------

def contents(directory):
    """Return the tensors of a packed directory that are not packed, and the packed weights."""
    tensors, weights = load_file(directory / PACKED), load_packed(directory / PACKED)
    return {name: tensor for name, tensor in tensors.items() if not any(
        name.startswith(f'{other}.') for other in weights)}, weights


def test_the_hash_covers_the_packed_file(copy):
    content = hash_file(copy / PACKED)
    assert hash_weights(copy) == hashlib.sha256(f'{PACKED}{content}'.encode()).hexdigest()
    assert weights_hash(copy, hash_weights(copy)) == hash_weights(copy)[:12]
    tensors, weights = contents(copy)
    next(iter(tensors.values())).view(-1)[0] += 1
    approved = hash_weights(copy)
    save_packed(copy / PACKED, weights, tensors)
    refused('not the expected', Driver.load, copy, expected_hash=approved)


@pytest.mark.parametrize('name', [WHOLE, 'model-00001-of-00002.safetensors', f'{WHOLE}.index.json'])
def test_other_weights_beside_the_packed_ones(name, copy):
    (copy / name).write_text('{}')
    for work in (hash_weights, weights_hash, load_model, Driver.load):
        refused(f'weights twice, in {PACKED} and in {name}', work, copy)


def test_files_and_entries_that_add_weights(copy):
    (copy / 'adapter_config.json').write_text('{}')
    refused('does not cover: remove adapter_config.json', Driver.load, copy)


def test_transformers_alone_refuses_it(embedded_pair):
    with pytest.raises(OSError, match=WHOLE):
        transformers.AutoModelForImageTextToText.from_pretrained(embedded_pair[1])


def test_what_needs_dense_weights_refuses_it(embedded_pair, tmp_path, capsys):
    packed = embedded_pair[1]
    for work in (Shards, inspect_model):
        refused('give the directory that they were packed from', work, packed)
    request = Request(output=tmp_path / 'out', model=str(packed), texts=(packed / 'config.json',))
    refused('give the directory that they were packed from', calibrate, request)
    assert main(['inspect', str(packed)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind(copy):
    config = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps(config['text_config']))
    cannot_be_loaded('as a vision-language model .* makes no text from images', copy)


# -- damage --------------------------------------------------------------------------------------

def test_a_file_that_is_cut_short(copy):
    (copy / PACKED).write_bytes((copy / PACKED).read_bytes()[:5000])
    cannot_be_loaded('cannot be read', copy)
    refused('cannot be read', Driver.load, copy)


def test_a_packed_weight_that_contradicts_itself(copy):
    tensors = load_file(copy / PACKED)
    described = {name: {'columns': weight.columns, 'pattern': None}
                 for name, weight in load_packed(copy / PACKED).items()}
    tensors[f'{UP}.mask'][3, 2] ^= 1
    save_file(tensors, copy / PACKED, {FILE_FORMAT: json.dumps(described)})
    cannot_be_loaded(f'the packed weight {UP} .* damaged', copy)


def narrow(tensors, weights):
    weights[UP] = pack(weights[UP].dense()[:, :100])


def embedding(tensors, weights):
    weights['language_model.model.embed_tokens.weight'] = pack(
        tensors.pop('language_model.model.embed_tokens.weight'))


def unknown_packed(tensors, weights):
    weights['language_model.model.layers.9.mlp.up_proj.weight'] = pack(weights[UP].dense())


def renamed(tensors, weights):
    weights['another'] = weights.pop(UP)


def no_matrix(tensors, weights):
    tensors['language_model.model.norm.weight'] = tensors['language_model.model.norm.weight'][1:]


def unknown(tensors, weights):
    tensors['language_model.model.layers.9.mlp.up_proj.weight'] = torch.zeros(2, 2)


def missing(tensors, weights):
    del tensors['language_model.model.norm.weight']


def missing_packed(tensors, weights):
    del weights[UP]


def twice(tensors, weights):
    tensors[UP] = weights[UP].dense()


def not_finite(tensors, weights):
    tensors['language_model.model.norm.weight'][0] = torch.inf


def not_finite_packed(tensors, weights):
    weights[UP].values[0] = torch.nan


@pytest.mark.parametrize('spoil, complaint', [
    (narrow, r'up_proj.weight .* shape \(512, 100\), config.json asks for \(512, 192\)'),
    (embedding, "embed_tokens.weight' packed, which is no linear layer"),
    (unknown_packed, 'layers.9.mlp.up_proj.weight., for which .* no place'),
    (renamed, 'lacks the weight .*layers.0.mlp.up_proj.weight'),
    (no_matrix, r'norm.weight .* shape \(191,\), config.json asks for \(192,\)'),
    (unknown, 'layers.9.mlp.up_proj.weight., for which .* no place'),
    (missing, 'lacks the weight model.language_model.norm.weight'),
    (missing_packed, 'lacks the weight .*layers.0.mlp.up_proj.weight'),
    (twice, f"holds '{UP}' twice"),
    (not_finite, 'norm.weight .* is not finite'),
    (not_finite_packed, 'a value is not finite')])
def test_files_that_the_configuration_contradicts(spoil, complaint, copy):
    tensors, weights = contents(copy)
    spoil(tensors, weights)
    save_packed(copy / PACKED, weights, tensors)
    cannot_be_loaded(complaint, copy)


# -- memory --------------------------------------------------------------------------------------

LOAD = """
from pathlib import Path
import sys
import torch
from owled_ros.driver.checkpoint import load_model
from owled_ros.sparse.linear import make_sparse, packed_bytes

def kilobytes(name):
    return int(Path('/proc/self/status').read_text().split(name + ':')[1].split()[0])

torch.set_num_threads(1)
make_sparse(load_model(sys.argv[1], 'cpu', packed=True))
before = kilobytes('VmRSS')
Path('/proc/self/clear_refs').write_text('5')   # the peak counts anew from here
model = load_model(sys.argv[2], 'cpu', packed=True)
make_sparse(model)
print(packed_bytes(model), (kilobytes('VmHWM') - before) << 10)
"""


def save_large(directory, share):
    """Save a model in bf16 with projections of 1024 x 2816; return how many weights they have."""
    config = transformers.LlavaConfig(
        vision_config={'model_type': 'siglip_vision_model', 'hidden_size': 32, 'image_size': 32,
                       'intermediate_size': 64, 'num_hidden_layers': 1, 'num_attention_heads': 2,
                       'patch_size': 16, 'vision_use_head': False},
        text_config={'model_type': 'llama', 'hidden_size': 1024, 'intermediate_size': 2816,
                     'num_hidden_layers': 4, 'num_attention_heads': 8, 'num_key_value_heads': 8,
                     'vocab_size': 64})
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).to(torch.bfloat16)
    count = 0
    with torch.no_grad():
        for module in model.get_decoder().layers.modules():
            if isinstance(module, nn.Linear):
                module.weight *= torch.rand(module.weight.shape) >= share
                count += module.weight.numel()
    model.save_pretrained(directory)
    return count


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('share, most', [(0.5, 0.58), (0.7, 0.38)])
def test_memory_and_disk(share, most, embedded_pair, tmp_path):
    count = save_large(tmp_path / 'pruned', share)
    told = pack_model(tmp_path / 'pruned', tmp_path / 'packed', progress=lambda line: None)
    dense = 2 * count       # bytes in bf16
    assert told['packed_share'] == told['packed_bytes'] / dense <= most
    others = told['original_bytes'] - dense
    assert told['bytes'] <= most * dense + others + 10_000
    done = subprocess.run([sys.executable, '-c', LOAD, embedded_pair[1], tmp_path / 'packed'],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resident, peak = map(int, done.stdout.split())
    assert resident <= most * dense
    # The file's pages and the copy in huge pages, and what libraries take: never the dense
    # weights, which of 4 bytes here would add twice `dense`.
    assert peak <= (2 * most + 0.8) * dense < 2 * dense, peak / dense
    assert packed_bytes(load_model(tmp_path / 'packed', 'cpu', packed=True)) == resident
