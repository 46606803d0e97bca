import hashlib
import json
import shutil

from owled_ros.driver.checkpoint import (
    choose_device,
    choose_dtype,
    load_model,
    load_processor,
    locate,
    weights_hash,
)
from owled_ros.driver.driver import Driver
from owled_ros.errors import UserError
from owled_ros.pruning.shards import hash_file, hash_weights, Shards
import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import AutoModelForImageTextToText

INDEX = 'model.safetensors.index.json'


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(locate('embedded'), tmp_path / 'model')


def refused(complaint, work, *arguments, **options):
    with pytest.raises(UserError, match=complaint) as refusal:
        work(*arguments, **options)
    assert '\n' not in str(refusal.value)


@pytest.fixture
def sharded(copy):
    """Return a copy of the embedded model in two files and an index."""
    tensors = sorted(load_file(copy / 'model.safetensors').items())
    where = {}
    for file, part in (('one.safetensors', tensors[::2]), ('two.safetensors', tensors[1::2])):
        save_file(dict(part), copy / file, {'format': 'pt'})
        where.update({name: file for name, _ in part})
    (copy / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': where}))
    (copy / 'model.safetensors').unlink()
    return copy


def refused_everywhere(complaint, directory):
    """Say that neither the hash nor the model can be had, and no part of it."""
    for work in (weights_hash, hash_weights, Shards, load_model, Driver.load):
        refused(complaint, work, directory)


def changed(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_weight_that_is_not_there_is_never_drawn_at_random(copy):
    tensors = load_file(copy / 'model.safetensors')
    lost = sorted(name for name in tensors if 'vision' in name)[3]
    del tensors[lost]
    save_file(tensors, copy / 'model.safetensors', {'format': 'pt'})
    refused(r'lacks the weight .*vision.* that the model needs \(1 in all\)', load_model, copy)


def test_the_embedded_model_is_found():
    assert (locate('embedded') / 'config.json').is_file()


def test_a_directory_that_is_not_there(tmp_path):
    refused('no model directory', locate, tmp_path / 'nothing')
    refused('no model directory', locate, 'nothing')


def test_a_directory_that_is_no_model(tmp_path):
    refused('config.json', locate, tmp_path)


def test_a_model_without_weights(copy):
    (copy / 'model.safetensors').unlink()
    refused('no weights', locate, copy)
    refused('no weights', Driver.load, copy)


def test_weights_that_are_cut_short(copy):
    weights = copy / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:5000])
    refused('cannot be loaded', load_model, copy)


def test_weights_that_are_not_finite(copy):
    tensors = load_file(copy / 'model.safetensors')
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, copy / 'model.safetensors', {'format': 'pt'})
    refused('not finite', load_model, copy)


def test_a_model_without_its_processor(copy):
    for path in copy.iterdir():
        if path.name not in ('config.json', 'model.safetensors'):
            path.unlink()
    refused('processor', load_processor, copy)


def test_the_hash_tells_models_apart(copy):
    found = weights_hash(copy)
    assert found == weights_hash(locate('embedded'))
    assert weights_hash(copy, found[:6].upper()) == found
    refused('not the expected', weights_hash, copy, '000000000000')
    refused('not the expected', Driver.load, copy, expected_hash='0' * 64)
    tensors = load_file(copy / 'model.safetensors')
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, copy / 'model.safetensors', {'format': 'pt'})
    assert weights_hash(copy) != found


def test_a_full_hash_may_be_expected(copy):
    assert weights_hash(copy, hash_weights(copy)) == hash_weights(copy)[:12]


def test_hashes_that_were_recorded_stay_valid(copy):
    content = hash_file(copy / 'model.safetensors')
    expected = hashlib.sha256(f'model.safetensors{content}'.encode()).hexdigest()
    assert hash_weights(copy) == expected
    changed(copy / 'config.json', anything='else')
    (copy / INDEX).write_text('{"weight_map": {"all": "model.safetensors"}}')
    assert hash_weights(copy) == expected


def test_weights_in_several_files(sharded):
    names = ''.join(f'{name}{hash_file(sharded / name)}'
                    for name in ('one.safetensors', 'two.safetensors'))
    assert hash_weights(sharded) == hashlib.sha256(names.encode()).hexdigest()
    load_model(sharded)


def test_other_weights_beside_the_approved_ones(sharded):
    approved = hash_weights(sharded)
    shutil.copy(locate('embedded') / 'model.safetensors', sharded)  # what transformers would load
    refused_everywhere('weights twice', sharded)
    refused('weights twice', weights_hash, sharded, approved)
    refused('weights twice', Driver.load, sharded, expected_hash=approved)


def test_an_index_of_the_whole_and_more(sharded):
    (sharded / 'one.safetensors').rename(sharded / 'model.safetensors')
    index = sharded / INDEX
    index.write_text(index.read_text().replace('one.safetensors', 'model.safetensors'))
    refused_everywhere('weights twice', sharded)


@pytest.mark.parametrize('name', [
    'adapter_config.json', 'shard-00000-model-00001-of-00001.safetensors'])
