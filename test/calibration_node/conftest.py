"""A tiny Llava with random weights and a processor, and a drive to calibrate it on."""

import numpy as np
from owled_ros.bags.writing import DriveWriter
from owled_ros.driver.action import Action, EgoState, Maneuver
import pytest

SIZE, PATCH = 32, 8


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Keep torch to one thread, here and in processes that are started.

    Two threads meet after every operation; where other programs keep the processors busy, each
    meeting takes longer than the whole work on so small a model.
    """
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        yield
    torch.set_num_threads(threads)


def make_tokenizer():
    """One token per byte, which needs no training."""
    from tokenizers import decoders, models, pre_tokenizers, Tokenizer
    from transformers import PreTrainedTokenizerFast
    special = ['<pad>', '<s>', '</s>', '<image>']
    words = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', bos_token='<s>', eos_token='</s>',
        additional_special_tokens=['<image>'], extra_special_tokens={'image_token': '<image>'})


def save_model(directory):
    import torch
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        SiglipVisionConfig,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        image_size=SIZE, patch_size=PATCH, vision_use_head=False)
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024)
    LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-1,
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        vision_feature_select_strategy='full', image_seq_length=(SIZE // PATCH) ** 2,
    )).save_pretrained(directory)
    LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={'height': SIZE, 'width': SIZE}),
        tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy='full',
        image_token='<image>').save_pretrained(directory)
    return directory


def save_drive(path, seconds=8.0):
    """Speeding up, then braking; with a truth and an explanation for every frame."""
    shade = np.random.default_rng(0)
    with DriveWriter(path) as writer:
        for tick in range(round(seconds * 50)):
            stamp = 10**9 + tick * 20_000_000
            time = tick / 50
            speed = 5 + time if time < seconds / 2 else 5 + seconds - time
            ego = EgoState(speed, 0.02 * speed)
            writer.write_odometry(stamp, (0.0, 0.0, 0.0), ego)
            if tick % 5 == 0:
                frame = shade.integers(0, 255, (48, 64, 3), np.uint8)
                writer.write_frame(stamp, frame)
                action = Action(1.0 if time < seconds / 2 else -1.0, 0.02, Maneuver.KEEP_LANE)
                writer.write_truth(stamp, ego, action, 'The road is free.')
    return path


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('model') / 'tiny')


@pytest.fixture(scope='session')
def drive(tmp_path_factory):
    return save_drive(tmp_path_factory.mktemp('bags') / 'drive')


@pytest.fixture(scope='session')
def longer_drive(tmp_path_factory):
    return save_drive(tmp_path_factory.mktemp('bags') / 'longer', seconds=14.0)


@pytest.fixture(scope='session')
def text_model(tmp_path_factory):
    """Save a tiny Llama with a tokenizer and no processor."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(2)
    directory = tmp_path_factory.mktemp('model') / 'tiny-text'
    tokenizer = make_tokenizer()
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
