"""Tiny models of two families with random weights, as the hub would give them: without a format."""

from tokenizers import decoders, models, pre_tokenizers, Tokenizer, trainers
import torch
import transformers as t

TEXT = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
        'num_attention_heads': 4, 'num_key_value_heads': 2, 'pad_token_id': 0, 'eos_token_id': 1}
CHAT = (
    "{% for m in messages %}<start>{{ m['role'] }}:{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end>"
    '{% endfor %}{% if add_generation_prompt %}<start>assistant:{% endif %}')


def tokenizer(*special, **names):
    """Train a byte-pair tokenizer: it knows every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        ['You drive the vehicle. Acceleration: -2.5, curvature: +0.01, maneuver: keep lane.'],
        trainers.BpeTrainer(vocab_size=350, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                            special_tokens=['<pad>', '<end>', '<start>', *special]))
    return t.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token='<pad>', eos_token='<end>', bos_token='<start>',
        extra_special_tokens=names)


def save_smolvlm(directory):
    """Save a SmolVLM, which cuts a frame into tiles."""
    fake, whole = '<fake_token_around_image>', '<global-img>'
    tiles = [f'<row_{row}_col_{column}>' for row in range(1, 5) for column in range(1, 5)]
    words = tokenizer('<image>', fake, whole, *tiles, image_token='<image>', fake_image_token=fake,
                      global_image_token=whole, end_of_utterance_token='<end>')
    images = t.SmolVLMImageProcessorPil(size={'longest_edge': 64},
                                        max_image_size={'longest_edge': 32})
    processor = t.SmolVLMProcessor(images, words, t.SmolVLMVideoProcessor(), image_seq_len=16,
                                   chat_template=CHAT.replace('IMAGE', '<image>'))
    # Up to transformers 5.20 the tokens of a tile have to be a multiple of the patches' size.
    config = t.SmolVLMConfig(
        vision_config={'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
                       'num_attention_heads': 2, 'image_size': 32, 'patch_size': 4},
        text_config={**TEXT, 'model_type': 'llama', 'vocab_size': len(words)},
        image_token_id=words.convert_tokens_to_ids('<image>'), scale_factor=2, pad_token_id=0)
    save(t.SmolVLMForConditionalGeneration(config), processor, directory)


def save_qwen(directory):
    """Save a Qwen2.5-VL, which takes a frame in its own shape."""
    names = {'image_token_id': '<|image_pad|>', 'video_token_id': '<|video_pad|>',
             'vision_start_token_id': '<|vision_start|>', 'vision_end_token_id': '<|vision_end|>'}
    words = tokenizer(*names.values(), image_token='<|image_pad|>')
    processor = t.Qwen2_5_VLProcessor(
        t.Qwen2VLImageProcessorPil(patch_size=14, size={'shortest_edge': 56 * 56,
                                                        'longest_edge': 112 * 112}),
        words, t.Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace('IMAGE', '<|vision_start|><|image_pad|><|vision_end|>'))
    config = t.Qwen2_5_VLConfig(
        vision_config={'depth': 2, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 4,
                       'out_hidden_size': 32, 'window_size': 56, 'fullatt_block_indexes': [1]},
        text_config={**TEXT, 'vocab_size': len(words), 'rope_parameters': {
            'rope_type': 'default', 'rope_theta': 10000.0, 'mrope_section': [1, 1, 2]}},
        **{name: words.convert_tokens_to_ids(token) for name, token in names.items()})
    save(t.Qwen2_5_VLForConditionalGeneration(config), processor, directory)


def save(model, processor, directory):
    torch.manual_seed(0)
    model.apply(model._init_weights)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
