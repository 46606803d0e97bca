import math

import numpy as np
import pytest

from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.driver.driver import Driver
from owled_ros.evaluation.cases import Case, scene_cases
from owled_ros.evaluation.open_loop import Answer, ask, measure
from owled_ros.evaluation.sentences import read_sentence

RED = 'Red light 20 m ahead, no vehicle, no pedestrian: I stop because of the light.'
GREEN = 'Green light 23 m ahead, no vehicle, no pedestrian: I keep my lane because the road is free.'
CROSSING = ('No light, vehicle 9 m ahead, pedestrian in the lane 5 m ahead: I brake hard because '
            'of the pedestrian.')


def answer(truth, given, true_text='', text=''):
    return Answer(Action(*truth, Maneuver.STOP), Action(*given, Maneuver.STOP), true_text, text,
                  0.01)


def test_a_sentence_is_read():
    statement = read_sentence(CROSSING)
    assert statement.light == 'none' and statement.light_distance is None
    assert statement.lead_distance == 9 and not statement.lead_braking
    assert (statement.pedestrian, statement.pedestrian_distance) == ('in the lane', 5)
    assert (statement.deed, statement.reason) == ('I brake hard', 'of the pedestrian')
    assert read_sentence('I see nothing.') is None
    assert read_sentence('') is None


def test_errors_are_means_of_absolute_differences():
    metrics = measure([answer((-2.0, 0.0), (-1.0, 0.0)), answer((1.0, 0.01), (1.0, -0.01))], 2.7)
    assert metrics['mae_acceleration'] == pytest.approx(0.5)
    assert metrics['mae_curvature'] == pytest.approx(0.01)
    assert metrics['mae_steering'] == pytest.approx(math.atan(0.027))


def test_what_is_said_is_compared():
    metrics = measure([
        answer((0, 0), (0, 0), RED, GREEN), answer((0, 0), (0, 0), RED, RED),
        answer((0, 0), (0, 0), CROSSING, RED), answer((0, 0), (0, 0), RED, CROSSING),
        answer((0, 0), (0, 0), RED, 'nonsense')], 2.7)
    assert metrics['parsed'] == pytest.approx(0.8)
    assert metrics['light_accuracy'] == pytest.approx(0.2)
    assert metrics['light_distance_mae'] == pytest.approx(1.5)
    assert metrics['pedestrian_in_lane_found'] == 0.0
    assert metrics['pedestrian_in_lane_false_alarms'] == pytest.approx(0.25)


def test_where_nothing_is_said_nothing_is_measured_of_it():
    metrics = measure([answer((0, 0), (0, 0))], 2.7)
    assert math.isnan(metrics['light_accuracy'])
    assert metrics['parsed'] == 1.0


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
    assert seeing['parsed'] == 1.0
    assert seeing['mae_acceleration'] < 0.5 * blind['mae_acceleration']
    assert seeing['mae_steering'] < 0.6 * blind['mae_steering']
    assert seeing['light_accuracy'] > 0.8
