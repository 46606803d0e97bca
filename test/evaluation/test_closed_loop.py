import json

import numpy as np
from owled_ros.driver.action import Action, Maneuver
from owled_ros.driver.driver import Driver
from owled_ros.evaluation.closed_loop import (
    drive_closed_loop,
    drive_expert,
    Outcome,
    record,
    summarise,
    Trial,
)
from owled_ros.scenes.expert import drive
from owled_ros.scenes.sampling import held_out_seeds
import pytest

SEED = held_out_seeds(1)[0]


def straight_on(acceleration, curvature=0.0):
    return Action(acceleration, curvature, Maneuver.KEEP_LANE)


def drive_with(action_of, seconds=60.0, seed=SEED):
    trial = Trial(seed)
    for _ in range(round(seconds / 0.2)):
        if not trial.over:
            trial.advance(action_of(trial))
    return trial


def test_the_expert_succeeds():
    """Of 200 drives of 60 s `owled evaluate --closed-loop` says the same."""
    outcomes = [drive_expert(seed, 60.0) for seed in held_out_seeds(6)]
    assert all(outcome.success for outcome in outcomes)
    assert min(outcome.metres for outcome in outcomes) > 300


def test_who_speeds_on_hits_the_vehicle_in_front():
    trial = drive_with(lambda trial: straight_on(2.0))
    assert trial.over and trial.outcome.vehicle_collisions == 1
    assert trial.outcome.seconds < 30 and not trial.outcome.success


def test_who_does_not_look_runs_the_red_light():
    def blind_to_lights(trial):
        scene = trial.simulation.look()
        scene.light = None
        return drive(scene).action
    trial = drive_with(blind_to_lights)
    assert trial.outcome.red_lights_run >= 1
    assert not trial.outcome.vehicle_collisions and not trial.outcome.success


def test_who_does_not_see_people_hits_one():
    def blind_to_people(trial):
        scene = trial.simulation.look()
        scene.pedestrians = []
        return drive(scene).action
    seeds = held_out_seeds(6)
    hit = [drive_with(blind_to_people, seed=seed).outcome.pedestrian_collisions for seed in seeds]
    assert sum(hit) >= 3 and set(hit) <= {0, 1}


@pytest.mark.parametrize('curvature', [0.02, -0.02])
def test_who_steers_away_leaves_the_lane_and_then_the_road(curvature):
    trial = drive_with(lambda trial: straight_on(0.0, curvature), seconds=8.0)
    assert trial.outcome.lane_departures == 1
    assert trial.over and abs(trial.simulation.ego.offset) > 1.0


def test_what_happened_can_be_written_as_json():
    trial = drive_with(lambda trial: straight_on(2.0, 0.02), seconds=4.0)
    trial.outcome.expert_metres = 30.0
    found, = json.loads(json.dumps(record([trial.outcome])))
    assert found['lane_departures'] == 1 and found['success'] is False


def test_standing_still_is_no_success():
    outcome = drive_with(lambda trial: straight_on(-8.0), seconds=20.0).outcome
    outcome.expert_metres = drive_expert(SEED, 20.0).metres
    assert outcome.faults == 0 and outcome.progress < 0.3 and not outcome.success


def test_shares_and_counts_a_drive():
    summary = summarise([Outcome(1, metres=90, expert_metres=100),
                         Outcome(2, red_lights_run=2, metres=110, expert_metres=100)])
    assert summary == pytest.approx({
        'drives': 2, 'success': 0.5, 'progress': 1.0, 'vehicle_collisions': 0.0,
        'pedestrian_collisions': 0.0, 'red_lights_run': 1.0, 'lane_departures': 0.0})


def test_the_embedded_model_drives_by_itself_and_the_same_way_again():
    driver = Driver.load('embedded')
    first, experts = drive_closed_loop(driver, 2, 1.0, processes=0)
    again, _ = drive_closed_loop(driver, 2, 1.0, processes=1)
    assert first == again
    assert [outcome.seed for outcome in first] == held_out_seeds(2)
    assert all(outcome.seconds == pytest.approx(1.0) and outcome.metres > 4 for outcome in first)
    assert np.isfinite([outcome.progress for outcome in first]).all()
    assert all(expert.success for expert in experts)
