import math

import numpy as np
from owled_ros.bags.reading import Bag
from owled_ros.bags.writing import CAMERA_INFO_TOPIC
from owled_ros.driver.action import Maneuver
from owled_ros.driver.pinhole import camera_of, seen_at
from owled_ros.evaluation.sentences import read_sentence
from owled_ros.scenes.drive import Crossing, random_world, simulate
from owled_ros.scenes.expert import drive
from owled_ros.scenes.recording import record_drive
from owled_ros.scenes.render import OBJECTS, patch_labels, render
from owled_ros.scenes.sampling import held_out_seeds, random_scene
from owled_ros.scenes.scene import Camera, LENGTH, Pedestrian, Road, Scene, TrafficLight, Vehicle
import pytest


def straight(speed=10.0, **things):
    return Scene(road=Road(np.zeros(LENGTH + 20)), speed=speed, **things)


def bend(curvature, speed=10.0, **things):
    return Scene(road=Road(np.full(LENGTH + 20, curvature)), speed=speed, **things)


def test_a_point_ahead_is_in_the_middle_and_left_is_left():
    camera = Camera(width=640, height=480, mount_height=1.5)
    u, v, depth = camera.project(10.0, 0.0, 1.5)
    assert (u, v, depth) == pytest.approx((320, 240, 10))
    assert camera.project(10.0, 1.0, 1.5)[0] < 320
    assert camera.project(10.0, 0.0, 0.0)[1] > 240
    # The field of view ends at the edge of the image.
    edge = 10.0 * math.tan(camera.field_of_view / 2)
    assert camera.project(10.0, edge, 1.5)[0] == pytest.approx(0.0)


def test_a_road_of_constant_curvature_is_a_circle():
    road = Road(np.full(200, 0.02))
    x, y = road.to_ego(30.0, 0.0)
    assert (float(x), float(y)) == pytest.approx(
        (50 * math.sin(0.6), 50 * (1 - math.cos(0.6))), abs=0.02)


def test_an_ego_vehicle_left_of_the_middle_sees_the_lane_to_its_right():
    road = Road(np.zeros(200), offset=0.5)
    assert float(road.to_ego(20.0, 0.0)[1]) == pytest.approx(-0.5)
    turned = Road(np.zeros(200), heading=0.1)
    assert float(turned.to_ego(20.0, 0.0)[1]) == pytest.approx(-20 * math.sin(0.1), abs=0.05)


def test_the_expert_drives_on_where_the_road_is_free():
    verdict = drive(straight(speed=5.0))
    assert verdict.action.acceleration > 1.0
    assert verdict.action.curvature == pytest.approx(0.0, abs=1e-9)
    assert verdict.action.maneuver == Maneuver.KEEP_LANE and verdict.cause == 'free'


def test_the_expert_steers_back_and_with_the_bend():
    assert drive(Scene(Road(np.zeros(160), offset=0.5), 8.0)).action.curvature < 0
    assert drive(bend(0.02)).action.curvature == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize('things, cause', [
    ({'light': TrafficLight(20.0, 'red')}, 'light'),
    ({'vehicles': [Vehicle(12.0, speed=2.0, braking=True)]}, 'lead'),
    ({'pedestrians': [Pedestrian(15.0, 0.5)]}, 'pedestrian'),
    ({'speed_limit': 6.0}, 'limit'),
])
def test_the_expert_brakes_for(things, cause):
    verdict = drive(straight(**things))
    assert verdict.action.acceleration < -0.5
    assert verdict.cause == cause


@pytest.mark.parametrize('things', [
    {'light': TrafficLight(20.0, 'green')},
    {'pedestrians': [Pedestrian(15.0, -4.0)]},
    {'vehicles': [Vehicle(20.0, 3.5, oncoming=True)]},
])
def test_the_expert_does_not_brake_for(things):
    assert drive(straight(**things)).action.acceleration > 0


@pytest.mark.parametrize('things', [
    {'light': TrafficLight(2.0, 'red')},
    {'vehicles': [Vehicle(4.0, braking=True)]},
    {'pedestrians': [Pedestrian(5.0, 0.5)]},
])
def test_the_expert_who_stands_behind_what_stands_waits(things):
    verdict = drive(straight(speed=0.0, **things))
    assert verdict.action.acceleration <= 0 and verdict.cause != 'free'
    far = straight(speed=0.0, light=TrafficLight(8.0, 'red'))
    assert drive(far).action.acceleration > 0
    rolling = drive(straight(speed=0.0, vehicles=[Vehicle(4.0, speed=3.0)]))
    assert rolling.action.acceleration > 0


def test_the_expert_slows_down_for_a_bend():
    verdict = drive(bend(0.04, speed=12.0))
    assert verdict.cause == 'curve' and verdict.action.acceleration < -1


def test_every_sentence_can_be_read_back():
    for seed in range(300):
        scene = random_scene(seed)
        verdict = drive(scene)
        statement = read_sentence(verdict.text)
        assert statement is not None, verdict.text
        assert statement.light == (scene.light.state if scene.light else 'none')
        assert (statement.lead_distance is None) == (scene.lead is None)
        if scene.lead:
            assert statement.lead_distance == round(scene.lead.s)
            assert statement.lead_braking == scene.lead.braking


