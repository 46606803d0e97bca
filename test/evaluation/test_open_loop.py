import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.driver.driver import Driver
from owled_ros.evaluation.cases import Case, scene_cases
from owled_ros.evaluation.metrics import measure
from owled_ros.evaluation.open_loop import ask, time_driver
from owled_ros.evaluation.sentences import read_sentence
import pytest

CROSSING = ('No light, vehicle 9 m ahead, pedestrian in the lane 5 m ahead: I brake hard because '
            'of the pedestrian.')


def test_a_sentence_is_read():
    statement = read_sentence(CROSSING)
    assert statement.light == 'none' and statement.light_distance is None
    assert statement.lead_distance == 9 and not statement.lead_braking
    assert (statement.pedestrian, statement.pedestrian_distance) == ('in the lane', 5)
    assert (statement.deed, statement.reason) == ('I brake hard', 'of the pedestrian')
    assert read_sentence('I see nothing.') is None
    assert read_sentence('') is None


def test_scene_cases_are_held_out_and_the_same_each_time():
    first, second = list(scene_cases(2, width=64, height=48)), list(
        scene_cases(2, width=64, height=48))
    assert np.array_equal(first[1].frame, second[1].frame)
    assert first[0].frame.shape == (48, 64, 3)
    assert read_sentence(first[0].explanation) is not None


def test_a_blind_case_shows_grey():
    case = Case(np.zeros((4, 4, 3), np.uint8), EgoState(1.0), Command(),
                Action(0, 0, Maneuver.STOP)).blind()
    assert (case.frame == 128).all()


def test_the_embedded_model_sees():
    """A few scenes only; `owled evaluate embedded` measures a thousand."""
    driver = Driver.load('embedded')
    cases = list(scene_cases(60))
    seeing = measure(ask(driver, cases), 2.7)
    blind = measure(ask(driver, (case.blind() for case in cases), explain=False), 2.7)
    assert seeing['parse_rate'] == 1.0
    assert seeing['E_lon'] < 0.5 * blind['E_lon']
    assert seeing['E_lat'] < 0.6 * blind['E_lat']
    assert seeing['Acc_TL'] > 0.8
    assert seeing['L_token'] < 0.5 * blind['L_token']


def test_batches_change_nothing_but_the_time():
    driver = Driver.load('embedded')
    cases = list(scene_cases(5, width=320, height=240))
    ones, twos = (ask(driver, cases, batch=batch) for batch in (1, 2))
    for one, two in zip(ones, twos):
        assert (one.text, one.action.maneuver) == (two.text, two.action.maneuver)
        assert one.token_loss == pytest.approx(two.token_loss, rel=1e-3)


def test_latencies_are_those_of_single_frames():
    latency = time_driver(Driver.load('embedded'), scene_cases(5, width=64, height=48), frames=2)
    assert 0 < latency['seconds_to_action_p50'] <= latency['seconds_to_action_p95']
    assert latency['seconds_to_explanation_p50'] > latency['seconds_to_action_p50']
