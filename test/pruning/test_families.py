"""Tiny models of many families: structure found, pruned, loaded by plain transformers."""

import json
from pathlib import Path
import sys

import numpy as np
from PIL import Image
import pytest
import torch
import transformers as t
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

sys.path.insert(0, str(Path(__file__).parent))
from owled_ros.corpora import read_images  # noqa: E402, I100
from owled_ros.errors import UserError  # noqa: E402
from owled_ros.pruning import prune, PruningSettings  # noqa: E402
from owled_ros.pruning.lane import labels_of  # noqa: E402
from processors import PROCESSORS  # noqa: E402

IMAGE, START, END = 99, 97, 98
TEXT = {'vocab_size': 100, 'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
        'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 256}
SIGLIP = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
          'num_attention_heads': 4, 'image_size': 32, 'patch_size': 8}
ROPE = {'rope_type': 'default', 'rope_theta': 10000.0, 'mrope_section': [1, 1, 2]}


def words(draw, images: int, **more) -> dict:
    text = torch.randint(3, 90, (1, 7), generator=draw)
    ids = torch.cat([torch.tensor([[START]]), torch.full((1, images), IMAGE),
                     torch.tensor([[END]]), text], 1)
    return {'input_ids': ids, 'attention_mask': torch.ones_like(ids), **more}


def pixels(draw, *shape):
    return torch.randn(shape, generator=draw)


def llava():
    config = t.LlavaConfig(
        vision_config=t.SiglipVisionConfig(**SIGLIP),   # with a head that nobody reads
        text_config=t.LlamaConfig(**TEXT), image_token_index=IMAGE, vision_feature_layer=-2,
        vision_feature_select_strategy='full', image_seq_length=16)
    return (t.LlavaForConditionalGeneration(config),
            lambda draw: words(draw, 16, pixel_values=pixels(draw, 1, 3, 32, 32)))


def llava_of_several_depths():
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**SIGLIP), text_config=t.LlamaConfig(**TEXT),
        image_token_index=IMAGE, vision_feature_layer=[1, -1], image_seq_length=16,
        vision_feature_select_strategy='default')
    return (t.LlavaForConditionalGeneration(config),
            lambda draw: words(draw, 16, pixel_values=pixels(draw, 1, 3, 32, 32)))


def llava_onevision():
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=t.Qwen2Config(**TEXT, tie_word_embeddings=True), image_token_index=IMAGE,
        image_grid_pinpoints=[[32, 32]], vision_feature_layer=-1, tie_word_embeddings=True)
    return (t.LlavaOnevisionForConditionalGeneration(config),
            lambda draw: words(draw, 36, pixel_values=pixels(draw, 1, 2, 3, 32, 32),
                               image_sizes=torch.tensor([[32, 32]])))


def smolvlm():
    # Up to transformers 5.20 the tokens of a tile have to be a multiple of the patches' size.
    config = t.SmolVLMConfig(
        vision_config=t.SmolVLMVisionConfig(**{**SIGLIP, 'patch_size': 4}).to_dict(),
        text_config=t.LlamaConfig(**TEXT, pad_token_id=0).to_dict(), image_token_id=IMAGE,
        scale_factor=2)
    return (t.SmolVLMForConditionalGeneration(config),
            lambda draw: words(draw, 32, pixel_values=pixels(draw, 1, 2, 3, 32, 32)))


def idefics3():
    config = t.Idefics3Config(
        vision_config=t.Idefics3VisionConfig(**SIGLIP).to_dict(),
        text_config=t.LlamaConfig(**TEXT, pad_token_id=0).to_dict(), image_token_id=IMAGE,
        scale_factor=2)
    return (t.Idefics3ForConditionalGeneration(config),
            lambda draw: words(draw, 4, pixel_values=pixels(draw, 1, 1, 3, 32, 32)))


def patches(draw, size=14):
    """Make inputs as the Qwen processors give: 8 x 8 patches of one image, merged by two."""
    return words(draw, 16, pixel_values=pixels(draw, 64, 3 * 2 * size * size),
                 image_grid_thw=torch.tensor([[1, 8, 8]]))


def typed_patches(draw, size=14):
    made = patches(draw, size)
    return {**made, 'mm_token_type_ids': (made['input_ids'] == IMAGE).int()}


QWEN_IDS = {'image_token_id': IMAGE, 'video_token_id': 96, 'vision_start_token_id': START,
            'vision_end_token_id': END}


def qwen2_vl():
    config = t.Qwen2VLConfig(
        vision_config={'depth': 3, 'embed_dim': 32, 'hidden_size': 32, 'num_heads': 4},
        text_config={**TEXT, 'rope_parameters': ROPE}, **QWEN_IDS)
    return t.Qwen2VLForConditionalGeneration(config), typed_patches


