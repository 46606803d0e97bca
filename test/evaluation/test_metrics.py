import math

import numpy as np
from owled_ros.driver.action import Action, EgoState, Maneuver
from owled_ros.evaluation.metrics import mean, measure, scores
from owled_ros.evaluation.open_loop import Answer
import pytest

RED = 'Red light 20 m ahead, no vehicle, no pedestrian: I stop because of the light.'
GREEN = ('Green light 23 m ahead, no vehicle, no pedestrian: I keep my lane because the road is '
         'free.')
CROSSING = ('No light, vehicle 9 m ahead, pedestrian in the lane 5 m ahead: I brake hard because '
            'of the pedestrian.')
WAITING = ('No light, vehicle 9 m ahead, pedestrian at the side 5 m ahead: I follow because of '
           'the vehicle.')


def answer(truth=(0, 0), given=(0, 0), true_text='', text='', speed=10.0, loss=1.0):
    return Answer(EgoState(speed), Action(*truth, Maneuver.STOP), Action(*given, Maneuver.STOP),
                  true_text, text, loss)


def said(*pairs):
    return measure([answer(true_text=truth, text=text) for truth, text in pairs], 2.7)


def test_errors_are_means_of_absolute_differences():
    metrics = measure([answer((-2.0, 0.0), (-1.0, 0.0), loss=2.0),
                       answer((1.0, 0.01), (1.0, -0.01), loss=1.0)], 2.7)
    assert metrics['frames'] == 2
    assert metrics['E_lon'] == pytest.approx(0.5)
    assert metrics['E_lat'] == pytest.approx(math.atan(0.027))
    assert metrics['L_token'] == pytest.approx(1.5)


def test_what_is_told_is_compared():
    metrics = said((RED, GREEN), (RED, RED), (CROSSING, RED), (RED, CROSSING), (RED, 'nonsense'))
    assert metrics['parse_rate'] == pytest.approx(0.8)
    assert metrics['Acc_TL'] == pytest.approx(0.2)
    assert metrics['D_TL'] == pytest.approx(1.5)
    assert metrics['E_car'] == metrics['E_ped'] == pytest.approx(0.6)
    assert metrics['cause_accuracy'] == pytest.approx(0.2)
    assert metrics['pedestrian_in_lane_found'] == 0.0
    assert metrics['pedestrian_in_lane_false_alarms'] == pytest.approx(0.25)


def test_a_pedestrian_told_at_the_side_is_a_pedestrian_but_not_in_the_lane():
    metrics = said((CROSSING, WAITING))
    assert metrics['E_ped'] == 0.0 and metrics['pedestrian_in_lane_found'] == 0.0
    assert metrics['D_lead'] == 0.0


def test_slots_are_counted_one_by_one():
    # Of eight slots the state of the light, the deed and the reason differ; 3 m of 23 is too far.
    assert said((RED, GREEN))['slot_accuracy'] == pytest.approx(4 / 8)
    assert said((RED, RED.replace('20 m', '22 m')))['slot_accuracy'] == 1.0
    assert said((CROSSING, WAITING))['slot_accuracy'] == pytest.approx(5 / 8)


@pytest.mark.parametrize('action, speed, comfortable', [
    ((-4.0, 0.0), 10.0, 1.0), ((-4.1, 0.0), 10.0, 0.0), ((2.5, 0.0), 10.0, 0.0),
    ((0.0, 0.04), 10.0, 1.0), ((0.0, -0.05), 10.0, 0.0), ((0.0, -0.05), 5.0, 1.0)])
def test_comfort_has_bounds_along_and_across(action, speed, comfortable):
    metrics = measure([answer(given=action, speed=speed)], 2.7)
    assert metrics['comfort'] == comfortable and metrics['true_comfort'] == 1.0


def test_where_nothing_is_said_nothing_is_measured_of_it():
    metrics = measure([answer()], 2.7)
    assert all(math.isnan(metrics[name]) for name in ('Acc_TL', 'E_car', 'E_ped', 'D_TL'))
    assert metrics['parse_rate'] == 1.0


def test_every_metric_is_the_mean_of_its_column():
    answers = [answer((0, 0), (1, 0), RED, GREEN), answer((0, 0), (0, 0), CROSSING, CROSSING)]
    columns = scores(answers, 2.7)
    assert all(column.shape == (2,) for column in columns.values())
    assert {name: mean(column) for name, column in columns.items()} == pytest.approx(
        {k: v for k, v in measure(answers, 2.7).items() if k != 'frames'}, nan_ok=True)
    assert np.isnan(columns['D_TL'][1]) and columns['D_TL'][0] == 3.0
