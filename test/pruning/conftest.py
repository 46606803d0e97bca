"""A tiny Llava with random weights, and samples for it."""

import pytest
import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

IMAGE_TOKEN = 99
PATCHES = 16


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Tiny matrices on a busy machine: threads that wait for each other cost most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_llava_config(*, vision_layers=3, language_layers=3,
                      tie_word_embeddings=False) -> LlavaConfig:
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=vision_layers,
        num_attention_heads=4, image_size=32, patch_size=8, vision_use_head=False)
    text = LlamaConfig(
        vocab_size=100, hidden_size=48, intermediate_size=96, num_hidden_layers=language_layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-1, vision_feature_select_strategy='full',
        image_seq_length=PATCHES, tie_word_embeddings=tie_word_embeddings)


def save_tiny_llava(directory, *, dtype=torch.float32, **layers):
    torch.manual_seed(1)
    model = LlavaForConditionalGeneration(tiny_llava_config(**layers)).eval()
    for parameter in model.parameters():    # spread scales, so that there are outliers
        if parameter.dim() == 2:
            parameter.data *= torch.exp(torch.randn(parameter.shape[1]))
    model.to(dtype).save_pretrained(directory)
    return directory


def llava_samples(count, *, seed=0) -> list[dict]:
    """Make inputs of different lengths: an image, then random words."""
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        text = torch.randint(3, 90, (1, 6 + index % 4), generator=draw)
        ids = torch.cat([torch.full((1, PATCHES), IMAGE_TOKEN), text], 1)
        samples.append({
            'input_ids': ids, 'attention_mask': torch.ones_like(ids),
            'pixel_values': torch.randn(1, 3, 32, 32, generator=draw)})
    return samples


@pytest.fixture(scope='session')
def save_llava():
    """Give the function that saves a tiny Llava: other types and depths than that of llava_dir."""
    return save_tiny_llava


@pytest.fixture(scope='session')
def make_samples():
    """Give the function that makes samples: (count, seed=...)."""
    return llava_samples


@pytest.fixture(scope='session')
def llava_dir(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp('model') / 'tiny-llava')


@pytest.fixture(scope='session')
def samples():
    return llava_samples(6)
