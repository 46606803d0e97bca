"""A model of another family than the embedded one, without a driving format of its own."""

import numpy as np
from owled_ros.bags.samples import Source
from owled_ros.calibration import calibrate, Request
from owled_ros.driver.action import Command, EgoState, Maneuver, Route
from owled_ros.driver.driver import Driver
from owled_ros.pruning import PruningSettings
from owled_ros.scenes.recording import record_drive
import pytest
from tokenizers import decoders, models, pre_tokenizers, Tokenizer, trainers
import torch
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

CHAT = (
    "{% for m in messages %}<start>{{ m['role'] }}:{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end>"
    '{% endfor %}{% if add_generation_prompt %}<start>assistant:{% endif %}')


def byte_pair_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ['<pad>', '<end>', '<start>', '<image>', '<fake_token_around_image>', '<global-img>']
    special += [f'<row_{row}_col_{column}>' for row in range(1, 5) for column in range(1, 5)]
    tokenizer.train_from_iterator(
        ['You drive the vehicle. Acceleration: -2.5, curvature: +0.01, maneuver: keep lane.'],
        trainers.BpeTrainer(vocab_size=350, special_tokens=special,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token='<pad>',
                                   eos_token='<end>', bos_token='<start>')


@pytest.fixture(scope='module')
def smolvlm(tmp_path_factory):
    """Save a SmolVLM (Idefics3) with random weights, which splits an image into several."""
    torch.manual_seed(0)
    tokenizer = byte_pair_tokenizer()
    images = Idefics3ImageProcessorPil(size={'longest_edge': 64},
                                       max_image_size={'longest_edge': 32})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT)
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids('<image>'), scale_factor=2, pad_token_id=0,
        vision_config={'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
                       'num_attention_heads': 2, 'image_size': 32, 'patch_size': 8},
        text_config={'model_type': 'llama', 'hidden_size': 32, 'intermediate_size': 64,
                     'num_hidden_layers': 3, 'num_attention_heads': 2, 'num_key_value_heads': 1,
                     'vocab_size': len(tokenizer), 'pad_token_id': 0, 'eos_token_id': 1})
    directory = tmp_path_factory.mktemp('models') / 'smolvlm'
    Idefics3ForConditionalGeneration(config).save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def test_it_drives(smolvlm):
    driver = Driver.load(smolvlm)
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for command in (Command(), Command(Route.LEFT, 13.9)):
        decision = driver.decide(frame, EgoState(8.3, 0.1), command)
        assert decision.action.maneuver in command.allowed_maneuvers()
        assert -8.0 <= decision.action.acceleration <= 3.0
        assert abs(decision.action.curvature) <= 0.2
        stream = driver.explain(decision)
        while not stream.advance(16):
            pass
        assert stream.complete


def test_it_is_calibrated_on_a_bag(smolvlm, tmp_path):
    record_drive(tmp_path / 'drive', seconds=5.0, width=128, height=96)
    report = calibrate(Request(
        output=tmp_path / 'pruned', model=str(smolvlm), bags=(tmp_path / 'drive',),
        source=Source(image_topic='/camera/image_raw'), samples=6, held_out=0,
        pruning=PruningSettings(sparsity=0.5)), progress=lambda text: None)
    assert abs(report['sparsity']['measured'] - 0.5) < 1e-3
    pruned = Driver.load(tmp_path / 'pruned')
    assert pruned.measured_sparsity == pytest.approx(0.5, abs=1e-3)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / 'pruned')
    zeros = (plain.model.text_model.layers[0].mlp.up_proj.weight == 0).float().mean()
    assert 0.3 < zeros < 0.7
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    assert pruned.decide(frame, EgoState(8.3)).action.maneuver != Maneuver.NONE
