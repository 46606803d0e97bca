"""The embedded model before it has learned anything: sizes, vocabulary, prompt, processor.

An InternVL: a vision transformer whose last features are shuffled, four neighbours into one,
before the language model reads them, so that it sees four times as many patches as it reads
tokens. The picture is the middle two thirds of the frame: what is far, and small, is around the
horizon; above it is sky and below it the road right ahead.
"""

import math
import re

from owled_ros.driver.action import Maneuver, Route
from owled_ros.driver.prompt import DrivingFormat, NumberFormat
from owled_ros.scenes.expert import DEEDS, REASONS
from tokenizers import decoders, models, pre_tokenizers, Regex, Tokenizer
import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

IMAGE_SIZE = 256
SHOWN = 2 / 3            # of the frame's height, around its middle
PATCH = 16
GRID = IMAGE_SIZE // PATCH
SHUFFLE = 2              # neighbours, across and down, that become one token
WIDTH = 192
LAYERS = {'vision': 6, 'language': 4}
DISTANCES = NumberFormat(0, 99, 1)

FORMAT = DrivingFormat(
    prompt='{image} speed {speed} limit {speed_limit} route {route} action',
    answer=' {acceleration} {curvature} {maneuver}. {explanation}',
    chat=False,
    acceleration=NumberFormat(-8.0, 3.0, 0.1, signed=True),
    curvature=NumberFormat(-0.08, 0.08, 0.001, signed=True),
    speed=NumberFormat(0, 40, 0.5),
    speed_limit=NumberFormat(0, 130, 10, scale=3.6),
    explanation_tokens=48,
)

SPECIAL = ['<pad>', '</s>', '<unk>', '<image>']
SENTENCES = ('No Red Amber Green light m ahead, no vehicle, braking vehicle, no pedestrian '
             'in the lane at the side: I hold back because .')


def vocabulary():
    """Every word, with and without the blank before it; a number is one word."""
    words = []
    for numbers in (FORMAT.acceleration, FORMAT.curvature, FORMAT.speed, FORMAT.speed_limit,
                    DISTANCES):
        words += [text for text, _ in numbers.choices()]
    texts = [SENTENCES, FORMAT.prompt, FORMAT.answer, FORMAT.unknown, *DEEDS.values(),
             *REASONS.values(), *(FORMAT.routes[r.name.lower()] for r in Route),
             *(FORMAT.maneuvers[m.name.lower()] for m in Maneuver if m)]
    words += sorted({word for text in texts for word in re.findall(r'[A-Za-z]+|[^\sA-Za-z\d{}_]',
                                                                   text)})
    spaced = [form for word in dict.fromkeys(words) for form in (word, ' ' + word)]
    return SPECIAL + spaced


def build_tokenizer():
    words = vocabulary()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r' ?[+-]?\d+(?:\.\d+)?| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s'), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', eos_token='</s>', unk_token='<unk>',
        extra_special_tokens={'image_token': '<image>'}, clean_up_tokenization_spaces=False,
        model_max_length=512)


def build_processor():
    """Return a stock processor: it stretches a frame, cuts the middle out, and counts the tokens.

    LlavaProcessor and not InternVL's own, whose images are cut into tiles.
    """
    images = CLIPImageProcessorPil(
        size={'height': round(IMAGE_SIZE / SHOWN), 'width': IMAGE_SIZE},
        crop_size={'height': IMAGE_SIZE, 'width': IMAGE_SIZE},
        resample=2,  # bilinear, antialiased
        image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return LlavaProcessor(images, build_tokenizer(), patch_size=PATCH * SHUFFLE,
                          vision_feature_select_strategy='full')


def build_model(processor, share=1.0):
    """Return the model with random weights, ready to be trained.

    share: of the layers of encoder and language model; 0.5 is the smaller dense model that
    pruned ones are compared with.
    """
    layers = {name: max(1, round(count * share)) for name, count in LAYERS.items()}
    vision = InternVLVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=layers['vision'],
        num_attention_heads=6, attention_bias=True, image_size=IMAGE_SIZE, patch_size=PATCH,
        layer_scale_init_value=1.0)
    text = LlamaConfig(
        vocab_size=len(processor.tokenizer), hidden_size=WIDTH, intermediate_size=512,
        num_hidden_layers=layers['language'], num_attention_heads=6, num_key_value_heads=6,
        max_position_embeddings=512, tie_word_embeddings=False,
        pad_token_id=processor.tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=processor.tokenizer.eos_token_id)
    config = InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=processor.image_token_id,
        image_seq_length=(GRID // SHUFFLE) ** 2, downsample_ratio=1 / SHUFFLE,
        vision_feature_layer=-1, tie_word_embeddings=False)
    model = InternVLForConditionalGeneration(config)
    start_from_geometry(model, processor)
    return model


@torch.no_grad()
def start_from_geometry(model, processor):
    """Give positions and numbers the order that they have, so that it need not be learned.

    Image positions start as sines and cosines of row and column; the embeddings of numbers as
    sines and cosines of their value within their range.
    """
    positions = model.model.vision_tower.embeddings.position_embeddings[0, 1:]  # 0: the class
    row, column = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing='ij')
    half = WIDTH // 2
    positions.copy_(torch.cat([waves(row.flatten() / GRID, half),
                               waves(column.flatten() / GRID, half)], 1) * 0.3)
    embeddings = model.model.language_model.embed_tokens.weight
    tokens = processor.tokenizer.get_vocab()
    for numbers in (FORMAT.acceleration, FORMAT.curvature, FORMAT.speed, DISTANCES):
        texts = [text for text, _ in numbers.choices()]
        share = torch.linspace(0, 1, len(texts))
        for blank in ('', ' '):
            ids = [tokens[blank + text] for text in texts]
            embeddings[ids] = embeddings[ids] * 0.5 + waves(share, WIDTH) * 0.02


def waves(share, width):
    """Sines and cosines of values in [0, 1]: (n,) -> (n, width)."""
    frequencies = math.pi * torch.logspace(0, 1.5, width // 2)
    angles = share[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
