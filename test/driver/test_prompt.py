from dataclasses import replace
import math

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, Maneuver, Route
from owled_ros.driver.checkpoint import load_processor, locate
from owled_ros.driver.prompt import (
    answer_tokens,
    answered,
    DrivingFormat,
    extend,
    field_tree,
    NumberFormat,
    prompt_inputs,
    teacher_forced,
)
from owled_ros.errors import UserError
import pytest
import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

FRAME = np.full((48, 64, 3), 90, np.uint8)


@pytest.fixture(scope='module')
def processor():
    return load_processor(locate('embedded'))


@pytest.fixture(scope='module')
def embedded_format():
    return DrivingFormat.of_model(locate('embedded'))


def test_numbers_are_clipped_rounded_and_signed():
    numbers = NumberFormat(-8.0, 3.0, 0.1, signed=True)
    assert numbers.write(-2.449) == '-2.4'
    assert numbers.write(0.04) == '+0.0'
    assert numbers.write(-0.04) == '+0.0'
    assert numbers.write(-99) == '-8.0'
    assert NumberFormat(0, 130, 10, scale=3.6).write(50 / 3.6) == '50'
    assert NumberFormat(-0.08, 0.08, 0.001, signed=True).write(0.0123) == '+0.012'


def test_the_choices_of_a_number_are_what_it_can_write():
    numbers = NumberFormat(-1.0, 1.0, 0.5, signed=True)
    assert numbers.choices() == [('-1.0', -1.0), ('-0.5', -0.5), ('+0.0', 0.0), ('+0.5', 0.5),
                                 ('+1.0', 1.0)]
    for text, value in NumberFormat(0, 130, 10, scale=3.6).choices():
        assert NumberFormat(0, 130, 10, scale=3.6).write(value) == text


@pytest.mark.parametrize('wrong', [(1.0, 0.0, 0.1), (0.0, 1.0, 0.0), (0.0, 1e9, 0.1)])
def test_number_formats_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError):
        NumberFormat(*wrong)


def test_the_prompt_says_speed_limit_and_route(embedded_format):
    text = embedded_format.prompt_text(EgoState(8.3), Command(Route.FOLLOW, 50 / 3.6))
    assert text == '{image} speed 8.5 limit 50 route follow action'
    assert 'limit unknown' in embedded_format.prompt_text(EgoState(8.3), Command())


@pytest.mark.parametrize('speed, told', [
    (0.0, '0.0'), (0.05, '0.0'), (0.06, '0.5'), (0.2, '0.5'), (0.6, '0.5'), (0.8, '1.0'),
    (-0.3, '0.0')])
def test_a_vehicle_that_rolls_is_not_told_to_stand(embedded_format, speed, told):
    # A step of 0.5 m/s: rounded to 0, 0.2 m/s would go on for ever.
    assert f'speed {told} limit' in embedded_format.prompt_text(EgoState(speed), Command())


def test_a_vehicle_that_rolls_is_told_in_the_formats_own_unit():
    kmh = DrivingFormat(prompt='{speed} km/h', speed=NumberFormat(0, 200, 1, scale=3.6))
    assert kmh.prompt_text(EgoState(0.1), Command()) == '1 km/h'
    assert kmh.prompt_text(EgoState(0.0), Command()) == '0 km/h'


@pytest.mark.parametrize('numbers, told', [
    (NumberFormat(0, 200, 10, scale=3.6), '0'),     # 10 km/h is not what it drives
    (NumberFormat(-0.3, 60, 0.5), '0.2')])          # has no 0
def test_other_steps_are_told_as_they_are(numbers, told):
    speed = DrivingFormat(prompt='{speed}', speed=numbers)
    assert speed.prompt_text(EgoState(0.1), Command()) == told


def test_a_teacher_forced_exchange_is_prompt_and_answer(processor, embedded_format):
    action = Action(-2.4, 0.0123, Maneuver.STOP)
    sentence = ('Red light 23 m ahead, no vehicle, no pedestrian: I stop because of the light.')
    inputs = teacher_forced(processor, embedded_format, FRAME, EgoState(8.3), Command(), action,
                            sentence)
    asked = prompt_inputs(processor, embedded_format, FRAME, EgoState(8.3), Command())
    length = asked['input_ids'].shape[1]
    assert torch.equal(inputs['input_ids'][:, :length], asked['input_ids'])
    answer = processor.tokenizer.decode(inputs['input_ids'][0, length:])
    assert answer == f' -2.4 +0.012 stop. {sentence}</s>'
    assert inputs['attention_mask'].shape == inputs['input_ids'].shape
    assert (inputs['labels'][0, :length] == -100).all()
    assert torch.equal(inputs['labels'][0, length:], inputs['input_ids'][0, length:])
    assert processor.tokenizer.unk_token_id not in inputs['input_ids']


def test_without_an_explanation_the_answer_ends_at_the_action(processor, embedded_format):
    tokens = answer_tokens(processor, embedded_format, Action(1.0, 0.0, Maneuver.FOLLOW), '')
    assert processor.tokenizer.decode(tokens) == ' +1.0 +0.000 follow.'


