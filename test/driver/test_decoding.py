import numpy as np
from owled_ros.driver.action import Command, EgoState, Maneuver
from owled_ros.driver.decoding import Decoder, FieldChoice, TokenTree
from owled_ros.driver.driver import Driver
from owled_ros.driver.prompt import prompt_inputs
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds, random_scene
import pytest
import torch


@pytest.fixture(scope='module')
def driver():
    return Driver.load('embedded')


@pytest.fixture(scope='module')
def frame():
    return render(random_scene(held_out_seeds(1)[0]))


def logits_for(**scores):
    logits = torch.full((10,), -100.0)
    for token, score in scores.items():
        logits[int(token[1:])] = score
    return logits


def test_a_choice_follows_the_likeliest_allowed_token():
    tree = TokenTree([([1, 2], 'a'), ([1, 3], 'b'), ([4], 'c')])
    choice = FieldChoice(tree)
    assert choice.forced() == []
    # 9 is the likeliest token, but no text of the field has it.
    assert choice.choose(logits_for(t9=50.0, t1=2.0, t4=1.0)) == 1
    assert choice.choose(logits_for(t4=9.0, t2=1.0, t3=1.0)) in (2, 3)
    assert choice.done and choice.value in ('a', 'b')
    assert choice.probability == pytest.approx(torch.softmax(torch.tensor([2.0, 1.0]), 0)[0] / 2)


def test_tokens_without_an_alternative_are_not_decided():
    choice = FieldChoice(TokenTree([([1, 2, 3], 'a')]))
    assert choice.forced() == [1, 2, 3]
    assert choice.done and choice.value == 'a' and choice.probability == 1.0


def test_two_texts_with_the_same_tokens_are_refused():
    with pytest.raises(ValueError, match='are the same as'):
        TokenTree([([1], 'a'), ([1], 'b')])


@pytest.mark.parametrize('sequences', [
    [([1], 'a'), ([1, 2], 'b')], [([1, 2], 'b'), ([1], 'a')], [([], 'a'), ([1], 'b')],
    [([1], 'b'), ([], 'a')]])
def test_a_text_with_which_another_begins_is_refused(sequences):
    """A walk down the tree would never end at it."""
    with pytest.raises(ValueError, match='tokens of a are the beginning of those of b'):
        TokenTree(sequences)


def test_scores_that_are_not_finite_are_an_error():
    choice = FieldChoice(TokenTree([([1], 'a'), ([2], 'b')]))
    with pytest.raises(FloatingPointError):
        choice.choose(torch.full((10,), torch.nan))


def test_jumping_forward_gives_the_same_logits_as_one_pass(driver, frame):
    inputs = prompt_inputs(driver.processor, driver.format, frame, EgoState(8.0), Command())
    with torch.inference_mode():
        decoder = Decoder(driver.model, inputs)
        decoder.feed([5, 6])
        decoder.next_logits()
        decoder.feed([7])
        stepwise = decoder.next_logits()[0]
        inputs['input_ids'] = torch.cat([inputs['input_ids'], torch.tensor([[5, 6, 7]])], 1)
        inputs['attention_mask'] = torch.ones_like(inputs['input_ids'])
        at_once = driver.model(**inputs).logits[0, -1]
    assert torch.allclose(stepwise, at_once, atol=1e-3)


def test_the_action_is_what_generate_answers_where_it_parses(driver, frame):
    ego, command = EgoState(8.0), Command(speed_limit=50 / 3.6)
    decision = driver.decide(frame, ego, command)
    inputs = prompt_inputs(driver.processor, driver.format, frame, ego, command)
    tokens = driver.model.generate(**inputs, do_sample=False, max_new_tokens=48)
    text = driver.processor.tokenizer.decode(tokens[0, inputs['input_ids'].shape[1]:],
                                             skip_special_tokens=True)
    stream = driver.explain(decision)
    assert stream.advance(48)
    written = ' '.join(driver.format.write_field(name, decision.action)
                       for name in ('acceleration', 'curvature', 'maneuver'))
    assert text == f' {written}. {stream.text}'


def test_an_explanation_in_slices_is_the_same_as_in_one_go(driver, frame):
    whole = driver.explain(driver.decide(frame, EgoState(8.0)))
    assert whole.advance(100)
    sliced = driver.explain(driver.decide(frame, EgoState(8.0)))
    slices = 1
    while not sliced.advance(3):
        # Another decision in between must not disturb it.
        driver.decide(frame, EgoState(2.0))
        slices += 1
    assert slices > 3
    assert sliced.text == whole.text
    assert sliced.confidence == pytest.approx(whole.confidence)


def test_whatever_the_weights_the_answer_is_an_action(driver):
    random = np.random.default_rng(3)
    for _ in range(5):
        noise = random.integers(0, 255, (120, 160, 3), np.uint8)
        action = driver.decide(noise, EgoState(random.uniform(0, 40))).action
        assert -8.0 <= action.acceleration <= 3.0
        assert -0.08 <= action.curvature <= 0.08
        assert action.maneuver in Command().allowed_maneuvers()
        assert 0.0 < action.confidence <= 1.0


def test_weights_that_are_not_finite_give_no_action(driver, frame):
    head = driver.model.lm_head.weight
    kept = head.data.clone()
    head.data.fill_(torch.nan)
    try:
        with pytest.raises(FloatingPointError):
            driver.decide(frame, EgoState(8.0))
    finally:
        head.data.copy_(kept)


def test_the_same_input_gives_the_same_action(driver, frame):
    first, second = (driver.decide(frame, EgoState(8.0)).action for _ in range(2))
    assert first == second
    assert isinstance(first.maneuver, Maneuver)
