"""Several frames in one batch get the answers that they get one by one."""

import numpy as np
from owled_ros.driver.action import Command, EgoState, Route
from owled_ros.driver.decoding import decode_fields, Decoder, TokenTree
from owled_ros.driver.driver import Driver
from owled_ros.driver.prompt import batched_prompts, teacher_forced
from owled_ros.evaluation.cases import scene_cases
import pytest
import torch


@pytest.fixture(scope='module')
def driver():
    return Driver.load('embedded')


@pytest.fixture(scope='module')
def cases():
    return list(scene_cases(6, width=320, height=240))


def questions(cases):
    return [(case.frame, case.ego, case.command) for case in cases]


def test_actions_and_explanations_are_those_of_one_by_one(driver, cases):
    together = driver.decide_all(questions(cases))
    texts = driver.explain_all(together)
    for question, decision, text in zip(questions(cases), together, texts):
        alone = driver.decide(*question)
        assert decision.action.acceleration == alone.action.acceleration
        assert decision.action.curvature == alone.action.curvature
        assert decision.action.maneuver == alone.action.maneuver
        assert decision.action.confidence == pytest.approx(alone.action.confidence, rel=1e-3)
        stream = driver.explain(alone)
        while not stream.advance(16):
            pass
        assert text == stream.text
    assert len({len(text) for text in texts}) > 1  # or rows that end early were not tried


def test_the_losses_are_those_of_one_pass_over_the_whole_answer(driver, cases):
    answers = [(case.action, case.explanation) for case in cases]
    answers[2] = (cases[2].action, '')  # a shorter one among longer ones
    for case, answer, decision in zip(cases, answers, driver.decide_all(questions(cases),
                                                                        answers)):
        inputs = teacher_forced(driver.processor, driver.format, case.frame, case.ego,
                                case.command, *answer)
        with torch.inference_mode():
            whole = driver.model(**inputs).loss
        assert float(decision.losses.mean()) == pytest.approx(float(whole), rel=1e-3)


def test_true_answers_do_not_change_what_is_decided(driver, cases):
    plain = driver.decide_all(questions(cases))
    asked = driver.decide_all(questions(cases), [(c.action, c.explanation) for c in cases])
    assert [d.action for d in plain] == [d.action for d in asked]
    assert driver.explain_all(plain) == driver.explain_all(asked)


def test_rows_of_unequal_length_do_not_disturb_each_other(driver, cases):
    """Prompts are padded on the left, and rows that are fed less in the middle."""
    fed = [[5, 6, 7], [8], []]
    batch = batched_prompts(driver.processor, driver.format, questions(cases[:3]))
    longer = torch.nn.functional.pad(batch['input_ids'], (3, 0), value=0)
    unequal = dict(batch, input_ids=longer, attention_mask=(torch.nn.functional.pad(
        batch['attention_mask'], (3, 0), value=0)))
    with torch.inference_mode():
        decoder = Decoder(driver.model, unequal)
        for row, tokens in enumerate(fed):
            decoder.feed(tokens, row)
        decoder.next_logits()
        for row in range(3):
            decoder.feed([9], row)
        together = decoder.next_logits()
        for row, tokens in enumerate(fed):
            alone = Decoder(driver.model, batched_prompts(
                driver.processor, driver.format, questions(cases[row:row + 1])))
            alone.feed(tokens + [9])
            assert torch.allclose(together[row], alone.next_logits()[0], atol=1e-3)


def test_fields_of_unequal_length_are_decoded_in_step(driver, cases):
    trees = [TokenTree([([5], 'a'), ([6, 7, 8], 'b')]), TokenTree([([6, 7, 8], 'c')]),
             TokenTree([([9, 5], 'd'), ([9, 6], 'e')])]
    batch = batched_prompts(driver.processor, driver.format, questions(cases[:3]))
    with torch.inference_mode():
        together = decode_fields(Decoder(driver.model, batch), trees)
        for row, tree in enumerate(trees):
            alone = decode_fields(Decoder(driver.model, batched_prompts(
                driver.processor, driver.format, questions(cases[row:row + 1]))), [tree])
            assert together[row][0] == alone[0][0]
            assert together[row][1] == pytest.approx(alone[0][1], rel=1e-3)


def test_a_route_of_one_row_allows_nothing_to_the_others(driver):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    commands = [Command(), Command(Route.LEFT)]
    for command, decision in zip(commands, driver.decide_all(
            [(noise, EgoState(4.0), command) for command in commands])):
        assert decision.action.maneuver in command.allowed_maneuvers()