def test_a_chat_template_is_used_where_the_processor_has_one(processor):
    foreign = DrivingFormat()
    processor.chat_template = (
        "{% for m in messages %}user:{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}assistant:")
    try:
        inputs = prompt_inputs(processor, foreign, FRAME, EgoState(8.3), Command())
    finally:
        processor.chat_template = None
    ids = inputs['input_ids'][0]
    side = processor.image_processor.crop_size['height'] // processor.patch_size
    assert int((ids == processor.image_token_id).sum()) == side * side
    assert ids[0] != processor.image_token_id  # the template's words come first


def test_per_token_tensors_grow_with_the_tokens():
    inputs = {'input_ids': torch.ones(1, 3, dtype=torch.long),
              'attention_mask': torch.ones(1, 3, dtype=torch.long),
              'token_type_ids': torch.tensor([[1, 1, 0]]),      # as of Gemma 3
              'pixel_values': torch.ones(1, 3)}
    longer = extend(inputs, torch.tensor([[7, 8]]))
    assert longer['input_ids'].tolist() == [[1, 1, 1, 7, 8]]
    assert longer['attention_mask'].tolist() == [[1, 1, 1, 1, 1]]
    assert longer['token_type_ids'].tolist() == [[1, 1, 0, 0, 0]]
    assert longer['pixel_values'].shape == (1, 3)


def test_paligemma_reads_an_answer_from_left_to_right():
    config = PaliGemmaConfig(
        vision_config={'model_type': 'siglip_vision_model', 'hidden_size': 16, 'image_size': 8,
                       'intermediate_size': 16, 'num_hidden_layers': 1, 'patch_size': 4,
                       'num_attention_heads': 2, 'vision_use_head': False},
        text_config={'model_type': 'gemma', 'vocab_size': 20, 'hidden_size': 16, 'head_dim': 8,
                     'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
                     'num_key_value_heads': 1},
        projection_dim=16, image_token_index=19, image_token_id=19)
    model = PaliGemmaForConditionalGeneration(config).eval()
    prompt = {'input_ids': torch.tensor([[19] * 4 + [1, 2]]),
              'token_type_ids': torch.zeros(1, 6, dtype=torch.long),
              'attention_mask': torch.ones(1, 6, dtype=torch.long),
              'pixel_values': torch.ones(1, 3, 8, 8)}
    with torch.no_grad():
        one, other = (model(**answered(prompt, answer)).logits[0] for answer in ([5, 6], [5, 7]))
    assert torch.equal(one[:-1], other[:-1]) and not torch.equal(one[-1], other[-1])


def test_a_format_survives_its_file(tmp_path, embedded_format):
    embedded_format.write(tmp_path)
    assert DrivingFormat.of_model(tmp_path) == embedded_format


def test_a_model_without_a_format_is_asked_in_plain_words(tmp_path):
    assert DrivingFormat.of_model(tmp_path) == DrivingFormat()


@pytest.mark.parametrize('content, complaint', [
    ({'nonsense': 1}, 'nonsense'),
    ({'prompt': 'at {speed.__class__}'}, 'speed.__class__'),
    ({'prompt': 'at {altitude}'}, 'altitude'),
    ({'prompt': 'at {speed'}, 'cannot be read'),
    ({'prompt': 'at {speed:9}'}, 'not lay them out'),
    ({'answer': '{curvature} {acceleration} {maneuver} {explanation}'}, 'in this order'),
    ({'answer': '{acceleration} {curvature} {maneuver} {explanation} over'}, 'end with'),
    ({'speed': {'minimum': 0}}, 'must give maximum'),
    ({'speed': 3}, 'speed'),
    ({'chat': 'yes'}, 'chat'),
    ({'maneuvers': {'keep_lane': 'go'}}, 'maneuvers'),
])
def test_a_wrong_format_is_refused_with_a_sentence(content, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        DrivingFormat.from_dict(content)
    assert '\n' not in str(refusal.value)


def test_braces_that_are_meant():
    form = DrivingFormat(prompt='{{{speed}}}', answer=(
        '{{"a": {acceleration}, "c":{curvature} , {{{{ {maneuver}}}\n{explanation}'))
    assert form.prompt_text(EgoState(8.3), Command()) == '{8.3}'
    assert form.answer_parts() == [
        ('{"a":', ' ', 'acceleration'), (', "c":', '', 'curvature'), (' , {{', ' ', 'maneuver'),
        ('}\n', '', 'explanation')]


def test_texts_that_the_tokenizer_does_not_tell_apart_are_refused(processor, embedded_format):
    """Its tokens are words: it knows whole numbers, and no step of 0.25."""
    finer = replace(embedded_format, acceleration=NumberFormat(-8, 3, 0.25, signed=True))
    with pytest.raises(UserError, match=r"acceleration '-8.00' are the same as those of '-7.75'"):
        field_tree(processor, finer, 'acceleration', ' ', Command())


def test_a_text_with_which_another_begins_is_refused():
    class Letters:

        def tokenizer(self, text, add_special_tokens):
            return {'input_ids': [ord(letter) for letter in text]}

    whole = replace(DrivingFormat(), acceleration=NumberFormat(-20, 20, 1, signed=True))
    with pytest.raises(UserError, match=r"acceleration '-2' are the beginning of those of '-20'"):
        field_tree(Letters(), whole, 'acceleration', ' ', Command())
    assert field_tree(Letters(), DrivingFormat(), 'acceleration', ' ', Command()).children


def test_speed_limits_that_are_not_known_are_nan():
    assert math.isnan(Command().speed_limit)