def test_the_same_seed_gives_the_same_picture():
    first, second = (render(random_scene(11)) for _ in range(2))
    assert first.shape == (240, 320, 3) and first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.array_equal(first, render(random_scene(12)))


def test_a_light_changes_the_pixels_that_it_is_labelled_in():
    red, green = (straight(light=TrafficLight(15.0, state), camera=Camera(320, 240, noise=0.0))
                  for state in ('red', 'green'))
    lights = patch_labels(red, 12)[2]
    assert set(np.unique(lights)) == {0, 1}
    assert set(np.unique(patch_labels(green, 12)[2])) == {0, 3}
    changed = np.abs(render(red).astype(int) - render(green)).sum(2) > 30
    columns = np.arange(320) * 12 // 320
    for row, column in np.argwhere(lights > 0):
        assert changed[row * 20:row * 20 + 20, columns == column].any()


@pytest.mark.parametrize('things, label', [
    ({'vehicles': [Vehicle(0.3, braking=True)]}, 'braking lead'),
    ({'pedestrians': [Pedestrian(0.3, 0.0)]}, 'pedestrian in lane'),
])
def test_what_is_almost_touched_is_still_seen(things, label):
    camera = Camera(320, 240, noise=0.0)
    assert OBJECTS.index(label) in patch_labels(straight(camera=camera, **things), 12)[0]
    changed = render(straight(camera=camera, **things)) != render(straight(camera=camera))
    assert changed.any(2).mean() > 0.2


def test_near_things_hide_far_ones_in_the_labels():
    scene = straight(vehicles=[Vehicle(8.0)], pedestrians=[Pedestrian(30.0, 0.0)],
                     camera=Camera(320, 240))
    objects, distances, _, _ = patch_labels(scene, 12)
    assert OBJECTS.index('lead') in objects
    assert OBJECTS.index('pedestrian in lane') not in objects
    assert set(np.unique(distances)) == {0.0, 8.0}


def test_no_training_seed_is_held_out():
    assert min(held_out_seeds(1000)) >= 10 ** 9


def test_a_drive_meets_everything_and_stays_in_its_lane():
    world = random_world(7, width=64, height=48)
    causes, states, offsets, speeds = set(), set(), [], []
    for moment in simulate(world, drive, 40.0):
        if moment.decided:
            causes.add(moment.verdict.cause)
            states.add(moment.scene.light.state if moment.scene.light else 'none')
            offsets.append(abs(moment.scene.road.offset))
            speeds.append(moment.ego.speed)
            assert all(v.s > 0.5 for v in moment.scene.vehicles if v.in_lane)
            assert not any(p.in_lane and p.s < 1.0 for p in moment.scene.pedestrians)
    assert {'lead', 'light', 'pedestrian', 'free'} <= causes
    assert {'red', 'green', 'amber', 'none'} <= states
    assert max(offsets) < 0.5
    assert min(speeds) < 0.05 < 8 < max(speeds)


def test_a_pedestrian_steps_out_so_that_one_can_still_stop():
    for speed in (3.0, 8.0, 16.7):
        crossing = Crossing(100.0, 4.0, Pedestrian(0.0, 0.0))
        start = 100.0 - crossing.trigger(speed)
        assert not crossing.pedestrian(0.0, start - 0.1, speed).in_lane
        assert not crossing.pedestrian(1.0, start + 0.1, speed).in_lane
        into_lane = 1.4  # s, from the kerb
        person = crossing.pedestrian(1.0 + into_lane, start + into_lane * speed, speed)
        assert person.in_lane
        assert person.s > speed ** 2 / (2 * 4.0) + 2.5


def test_the_recorded_pose_agrees_with_speed_and_yaw_rate():
    world = random_world(3, width=64, height=48)
    moments = list(simulate(world, drive, 5.0))
    way = sum(m.ego.speed * 0.02 for m in moments[1:])
    steps = [math.dist(a.pose[:2], b.pose[:2]) for a, b in zip(moments, moments[1:])]
    assert sum(steps) == pytest.approx(way, rel=1e-3)
    turned = sum(m.ego.yaw_rate * 0.02 for m in moments[1:])
    assert moments[-1].pose[2] - moments[0].pose[2] == pytest.approx(turned, abs=1e-6)


def test_the_recorded_camera_info_is_that_of_the_renderer(tmp_path):
    record_drive(tmp_path / 'bag', seconds=1.0, width=64, height=48)
    with Bag(tmp_path / 'bag') as bag:
        told, *others = (camera_of(message) for _, message in bag.messages(CAMERA_INFO_TOPIC))
    assert (told.width, told.height) == (64, 48) and set(others) == {told}
    camera = Camera(64, 48)
    for x, y, z in ((10.0, 0.0, camera.mount_height), (8.0, 2.0, 0.0), (20.0, -5.0, 3.0)):
        seen, = seen_at(told.raw, np.array([[-y / x, (camera.mount_height - z) / x]]))
        assert seen == pytest.approx(camera.project(x, y, z)[:2], abs=1e-6)
