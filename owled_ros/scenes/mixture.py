"""What the embedded model learns from: scenes of several kinds, mixed by shares and seeded.

Held-out scenes are `random_scene`; these are harder where that one is sparse: people and lights
far away, vehicles that stand and must stay or start, and states that a driver gets into by its
own mistakes. Scenes come in groups, because those of a drive cost one simulation together.
"""

from dataclasses import dataclass, replace
import math

import numpy as np
from owled_ros.errors import UserError
from owled_ros.scenes.drive import random_world, Simulation, TICK
from owled_ros.scenes.expert import drive
from owled_ros.scenes.sampling import (
    random_body,
    random_person,
    random_scene,
    random_weather,
    SPEED_LIMITS,
)
from owled_ros.scenes.scene import Pedestrian, PERSON_IN_LANE, TrafficLight, Vehicle

GROUP = 40       # scenes of one kind that share a seed
THINK = 0.2      # s between the decisions of a simulated drive, as in the closed loop
DRIVE = 60.0     # s of a simulated drive
DWELL = 3.0      # how much likelier a moment is chosen in which something happens


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of scenes; they need not add up to 1."""

    random: float = 0.3     # as those held out
    people: float = 0.25    # a pedestrian in the lane in half of them; far people and lights
    standing: float = 0.15  # at rest before a light, a vehicle, a person: to stay or to start
    driven: float = 0.3     # from simulated drives of an expert who is disturbed

    def __post_init__(self):
        shares = list(vars(self).values())
        if not all(math.isfinite(share) and share >= 0 for share in shares) or not any(shares):
            raise UserError(f'the mixture {vars(self)} has a share that is negative or none that '
                            f'is positive; give shares of at least 0')

    @classmethod
    def parse(cls, text):
        """Read 'random=0.5,driven=0.5'; kinds that are not named get no share."""
        shares = dict.fromkeys(vars(cls()), 0.0)
        for part in text.split(','):
            name, _, share = part.partition('=')
            try:
                shares[name.strip()] = float(share)
            except ValueError:
                raise UserError(f'the mixture {text!r} cannot be read at {part!r}; write it as '
                                f'random=0.5,driven=0.5') from None
        if set(shares) != set(vars(cls())):
            raise UserError(f'the mixture {text!r} names a kind that there is not; there are '
                            f'{", ".join(vars(cls()))}')
        return cls(**shares)

    def kind(self, group):
        """Return the kind of scenes in a group."""
        shares = np.array(list(vars(self).values()))
        return str(np.random.default_rng((group, 1)).choice(list(vars(self)),
                                                            p=shares / shares.sum()))


def training_scenes(group, mixture, *, width=320, height=240):
    """Return the GROUP scenes of a group; the same arguments give the same scenes everywhere."""
    kind = mixture.kind(group)
    if kind == 'driven':
        return driven_scenes(group, GROUP, width=width, height=height)
    seeds = range(group * GROUP, (group + 1) * GROUP)
    make = {'random': random_scene, 'people': scene_with_people, 'standing': standing_scene}[kind]
    return [make(seed, width=width, height=height) for seed in seeds]


def scene_with_people(seed, *, width=320, height=240):
    """Return a random scene with a pedestrian in the lane in half of the cases.

    The pedestrian is often far, often close to the lane's edge on either side of it. In half of
    the cases there is a light that is far away.
    """
    scene = random_scene(seed, width=width, height=height)
    random = np.random.default_rng((seed, 2))
    if not any(person.in_lane for person in scene.pedestrians) and random.random() < 0.4:
        scene.pedestrians.append(random_person(
            random, float(random.uniform(2, 48)), float(random.uniform(-1.45, 1.45))))
    if random.random() < 0.5:
        # What a model confuses: just beside the lane is not in it.
        beside = random.choice([-1, 1]) * random.uniform(PERSON_IN_LANE + 0.1, 3.5)
        scene.pedestrians.append(random_person(random, float(random.uniform(3, 48)),
                                               float(beside)))
    if random.random() < 0.5:
        scene.light = TrafficLight(float(random.uniform(25, 57)), random_light(random))
    return scene


def random_light(random):
    return str(random.choice(['red', 'amber', 'green'], p=[0.5, 0.2, 0.3]))


def standing_scene(seed, *, width=320, height=240):
    """Return the ego vehicle at rest behind one thing or nothing, which may also let it go."""
    scene = random_scene(seed, width=width, height=height)
    random = np.random.default_rng((seed, 3))
    scene.speed = 0.0 if random.random() < 0.7 else float(random.uniform(0, 1.0))
    scene.light, scene.pedestrians = None, [p for p in scene.pedestrians if not p.in_lane]
    scene.vehicles = [vehicle for vehicle in scene.vehicles if not vehicle.in_lane]
    before = random.random()
    if before < 0.4:
        scene.light = TrafficLight(float(random.uniform(0.3, 5)), random_light(random))
    elif before < 0.65:
        scene.vehicles.append(standing_leader(random))
    elif before < 0.9:
        beside = random.random() < 0.3  # has crossed, or waits
        away = random.choice([-1, 1]) * random.uniform(1.7, 4.0)
        scene.pedestrians.append(random_person(
            random, float(random.uniform(1, 7)),
            float(away if beside else random.uniform(-1.4, 1.4))))
    return scene


def standing_leader(random):
    """Return a vehicle close ahead that stands with its lamps lit, or has just begun to move."""
    stays = random.random() < 0.75
    return Vehicle(s=float(random.uniform(0.5, 6)), d=float(random.normal(0, 0.15)),
                   speed=0.0 if stays else float(random.uniform(0.5, 4)), braking=bool(stays),
                   **random_body(random))


def driven_scenes(seed, count, *, width=320, height=240):
    """Scenes of one drive of an expert whose pedals and wheel are disturbed now and then.

    The right answers are those of the undisturbed expert: how to get back from where a driver
    with faults gets to (compare DART, Laskey et al., CoRL 2017).
    """
    random = np.random.default_rng((seed, 4))
    world = varied_world(random, seed, width, height)
    scenes = list(disturbed_drive(world, random))
    busy = [DWELL if drive(scene).cause != 'free' else 1.0 for scene in scenes]
    chosen = random.choice(len(scenes), count, replace=len(scenes) < count,
                           p=np.array(busy) / sum(busy))
    # The noise of a picture goes by its frame: another one where a moment is taken twice.
    return [replace(scenes[index], frame=scenes[index].frame + 100_000 * place)
            for place, index in enumerate(sorted(chosen))]


def varied_world(random, seed, width, height):
    """Return a world of the closed loop, in any weather, with or without speed limit and leader."""
    world = random_world(seed, width=width, height=height)
    world.weather = random_weather(random)
    world.speed_limit = float(random.choice([math.nan, *SPEED_LIMITS]))
    if random.random() < 0.4:
        world.leader.s += 500.0  # out of sight
    if random.random() < 0.5:
        where = float(random.uniform(40, 120))
        world.crossings[0].s = where
        world.crossings[0].body = Pedestrian(0.0, 0.0, world.crossings[0].body.height,
                                             world.crossings[0].body.colour)
    for crossing in world.crossings:
        crossing.braking = float(random.uniform(1.5, 5.0))
    return world


def disturbed_drive(world, random):
    """Yield what is seen at every decision, until something is hit or the road is lost."""
    simulation = Simulation(world)
    simulation.ego.offset = float(random.normal(0, 0.25))
    pull, until = (0.0, 0.0), 0.0
    while simulation.time < DRIVE:
        ego = simulation.ego
        if world.leader.s < ego.s or abs(ego.offset) > 1.7:
            return
        scene = simulation.look()
        yield scene
        if simulation.time >= until:
            pull, until = disturbance(random, ego.speed, simulation.time)
        action = drive(scene).action
        action = replace(action, acceleration=max(action.acceleration + pull[0], -8.0),
                         curvature=action.curvature + pull[1])
        for _ in range(round(THINK / TICK)):
            simulation.step(action)


def disturbance(random, speed, now):
    """Errors of acceleration [m/s^2] and curvature [1/m], and until when [s] they last."""
    if random.random() < 0.5:
        return (0.0, 0.0), now + float(random.uniform(0.5, 3.0))
    # Half a metre to the side after about a second, whatever the speed.
    sideways = float(random.normal(0, 0.8)) / max(speed, 4.0) ** 2
    return (float(random.normal(0, 1.2)), sideways), now + float(random.uniform(0.4, 1.4))