def qwen2_5_vl():
    config = t.Qwen2_5_VLConfig(
        vision_config={'depth': 3, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 4,
                       'out_hidden_size': 32, 'window_size': 56, 'fullatt_block_indexes': [1]},
        text_config={**TEXT, 'rope_parameters': ROPE}, **QWEN_IDS)
    return t.Qwen2_5_VLForConditionalGeneration(config), typed_patches


def qwen3_vl():
    config = t.Qwen3VLConfig(
        vision_config={'depth': 4, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 4,
                       'out_hidden_size': 32, 'deepstack_visual_indexes': [0, 2],
                       'num_position_embeddings': 64},
        text_config={**TEXT, 'head_dim': 8, 'rope_parameters': ROPE}, **QWEN_IDS)
    return (t.Qwen3VLForConditionalGeneration(config),
            lambda draw: typed_patches(draw, config.vision_config.patch_size))


def paligemma():
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**SIGLIP, vision_use_head=False).to_dict(),
        text_config=t.GemmaConfig(**TEXT, head_dim=8).to_dict(), image_token_index=IMAGE,
        projection_dim=32)
    return (t.PaliGemmaForConditionalGeneration(config),
            lambda draw: words(draw, 16, pixel_values=pixels(draw, 1, 3, 32, 32)))


def internvl():
    vision = {**SIGLIP, 'image_size': [32, 32], 'patch_size': [8, 8]}
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**vision).to_dict(),
        text_config=t.Qwen2Config(**TEXT).to_dict(), image_token_id=IMAGE, image_seq_length=4)
    return (t.InternVLForConditionalGeneration(config),
            lambda draw: words(draw, 4, pixel_values=pixels(draw, 1, 3, 32, 32)))


def text_only(draw):
    return {'input_ids': torch.randint(3, 90, (1, 12), generator=draw)}


def llama():
    return t.LlamaForCausalLM(t.LlamaConfig(**TEXT, tie_word_embeddings=True)), text_only


def qwen2():
    return t.Qwen2ForCausalLM(t.Qwen2Config(**TEXT)), text_only


def qwen3():
    return t.Qwen3ForCausalLM(t.Qwen3Config(**TEXT, head_dim=8)), text_only


