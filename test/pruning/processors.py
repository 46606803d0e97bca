"""Processors of many families, made here: nothing is downloaded."""

import string

from tokenizers import decoders, models, pre_tokenizers, Regex, Tokenizer
import transformers as t

IMAGE, START, END, VIDEO = 99, 97, 98, 96
WORDS = 95      # of the 100 that the tiny models know
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}")


def tokenizer(image: str, start: str, end: str, video: str = '<video>', **names):
    """Return a tokenizer with one token for a character, whose special ones are the families'."""
    letters = string.ascii_letters + string.digits + string.punctuation.replace('<', '') + ' '
    words = ['<pad>', '<s>', '</s>', '<unk>', *letters][:WORDS]
    words += [f'<unused{number}>' for number in range(len(words), VIDEO)]
    words += [video, start, end, image]
    assert words.index(image) == IMAGE and len(set(words)) == 100
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, '<unk>'))
    made.pre_tokenizer = pre_tokenizers.Split(Regex('.'), 'isolated')
    made.decoder = decoders.Fuse()
    special = [word for word in (image, start, end, video) if word not in letters]
    return t.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token='<pad>', bos_token='<s>', eos_token='</s>',
        unk_token='<unk>', additional_special_tokens=special,
        extra_special_tokens={'image_token': image, **names})


def chat(image: str) -> dict:
    return {'chat_template': CHAT.replace('IMAGE', image)}


SMALL = {'height': 32, 'width': 32}


def llava():
    return t.LlavaProcessor(
        t.SiglipImageProcessorPil(size=SMALL), tokenizer('<image>', '<a>', '<b>'), patch_size=8,
        vision_feature_select_strategy='full', **chat('<image>'))


def llava_onevision():
    return t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessorPil(size=SMALL, image_grid_pinpoints=[[32, 32]]),
        tokenizer('<image>', '<a>', '<b>'), t.LlavaOnevisionVideoProcessor(), num_image_tokens=16,
        vision_feature_select_strategy='full', **chat('<image>'))


def smolvlm():
    names = {'fake_image_token': '<fake_token_around_image>', 'global_image_token': '<global-img>',
             'end_of_utterance_token': '</s>'}
    return t.SmolVLMProcessor(
        t.SmolVLMImageProcessorPil(size={'longest_edge': 32}, max_image_size={'longest_edge': 32},
                                   do_image_splitting=False),
        tokenizer('<image>', '<fake_token_around_image>', '<global-img>', **names),
        t.SmolVLMVideoProcessor(), image_seq_len=16, **chat('<image>'))


def idefics3():
    return t.Idefics3Processor(
        t.Idefics3ImageProcessorPil(size={'longest_edge': 32},
                                    max_image_size={'longest_edge': 32},
                                    do_image_splitting=False),
        tokenizer('<image>', '<fake_token_around_image>', '<global-img>'), image_seq_len=4,
        **chat('<image>'))


def qwen(processor, videos, patch: int):
    def make():
        side = 8 * patch
        return processor(
            t.Qwen2VLImageProcessorPil(
                patch_size=patch, size={'shortest_edge': side ** 2, 'longest_edge': side ** 2}),
            tokenizer('<|image_pad|>', '<|vision_start|>', '<|vision_end|>', '<|video_pad|>'),
            videos(), **chat('<|vision_start|><|image_pad|><|vision_end|>'))
    return make


def paligemma():
    images = t.SiglipImageProcessorPil(size=SMALL)
    images.image_seq_length = 16
    return t.PaliGemmaProcessor(
        images, tokenizer('<image>', '<a>', '<b>'), **chat('<image>'))


def internvl():
    names = {'start_image_token': '<img>', 'end_image_token': '</img>',
             'context_image_token': '<IMG_CONTEXT>', 'video_token': '<video>'}
    return t.InternVLProcessor(
        t.GotOcr2ImageProcessorPil(size=SMALL, crop_to_patches=False),
        tokenizer('<IMG_CONTEXT>', '<img>', '</img>', **names), t.InternVLVideoProcessor(),
        image_seq_length=4, **chat('<IMG_CONTEXT>'))


PROCESSORS = {
    'llava': llava, 'llava_onevision': llava_onevision, 'smolvlm': smolvlm, 'idefics3': idefics3,
    'qwen2_vl': qwen(t.Qwen2VLProcessor, t.Qwen2VLVideoProcessor, 14),
    'qwen2_5_vl': qwen(t.Qwen2_5_VLProcessor, t.Qwen2VLVideoProcessor, 14),
    'qwen3_vl': qwen(t.Qwen3VLProcessor, t.Qwen3VLVideoProcessor, 16),
    'paligemma': paligemma, 'internvl': internvl}
