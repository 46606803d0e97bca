import math

import numpy as np
from owled_ros.errors import UserError
from owled_ros.scenes.expert import drive
from owled_ros.scenes.mixture import (
    driven_scenes,
    GROUP,
    Mixture,
    scene_with_people,
    standing_scene,
    training_scenes,
)
from owled_ros.scenes.render import render
import pytest


def test_the_same_group_gives_the_same_scenes():
    for group in range(4):
        first, second = (training_scenes(group, Mixture(), width=64, height=48) for _ in range(2))
        assert len(first) == GROUP
        assert [drive(scene) for scene in first] == [drive(scene) for scene in second]
        assert np.array_equal(render(first[3]), render(second[3]))


def test_kinds_come_by_their_shares():
    mixture = Mixture(random=1.0, people=1.0, standing=0.0, driven=2.0)
    kinds = [mixture.kind(group) for group in range(400)]
    assert kinds.count('driven') == pytest.approx(200, abs=40)
    assert kinds.count('random') == pytest.approx(100, abs=35)
    assert 'standing' not in kinds


@pytest.mark.parametrize('text', ['random=x', 'nothing=1', 'random=-1', 'random=0', 'random',
                                  'random=nan'])
def test_a_mixture_that_makes_no_sense_is_refused(text):
    with pytest.raises(UserError):
        Mixture.parse(text)
    assert Mixture.parse('random=1, driven=0.5') == Mixture(1.0, 0.0, 0.0, 0.5)


def test_half_of_the_scenes_with_people_have_one_in_the_lane_and_many_are_far():
    scenes = [scene_with_people(seed) for seed in range(400)]
    crossing = [s.pedestrian for s in scenes if s.pedestrian and s.pedestrian.in_lane]
    assert 0.45 < len(crossing) / len(scenes) < 0.65
    assert np.mean([person.s > 25 for person in crossing]) > 0.25
    assert np.mean([s.light is not None and s.light.s > 25 for s in scenes]) > 0.4
    edge = [p for s in scenes for p in s.pedestrians if 1.5 <= abs(p.d) < 2.2]
    assert len(edge) > 40


def test_who_stands_must_stay_or_start():
    scenes = [standing_scene(seed) for seed in range(300)]
    assert max(scene.speed for scene in scenes) <= 1.0
    accelerations = np.array([drive(scene).action.acceleration for scene in scenes])
    assert (accelerations > 1.0).mean() > 0.25 and (accelerations <= 0.0).mean() > 0.25
    assert {'light', 'lead', 'pedestrian', 'free'} <= {drive(scene).cause for scene in scenes}


def test_a_disturbed_drive_gets_where_the_expert_does_not_and_is_told_the_way_back():
    scenes = [scene for seed in range(5) for scene in driven_scenes(seed, 40)]
    off = [scene for scene in scenes if abs(scene.road.offset) > 0.4]
    assert len(off) > 0.03 * len(scenes)
    straight = [s for s in off if np.abs(s.road.curvature[:20]).max() < 1e-3
                and s.road.offset * s.road.heading >= 0]
    assert all(s.road.offset * drive(s).action.curvature < 0 for s in straight)
    assert any(math.isnan(s.speed_limit) for s in scenes)
    assert all(s.lead is None or s.lead.s >= 0 for s in scenes)
