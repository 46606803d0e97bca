"""Random scenes: what the embedded model learns from, and what it is measured on."""

import math

import numpy as np
from owled_ros.scenes.expert import obstacles
from owled_ros.scenes.scene import (
    Camera,
    LENGTH,
    Pedestrian,
    Road,
    Scene,
    STEP,
    TrafficLight,
    Vehicle,
    Weather,
)

SPEED_LIMITS = tuple(kmh / 3.6 for kmh in (30, 40, 50, 60))


def random_scene(seed, *, width=320, height=240):
    """Return the scene of a seed; the same seed gives the same scene everywhere."""
    random = np.random.default_rng(seed)
    speed = 0.0 if random.random() < 0.06 else float(random.uniform(0, 17))
    road = random_road(random, speed)
    scene = Scene(road=road, speed=speed, seed=int(seed) % (1 << 32),
                  camera=random_camera(random, width, height), weather=random_weather(random))
    if random.random() < 0.6:
        scene.speed_limit = float(random.choice(SPEED_LIMITS))
    if random.random() < 0.5:
        scene.light = TrafficLight(s=float(random.uniform(1, 55)),
                                   state=str(random.choice(['red', 'amber', 'green'],
                                                           p=[0.45, 0.2, 0.35])))
    scene.vehicles = random_vehicles(random, scene)
    scene.pedestrians = random_pedestrians(random, scene)
    if random.random() < 0.6:
        slow_to_stop_in_time(scene)
    return scene


def slow_to_stop_in_time(scene, braking=4.0):
    """Lower the speeds to what a driver has who saw the obstacles coming."""
    nearest = min((gap for gap, _ in obstacles(scene).values()), default=math.inf)
    speed = min(scene.speed, math.sqrt(2 * braking * max(nearest, 0)))
    if scene.lead is not None and scene.speed > 0:
        scene.lead.speed *= speed / scene.speed
    scene.speed = speed


def random_road(random, speed):
    """Return a road whose curvature grows or falls linearly over at most two pieces."""
    sharpest = min(0.035, 3.5 / max(speed, 6) ** 2)
    bends = random.uniform(-sharpest, sharpest, 3) * (random.random(3) < 0.6)
    knots = [0, random.uniform(15, 50), LENGTH]
    curvature = np.interp(np.arange(LENGTH + 20) * STEP, knots, bends)
    return Road(curvature=curvature, offset=float(np.clip(random.normal(0, 0.35), -1, 1)),
                heading=float(np.clip(random.normal(0, 0.03), -0.1, 0.1)),
                lane_width=float(random.uniform(3.2, 3.8)),
                lanes_left=int(random.random() < 0.8) + int(random.random() < 0.2),
                lanes_right=int(random.random() < 0.2))


def random_camera(random, width, height):
    return Camera(width=width, height=height, mount_height=float(random.uniform(1.25, 1.65)),
                  pitch=float(random.normal(0.0, 0.015)), noise=float(random.uniform(1, 7)))


def random_weather(random):
    daylight = 1.0 if random.random() < 0.6 else float(random.uniform(0, 1))
    foggy = random.random() < 0.15
    cloud = random.uniform(0, 1)
    sky = (1 - cloud) * np.array([130, 175, 230]) + cloud * np.array([185, 190, 195])
    dry = random.uniform(0, 1)
    ground = (1 - dry) * np.array([85, 120, 65]) + dry * np.array([150, 135, 100])
    asphalt = np.full(3, random.uniform(65, 115)) + random.uniform(-4, 4, 3)
    return Weather(
        daylight=daylight, visibility=float(random.uniform(90, 250) if foggy else 800),
        rain=float(random.uniform(0, 1)) if random.random() < 0.2 else 0.0,
        warmth=float(random.uniform(-1, 1)), sky=tuple(sky), ground=tuple(ground),
        asphalt=tuple(asphalt))


def random_vehicles(random, scene):
    vehicles = []
    if random.random() < 0.5:
        vehicles.append(random_lead(random, scene))
    lane = scene.road.lane_width
    if scene.road.lanes_left:
        for _ in range(random.integers(0, 3)):
            vehicles.append(Vehicle(s=float(random.uniform(6, 70)),
                                    d=lane * scene.road.lanes_left + float(random.normal(0, .2)),
                                    oncoming=True, **random_body(random)))
    if scene.road.lanes_right and random.random() < 0.5:
        vehicles.append(Vehicle(s=float(random.uniform(6, 60)),
                                d=-lane + float(random.normal(0, .2)),
                                braking=bool(random.random() < 0.3), **random_body(random)))
    return vehicles


def random_lead(random, scene):
    """Return a vehicle in the ego lane; its speed goes with its brake lamps, as on the road."""
    gap = float(random.uniform(3, 50))
    braking = bool(random.random() < 0.4)
    if braking:
        speed = scene.speed - float(random.uniform(0.5, 5))
    else:
        speed = scene.speed + float(random.normal(0, 0.8))
    return Vehicle(s=gap, d=float(random.normal(0, 0.15)), speed=max(0.0, speed),
                   braking=braking, **random_body(random))


def random_body(random):
    kind = random.random()
    size = (1.8, 1.5) if kind < 0.6 else (1.95, 1.85) if kind < 0.85 else (2.3, 2.9)
    colour = random.choice([(200, 200, 205), (40, 42, 46), (120, 124, 130), (130, 25, 30),
                            (35, 60, 120), (60, 95, 70), (190, 170, 120)])
    return {'size': tuple(float(x * random.uniform(0.95, 1.05)) for x in size),
            'colour': tuple(float(c) for c in colour * random.uniform(0.8, 1.15))}


def random_pedestrians(random, scene):
    people = []
    lane = scene.road.lane_width
    if random.random() < 0.25:
        people.append(random_person(random, float(random.uniform(4, 40)),
                                    float(random.uniform(-1.4, 1.4))))
    if random.random() < 0.4:
        right = -(scene.road.lanes_right + 0.5) * lane - float(random.uniform(0.6, 3))
        left = (scene.road.lanes_left + 0.5) * lane + float(random.uniform(0.6, 3))
        people.append(random_person(random, float(random.uniform(5, 40)),
                                    right if random.random() < 0.65 else left))
    return people


def random_person(random, s, d):
    return Pedestrian(s=s, d=d, height=float(random.uniform(1.5, 1.9)),
                      colour=tuple(float(c) for c in random.uniform(20, 230, 3)),
                      phase=float(random.random()))


def held_out_seeds(count):
    """Seeds that training never uses: training counts up from 0 and stays below 10^9."""
    return [10 ** 9 + index for index in range(count)]
