"""Text files and folders of images as calibration samples, for those without a recorded drive."""

from collections import Counter
from dataclasses import dataclass
import json
from pathlib import Path
import random

import numpy as np
from owled_ros.bags.choosing import HELD_OUT_EVERY, spread
from owled_ros.driver.checkpoint import load_processor
from owled_ros.driver.prompt import answered, tokenize, with_image
from owled_ros.errors import UserError
from PIL import Image, ImageOps
import torch
from transformers import AutoConfig

TOKENS = 512        # of a piece of text
PROMPT = 'Describe this image.'
IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.webp')
CAPTIONS = 'metadata.jsonl'     # beside the images, as in the ImageFolder of Hugging Face datasets
RUNS = 20           # of neighbours, of which every fifth is held out


@dataclass(frozen=True)
class Gathered:
    """
    Calibration samples of one source.

    :param inputs: samples to calibrate on: a model's inputs by name, tensors of batch size 1
    :param held_out: other samples, apart from those, to measure the losses on
    :param source: what is told of them in ``owled.json`` and the report
    """

    inputs: list[dict]
    held_out: list[dict]
    source: dict


def read_texts(model_dir, files, *, samples: int, held_out: int = 0, tokens: int = TOKENS,
               seed: int = 0) -> Gathered:
    """
    Cut text files into pieces of so many tokens, and choose some, spread over all files.

    A file that is shorter is one piece; the rest at the end of a longer one is left out. Every
    fifth run of neighbouring pieces is for the held-out samples.

    :param model_dir: a model directory with a tokenizer or a processor
    :param files: paths of text files, UTF-8
    :raises UserError: when a file cannot be read, or a piece is longer than the model can read
    """
    _check_length(model_dir, tokens)
    processor = load_processor(model_dir)
    tokenizer = getattr(processor, 'tokenizer', processor)
    pieces = []
    for path in map(Path, files):
        found = tokenizer(_text_in(path), add_special_tokens=False, verbose=False)['input_ids']
        last = max(len(found) - tokens, 0)
        pieces += [(path.name, found[start:start + tokens])
                   for start in range(0, last + 1, tokens)]
    pieces = [piece for piece in pieces if len(piece[1]) > 1]
    if not pieces:
        raise UserError(f'there is no text in {", ".join(map(str, files))}; name other files')
    chosen, unseen = choose(pieces, samples, held_out, seed)
    counts = {name: {'usable': number} for name, number in Counter(n for n, _ in pieces).items()}
    for group, members in (('calibration', chosen), ('held_out', unseen)):
        for name, number in Counter(n for n, _ in members).items():
            counts[name][group] = number
    return Gathered([_as_inputs(ids) for _, ids in chosen], [_as_inputs(ids) for _, ids in unseen],
                    {'kind': 'text', 'names': [Path(file).name for file in files],
                     'usable': len(pieces), 'calibration': len(chosen), 'held_out': len(unseen),
                     'tokens': tokens, 'files': counts})


def read_images(model_dir, folder, *, samples: int, held_out: int = 0, prompt: str = PROMPT,
                seed: int = 0) -> Gathered:
    """
    Choose images of a folder and all below it, and ask a model about each in its chat template.

    Where there is a ``metadata.jsonl`` with a ``file_name`` and a ``text`` in each line, as in
    the ImageFolder of Hugging Face datasets, the text is the answer that the model is taught, and
    only the images in it are used. Every fifth run of neighbours by name is held out.

    :param model_dir: the directory of a vision-language model with its processor
    :param prompt: the question
    :raises UserError: when there are no images, or one of them cannot be read
    """
    processor = load_processor(model_dir)
    if getattr(processor, 'image_processor', None) is None:
        raise UserError(f'the model in {model_dir} reads no images; give it texts')
    folder = Path(folder)
    captions = _captions(folder)
    paths = sorted(captions) if captions else sorted(
        path for path in folder.rglob('*') if path.suffix.lower() in IMAGES and path.is_file())
    if not paths:
        raise UserError(f'there are no images ({", ".join(IMAGES)}) in {folder}; name another '
                        'folder')
    chosen, unseen = choose(paths, samples, held_out, seed)

    def exchange(path):
        return _exchange(processor, prompt, _picture(path), captions.get(path, ''))

    return Gathered([exchange(path) for path in chosen], [exchange(path) for path in unseen],
                    {'kind': 'images', 'names': [folder.name], 'usable': len(paths),
                     'calibration': len(chosen), 'held_out': len(unseen), 'prompt': prompt,
                     'labels': 'captions' if captions else 'the prompt'})


def choose(items, samples, held_out, seed):
    """Return (to calibrate on, held out): spread over the items, always the same for a seed."""
    apart = min(RUNS, len(items)) if held_out else 1
    edges = [len(items) * run // apart for run in range(apart + 1)]
    ours, unseen = [], []
    for run, (start, end) in enumerate(zip(edges, edges[1:]), 1):
        (ours if run % HELD_OUT_EVERY else unseen).extend(items[start:end])
    chance = random.Random(seed)
    return tuple([group[index] for index in spread(range(len(group)), min(count, len(group)),
                                                   chance)]
                 for group, count in ((ours, samples), (unseen, held_out)))


def check_sources(texts, images):
    """Raise UserError where there is no such file or folder."""
    for path in texts:
        if not Path(path).is_file():
            raise UserError(f'there is no text file {path}; name files, not folders')
    if images is not None and not Path(images).is_dir():
        raise UserError(f'there is no folder of images {images}; name a folder')


def _check_length(model_dir, tokens):
    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False).get_text_config()
    most = getattr(config, 'max_position_embeddings', None) or tokens
    if not 2 <= tokens <= most:
        raise UserError(f'tokens is {tokens}; the model in {model_dir} reads 2 to {most}')


def _text_in(path):
    try:
        return path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not text in UTF-8 (byte {error.start}); save it as UTF-8, or '
                        'leave it out') from None
    except OSError as error:
        raise UserError(f'the text file {path} cannot be read: {error.strerror}') from None


def _as_inputs(ids):
    tokens = torch.tensor([ids])
    return {'input_ids': tokens, 'attention_mask': torch.ones_like(tokens)}


def _captions(folder):
    """Return the captions in a folder by path; none where there is no file of them."""
    path = folder / CAPTIONS
    if not path.is_file():
        return {}
    captions = {}
    for number, line in enumerate(_text_in(path).splitlines(), 1):
        if line.strip():
            try:
                entry = json.loads(line)
                captions[folder / entry['file_name']] = str(entry['text'])
            except (ValueError, KeyError, TypeError):
                raise UserError(f'line {number} of {path} is not JSON with a file_name and a '
                                'text; correct or remove it') from None
    return captions


def _picture(path):
    """Return an image as (height, width, 3) uint8 RGB, turned as its camera was held."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cause = str(error) or type(error).__name__
        raise UserError(f'the image {path} cannot be read ({cause}); leave it out') from None


def _exchange(processor, prompt, picture, caption):
    text = with_image(processor, prompt)
    inputs = dict(processor(text=text, images=[picture], return_tensors='pt'))
    if not caption:
        return inputs
    blank = '' if getattr(processor, 'chat_template', None) else ' '
    end = processor.tokenizer.eos_token_id
    return answered(inputs, tokenize(processor, blank + caption) + ([] if end is None else [end]))
