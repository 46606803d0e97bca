"""A continuous drive through a rendered world: for bags, and for driving in closed loop.

The world is laid out along the road; what happens in it (a light turns red, somebody crosses, the
vehicle in front brakes) is triggered by where the ego vehicle is, so that a drive meets
everything whatever its speed.
"""

from dataclasses import dataclass, field
import math

import numpy as np
from owled_ros.driver.action import EgoState
from owled_ros.scenes.expert import KEPT
from owled_ros.scenes.sampling import (
    random_body,
    random_camera,
    random_person,
    random_weather,
    SPEED_LIMITS,
)
from owled_ros.scenes.scene import (
    LENGTH,
    Pedestrian,
    PERSON_IN_LANE,
    Road,
    Scene,
    TrafficLight,
    Vehicle,
)

TICK = 0.02     # s of the simulation
THINK = 0.1     # s between two decisions
JERK = 12.0     # m/s^3 of the simulated vehicle
# Long enough for whoever cannot stop comfortably (expert.must_stop) to be over the line in time:
# v^2 / 2s = 3 m/s^2 gives s / v = v / 6, which is 2.8 s at 60 km/h.
AMBER = 3.0     # s
CROSSING = 1.4  # m/s, a pedestrian's pace
ONCOMING_SPEED = 10.0  # m/s
KERB = -3.4     # m to the left of the lane's centre: where a pedestrian waits


@dataclass
class Signal:
    """A light that turns amber when the ego vehicle is `trigger` metres away, then red."""

    s: float
    trigger: float = 45.0     # m; 0 for a light that stays green
    red: float = 6.0          # s
    since: float = None       # s, when it was triggered

    def state(self, time, ego_s):
        if self.since is None and 0 < self.s - ego_s < self.trigger:
            self.since = time
        if self.since is None:
            return 'green'
        age = time - self.since
        return 'amber' if age < AMBER else 'red' if age < AMBER + self.red else 'green'


@dataclass
class Crossing:
    """A pedestrian who waits at the right and crosses when the ego vehicle comes near.

    So near that, once there is somebody in the lane, a driver must brake with `braking` [m/s^2]
    to stop in time.
    """

    s: float
    braking: float
    body: Pedestrian
    since: float = None

    def pedestrian(self, time, ego_s, ego_speed):
        if self.since is None and 0 < self.s - ego_s < self.trigger(ego_speed):
            self.since = time
        walked = 0.0 if self.since is None else CROSSING * (time - self.since)
        return Pedestrian(self.s - ego_s, KERB + walked, self.body.height, self.body.colour,
                          phase=walked % 1.3 / 1.3)

    def trigger(self, speed):
        """Distance [m] at which a vehicle with `speed` [m/s] makes the pedestrian start."""
        to_lane = (-PERSON_IN_LANE - KERB) / CROSSING
        return KEPT['pedestrian'] + speed * to_lane + speed ** 2 / (2 * self.braking)


@dataclass
class Leader:
    """A vehicle in front that drives, brakes to a stop once, and pulls away."""

    s: float
    speed: float
    brakes_at: float          # s of the drive
    body: dict
    acceleration: float = 0.0

    def move(self, time):
        if self.brakes_at < time < self.brakes_at + 5:
            self.acceleration = -2.5 if self.speed > 0 else 0.0
        else:
            self.acceleration = 1.8 if self.speed < 15 and time > self.brakes_at else 0.0
        self.speed = max(0.0, self.speed + self.acceleration * TICK)
        self.s += self.speed * TICK

    def vehicle(self, ego_s):
        standing = self.speed < 0.1 and self.acceleration <= 0  # with a foot on the brake
        return Vehicle(self.s - ego_s, 0.0, self.speed, standing or self.acceleration < -0.5,
                       **self.body)


@dataclass
class World:
    """A road with everything along it."""

    curvature: np.ndarray     # 1/m at every metre
    camera: object
    weather: object
    speed_limit: float
    leader: Leader
    signals: list
    crossings: list
    oncoming: list            # of (s at the start [m], body)
    scenery: list             # of (s [m], d [m], 'tree' or 'post')
    seed: int = 0


@dataclass
class Moment:
    """The ego vehicle at one tick: time [s], pose (x, y [m], heading [rad]), state, scene."""

    time: float
    pose: tuple
    ego: EgoState
    scene: Scene
    decided: bool             # whether this tick is one at which the driver decided
    verdict: object = None    # what the driver answered last


def random_world(seed, *, width=640, height=480):
    """Return the world of a seed: a leader, a red light, a pedestrian, a green light, bends."""
    random = np.random.default_rng(seed)
    knots = np.cumsum(random.uniform(35, 70, 14))
    bends = random.uniform(-0.022, 0.022, 14) * (random.random(14) < 0.7)
    curvature = np.interp(np.arange(1200), np.concatenate([[0, 30], 30 + knots]),
                          np.concatenate([[0, 0], bends]))
    weather = random_weather(random)
    weather.daylight = max(weather.daylight, 0.5)
    people = [random_person(random, 0.0, 0.0) for _ in range(2)]
    return World(
        curvature=curvature, camera=random_camera(random, width, height), weather=weather,
        speed_limit=float(random.choice(SPEED_LIMITS[1:])),
        leader=Leader(s=float(random.uniform(20, 30)), speed=float(random.uniform(7, 9)),
                      brakes_at=float(random.uniform(3, 5)), body=random_body(random)),
        signals=[Signal(s=float(random.uniform(135, 155)), trigger=float(random.uniform(30, 50))),
                 Signal(s=float(random.uniform(330, 350)), trigger=0.0),
                 Signal(s=float(random.uniform(480, 520)))],
        crossings=[Crossing(float(s), float(random.uniform(2.0, 4.0)), person)
                   for s, person in zip((random.uniform(225, 250), random.uniform(410, 440)),
                                        people)],
        oncoming=[(float(s), random_body(random)) for s in random.uniform(60, 900, 8)],
        scenery=[random_scenery(random) for _ in range(70)], seed=seed)