def test_files_that_add_weights(copy, name):
    (copy / name).write_text('{}')
    refused_everywhere(f'does not cover: remove {name}', copy)


@pytest.mark.parametrize('entries', [
    {'transformers_weights': 'other.safetensors'},
    {'text_config': {'transformers_weights': 'other.safetensors'}},
    {'layers': [{'deep': [{'transformers_weights': 'other.safetensors'}]}]},
    {'attribute_map': {'transformers_weights': 'other'}, 'other': 'other.safetensors'},
    {'attribute_map': {'other': 'transformers_weights'}, 'other': 'other.safetensors'},
    {'configuration_files': ['config.4.0.0.json']}])
def test_a_configuration_that_names_other_weights(copy, entries):
    shutil.copy(copy / 'model.safetensors', copy / 'other.safetensors')
    changed(copy / 'config.json', **entries)
    refused_everywhere('names other files to load', copy)


def test_a_name_of_other_weights_in_another_spelling(copy):
    path = copy / 'config.json'
    path.write_text('{"transformers\\u005fweights": "x.safetensors",' + path.read_text()[1:])
    refused_everywhere('names other files to load', copy)


@pytest.mark.parametrize('content', [b'{', b'\xff\xfe{}', b'[' * 100_000])
def test_a_configuration_that_cannot_be_read(copy, content):
    (copy / 'config.json').write_bytes(content)
    refused_everywhere('config.json cannot be read', copy)


def test_devices_and_types():
    assert choose_device('cpu').type == 'cpu'
    assert choose_dtype('auto', torch.device('cpu')) == torch.float32
    assert choose_dtype('float16', torch.device('cpu')) == torch.float16
    refused('unknown', choose_device, 'abacus')
    refused('unknown', choose_dtype, 'int3', torch.device('cpu'))
    if not torch.cuda.is_available():
        refused('no CUDA GPU', choose_device, 'cuda')


def test_a_processor_that_needs_a_library_says_which(monkeypatch):
    def refuse(*_, **__):
        raise ImportError('\nQwen2VLVideoProcessor requires the Torchvision library but it was '
                          'not found.\nSee the installation page.')

    monkeypatch.setattr('owled_ros.driver.checkpoint.AutoProcessor.from_pretrained', refuse)
    refused('requires the Torchvision library .* install it with pip', load_processor,
            locate('embedded'))


AUDIO = {'audio_tokenizer_class': 'DacModel', 'audio_tokenizer_name_or_path': '/anywhere'}


def test_a_processor_cannot_lead_out_of_its_directory(copy, monkeypatch):
    monkeypatch.setattr('owled_ros.driver.checkpoint.AutoProcessor.from_pretrained',
                        lambda *_, **__: pytest.fail('transformers has seen it'))
    changed(copy / 'processor_config.json', audio_tokenizer=AUDIO)
    refused('processor_config.json names an audio tokenizer', load_processor, copy)
    refused('processor_config.json names an audio tokenizer', Driver.load, copy)


def test_an_audio_tokenizer_in_a_file_of_its_own(copy, monkeypatch):
    monkeypatch.setattr('owled_ros.driver.checkpoint.AutoProcessor.from_pretrained',
                        lambda *_, **__: pytest.fail('transformers has seen it'))
    (copy / 'audio_tokenizer_config.json').write_text(json.dumps(AUDIO))
    refused('audio_tokenizer_config.json names an audio tokenizer', load_processor, copy)


def test_a_processor_configuration_that_cannot_be_read(copy):
    (copy / 'processor_config.json').write_text('{')
    refused('processor_config.json cannot be read', load_processor, copy)


def test_pictures_are_resized_alike_wherever_it_runs():
    images = load_processor(locate('embedded')).image_processor
    assert type(images).__name__ == 'CLIPImageProcessorPil'   # with torchvision here or not


def test_a_driver_says_what_it_is():
    driver = Driver.load('embedded')
    assert driver.name == 'embedded'
    assert len(driver.hash) == 12
    assert driver.requested_sparsity == driver.measured_sparsity == 0.0
    assert 'cpu' in driver.backend_reason or 'cuda' in driver.backend_reason


@pytest.mark.parametrize('layers, complaint', [
    (100, r'asks for \d+ million weights, but .* holds 5 million'),
    (10 ** 9, 'asks for 1000000000 layers, but .* holds 157 tensors')])
def test_a_configuration_that_asks_for_far_more_is_refused_before_it_is_made(
        tmp_path, monkeypatch, layers, complaint):
    directory = tmp_path / 'model'
    shutil.copytree(locate('embedded'), directory)
    config = json.loads((directory / 'config.json').read_text())
    config['text_config']['num_hidden_layers'] = layers
    (directory / 'config.json').write_text(json.dumps(config))
    monkeypatch.setattr(AutoModelForImageTextToText, 'from_pretrained',
                        lambda *args, **more: pytest.fail('made'))
    with pytest.raises(UserError, match=complaint):
        load_model(directory, 'cpu')