def fused():
    """Make a model whose query, key and value are one projection, and gate and up another."""
    config = t.Phi3Config(**TEXT, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return t.Phi3ForCausalLM(config), text_only


VISION = {llava: 3, llava_of_several_depths: 3, llava_onevision: 3, smolvlm: 3, idefics3: 3,
          qwen2_vl: 3, qwen2_5_vl: 3, qwen3_vl: 4, paligemma: 3, internvl: 3,
          llama: 0, qwen2: 0, qwen3: 0, fused: 0}


MULTIMODAL = ['multi_modal_projector.linear_1', 'multi_modal_projector.linear_2']
CONNECTOR = ['connector.modality_projection.proj']
MERGER = ['visual.merger.mlp.0', 'visual.merger.mlp.2']
PROJECTOR = {
    llava: MULTIMODAL, llava_of_several_depths: MULTIMODAL, llava_onevision: MULTIMODAL,
    smolvlm: CONNECTOR, idefics3: CONNECTOR, qwen2_vl: MERGER, qwen2_5_vl: MERGER,
    qwen3_vl: [f'visual.{merger}.linear_fc{number}' for merger in (
        'deepstack_merger_list.0', 'deepstack_merger_list.1', 'merger') for number in (1, 2)],
    paligemma: ['multi_modal_projector.linear'], internvl: MULTIMODAL}


def load(directory, vision):
    auto = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    return auto.from_pretrained(directory, dtype=torch.float32).eval()


@torch.no_grad()
def reference(model, samples, found):
    """Prune half of every row of the blocks' projections by Wanda, with whole forwards."""
    for block in found:
        squares, hooks = {}, []
        for projection in block['projections']:
            def hook(module, args, name=projection['name']):
                x = args[0].reshape(-1, module.in_features).double()
                squares[name] = squares.get(name, 0) + x.square().sum(0)
            linear = model.get_submodule(projection['name'])
            hooks.append(linear.register_forward_pre_hook(hook))
        for sample in samples:
            model(**sample)
        for hook in hooks:
            hook.remove()
        for name, square in squares.items():
            weight = model.get_submodule(name).weight
            order = torch.argsort(weight.abs() * square.sqrt().float(), dim=1, stable=True)
            weight.scatter_(1, order[:, :weight.shape[1] // 2], 0)


@pytest.mark.parametrize('family', VISION, ids=lambda family: family.__name__)
def test_a_family_is_pruned_and_loads_again(family, tmp_path):
    torch.manual_seed(0)
    model, sample = family()
    model.eval().save_pretrained(tmp_path / 'model')
    draw = torch.Generator().manual_seed(0)
    samples = [sample(draw) for _ in range(4)]
    record = prune(tmp_path / 'model', samples,
                   PruningSettings(method='wanda', allocation='uniform', statistics='sequential',
                                   components='all'),
                   tmp_path / 'out', progress=lambda line: None)
    components = [block['component'] for block in record['blocks']]
    assert components.count('vision') == VISION[family]
    assert components.count('language') == 3
    between = [p['name'] for block in record['blocks'] if block['component'] == 'projector'
               for p in block['projections']]
    assert between == [f'model.{name}' for name in PROJECTOR.get(family, [])]
    assert all(block['output_error'] > 0 for block in record['blocks'])
    loaded = load(tmp_path / 'out', VISION[family])
    expected = load(tmp_path / 'model', VISION[family])
    reference(expected, samples, record['blocks'])
    pruned = {p['name'] for block in record['blocks'] for p in block['projections']}
    for name in pruned:
        weights = loaded.get_submodule(name).weight, expected.get_submodule(name).weight
        assert torch.equal(*weights), name
    for draw_sample in samples:
        with torch.no_grad():
            assert torch.equal(loaded(**draw_sample).logits, expected(**draw_sample).logits)
    dense = load(tmp_path / 'model', VISION[family])
    assert record['loss']['dense'] == pytest.approx(loss(dense, samples), rel=1e-4)
    assert record['loss']['pruned'] == pytest.approx(loss(loaded, samples), rel=1e-4)
    head = '' if loaded.get_output_embeddings().weight is \
        loaded.get_input_embeddings().weight else ',head'
    by_default = prune(tmp_path / 'model', samples, PruningSettings(components=f'all{head}'),
                       tmp_path / 'default', progress=lambda line: None)
    assert by_default['sparsity']['measured'] == pytest.approx(0.5, abs=1e-3)
    refitted = load(tmp_path / 'default', VISION[family])
    assert by_default['loss']['pruned'] == pytest.approx(loss(refitted, samples), rel=1e-4)


@torch.no_grad()
def loss(model, samples):
    total, count = 0.0, 0
    for sample in samples:
        labels = labels_of(sample, model.config)[0, 1:]
        total += float(torch.nn.functional.cross_entropy(
            model(**sample).logits[0, :-1], labels, ignore_index=-100, reduction='sum'))
        count += int((labels != -100).sum())
    return total / count


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    draw = np.random.default_rng(0)
    for name in range(6):
        picture = draw.integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(picture).save(folder / f'{name}.png')
    (folder / 'metadata.jsonl').write_text('\n'.join(
        json.dumps({'file_name': f'{name}.png', 'text': f'road {name}'}) for name in range(6)))
    return folder


@pytest.mark.parametrize('family', [f for f in VISION if f.__name__ in PROCESSORS],
                         ids=lambda family: family.__name__)
def test_a_family_is_pruned_on_what_its_processor_gives(family, tmp_path, photos):
    torch.manual_seed(0)
    family()[0].eval().save_pretrained(tmp_path / 'model')
    PROCESSORS[family.__name__]().save_pretrained(tmp_path / 'model')
    data = read_images(tmp_path / 'model', photos, samples=4, held_out=1)
    record = prune(tmp_path / 'model', data.inputs, PruningSettings(components='all'),
                   tmp_path / 'out', held_out=data.held_out, progress=lambda line: None)
    asked = {tuple(ids[ids != -100].tolist()) for ids in (s['labels'] for s in data.inputs)}
    assert len(asked) == 4 and all(len(answer) == 7 for answer in asked)    # road 1</s>
    again = read_images(tmp_path / 'out', photos, samples=4, held_out=1)
    assert all(torch.equal(sample[name], other[name]) for name in data.inputs[0]
               for sample, other in zip(data.inputs, again.inputs))
    pruned = load(tmp_path / 'out', VISION[family])
    assert record['loss']['pruned'] == pytest.approx(loss(pruned, data.held_out), rel=1e-4)


def test_grouped_experts_are_refused(tmp_path):
    config = t.MixtralConfig(**TEXT, num_local_experts=2)
    t.MixtralForCausalLM(config).save_pretrained(tmp_path / 'model')
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match='experts in .* are grouped'):
        prune(tmp_path / 'model', [text_only(draw) for _ in range(4)], PruningSettings(),
              tmp_path / 'out', progress=lambda line: None)
