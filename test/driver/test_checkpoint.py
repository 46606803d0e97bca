import shutil

import pytest
from safetensors.torch import load_file, save_file
import torch

from owled_ros.driver.checkpoint import (
    choose_device, choose_dtype, load_model, load_processor, locate, weights_hash)
from owled_ros.driver.driver import Driver
from owled_ros.errors import UserError


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(locate('embedded'), tmp_path / 'model')


def refused(complaint, work, *arguments, **options):
    with pytest.raises(UserError, match=complaint) as refusal:
        work(*arguments, **options)
    assert '\n' not in str(refusal.value)


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
    from owled_ros.pruning import hash_weights
    assert weights_hash(copy, hash_weights(copy)) == hash_weights(copy)[:12]


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


def test_pictures_are_resized_alike_wherever_it_runs():
    images = load_processor(locate('embedded')).image_processor
    assert type(images).__name__ == 'SiglipImageProcessorPil'   # with torchvision here or not


def test_a_driver_says_what_it_is():
    driver = Driver.load('embedded')
    assert driver.name == 'embedded'
    assert len(driver.hash) == 12
    assert driver.requested_sparsity == driver.measured_sparsity == 0.0
    assert 'cpu' in driver.backend_reason or 'cuda' in driver.backend_reason