def random_scenery(random):
    """Return a tree or post somewhere beside the road."""
    side = 1 if random.random() < 0.5 else -1
    edge = 5.25 if side > 0 else 1.75
    return (float(random.uniform(0, 900)), float(side * (edge + random.uniform(2, 12))),
            'tree' if random.random() < 0.6 else 'post')


@dataclass
class _Ego:
    """The ego vehicle along the road and in the plane."""

    speed: float
    s: float = 0.0
    offset: float = 0.0
    heading: float = 0.0      # relative to the road
    acceleration: float = 0.0
    curvature: float = 0.0
    pose: list = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def move(self, wanted_acceleration, wanted_curvature, road_curvature):
        change = np.clip(wanted_acceleration - self.acceleration, -JERK * TICK, JERK * TICK)
        self.acceleration += float(change)
        self.curvature += float(np.clip(wanted_curvature - self.curvature, -0.15 * TICK,
                                        0.15 * TICK))
        before = self.speed
        self.speed = max(0.0, self.speed + self.acceleration * TICK)
        if self.speed == 0.0 and before == 0.0:
            self.acceleration = max(self.acceleration, 0.0)
        way = self.speed * TICK
        along = way * math.cos(self.heading) / (1 - road_curvature * self.offset)
        self.s += along
        self.offset += way * math.sin(self.heading)
        self.heading += way * self.curvature - road_curvature * along
        x, y, theta = self.pose
        self.pose = [x + way * math.cos(theta), y + way * math.sin(theta),
                     theta + way * self.curvature]

    @property
    def state(self):
        return EgoState(self.speed, self.speed * self.curvature, self.acceleration)


class Simulation:
    """The ego vehicle in a World, advanced step by step by whoever drives it.

    Distances along the road count from the ego vehicle's front, where its camera is.
    """

    def __init__(self, world):
        self.world, self.ego, self.ticks = world, _Ego(speed=world.leader.speed), 0

    @property
    def time(self):
        """Seconds since the start."""
        return self.ticks * TICK

    def look(self):
        """Return the Scene that the camera sees now."""
        return look(self.world, self.ego, self.time)

    def step(self, action):
        """Let TICK seconds pass with an Action in force."""
        self.world.leader.move(self.time)
        road = self.world.curvature[min(int(self.ego.s), len(self.world.curvature) - 1)]
        self.ego.move(action.acceleration, action.curvature, road)
        self.ticks += 1


def simulate(world, driver, duration, think=THINK):
    """Drive through a world for `duration` seconds; yields a Moment every TICK.

    driver: a function from a Scene to something with an `action`, asked every `think` seconds.
    """
    simulation, verdict = Simulation(world), None
    every = round(think / TICK)
    for tick in range(round(duration / TICK)):
        decided, scene = tick % every == 0, None
        if decided:
            scene = simulation.look()
            verdict = driver(scene)
        ego = simulation.ego
        yield Moment(simulation.time, tuple(ego.pose), ego.state, scene, decided, verdict)
        simulation.step(verdict.action)


def look(world, ego, time):
    """Return the Scene that the ego vehicle's camera sees."""
    ahead = np.arange(LENGTH + 20) + ego.s
    curvature = np.interp(ahead, np.arange(len(world.curvature)), world.curvature)
    scene = Scene(
        road=Road(curvature=curvature, offset=ego.offset, heading=ego.heading,
                  dashes=-(ego.s % 9.0)),
        speed=ego.speed, speed_limit=world.speed_limit, camera=world.camera,
        weather=world.weather, seed=world.seed, frame=round(time / TICK) + 1,
        scenery=[(s - ego.s, d, kind) for s, d, kind in world.scenery if 4 < s - ego.s < 110])
    scene.light = _nearest_light(world, ego, time)
    people = [c.pedestrian(time, ego.s, ego.speed) for c in world.crossings]
    scene.pedestrians = [p for p in people if 0 < p.s < 60 and p.d < 9]
    leader = world.leader.vehicle(ego.s)
    scene.vehicles = [leader] if leader.s < 60 else []
    scene.vehicles += [v for v in oncoming(world, ego.s, time) if 4 < v.s < 80]
    return scene


def oncoming(world, ego_s, time):
    """Return the vehicles that come on the lane to the left, wherever they are by now."""
    return [Vehicle(start - ONCOMING_SPEED * time - ego_s, 3.5, ONCOMING_SPEED, oncoming=True,
                    **body) for start, body in world.oncoming]


def _nearest_light(world, ego, time):
    """Return the next light, whose stop line is not passed and which is near enough to be told."""
    lights = [(signal.s - ego.s, signal.state(time, ego.s)) for signal in world.signals]
    ahead = [(s, state) for s, state in lights if 0 < s < 58]
    if not ahead:
        return None
    s, state = min(ahead)
    return TrafficLight(s, state)
