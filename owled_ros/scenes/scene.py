"""What a front camera looks at: a road seen from the ego lane, what stands on it, the light.

Everything is in the ego frame of REP 103 (metres, x forward, y left, z up, on the ground below
the camera) or in road coordinates: s along the ego lane's centre line from the ego vehicle,
d to the left of that line.
"""

from dataclasses import dataclass, field
import math

import numpy as np

STEP = 1.0  # m between the samples of a road's curvature
LENGTH = 140  # m of road that are drawn

PERSON_IN_LANE = 1.5  # m from the lane's centre, within which a pedestrian is in the lane

LIGHT_STATES = ('none', 'red', 'amber', 'green')


@dataclass
class Road:
    """The ego lane ahead: `curvature` [1/m] at every STEP; where the ego vehicle is in it.

    offset [m] is the ego vehicle's distance to the left of the lane's centre, heading [rad] its
    direction to the left of the road's.
    """

    curvature: np.ndarray
    offset: float = 0.0
    heading: float = 0.0
    lane_width: float = 3.5
    lanes_left: int = 1
    lanes_right: int = 0
    dashes: float = None  # s of a dash's start [m]; None: anywhere, by the scene's seed

    def __post_init__(self):
        theta = np.concatenate([[0.0], np.cumsum(self.curvature * STEP)]) - self.heading
        middle = (theta[1:] + theta[:-1]) / 2
        self._theta = theta
        self._s = np.arange(len(theta)) * STEP
        start = -self.offset * np.array([-math.sin(-self.heading), math.cos(-self.heading)])
        self._x = start[0] + np.concatenate([[0.0], np.cumsum(np.cos(middle) * STEP)])
        self._y = start[1] + np.concatenate([[0.0], np.cumsum(np.sin(middle) * STEP)])

    def to_ego(self, s, d):
        """Ego coordinates (x, y) of road coordinates; arrays broadcast."""
        x, y, theta = (np.interp(s, self._s, column) for column in (self._x, self._y, self._theta))
        return x - d * np.sin(theta), y + d * np.cos(theta)

    def direction(self, s):
        """Return the road's direction [rad] at s, in the ego frame."""
        return float(np.interp(s, self._s, self._theta))


@dataclass
class Vehicle:
    """A vehicle ahead, seen from behind, or from the front when it is oncoming."""

    s: float                      # m, its rear (or front, oncoming) from the ego camera
    d: float = 0.0
    speed: float = 0.0            # m/s along the road
    braking: bool = False
    oncoming: bool = False
    size: tuple = (1.8, 1.5)      # width, height [m]
    colour: tuple = (90, 90, 90)  # RGB

    @property
    def in_lane(self):
        return abs(self.d) < 1.2 and not self.oncoming


@dataclass
class Pedestrian:
    s: float
    d: float
    height: float = 1.75
    colour: tuple = (60, 60, 120)
    phase: float = 0.0            # of the stride, 0 to 1

    @property
    def in_lane(self):
        return abs(self.d) < PERSON_IN_LANE


@dataclass
class TrafficLight:
    s: float                      # m to the stop line; the signals stand `setback` behind it
    state: str = 'red'
    setback: float = 12.0


@dataclass
class Camera:
    width: int = 640
    height: int = 480
    field_of_view: float = math.radians(54)  # horizontal
    mount_height: float = 1.4                # m above the road
    pitch: float = 0.0                       # rad, down positive
    noise: float = 4.0                       # standard deviation of the pixels' noise, of 255

    @property
    def focal(self):
        return self.width / 2 / math.tan(self.field_of_view / 2)

    def project(self, x, y, z):
        """Pixels (u, v) and depth [m] of points in the ego frame; arrays broadcast."""
        up = np.asarray(z, float) - self.mount_height
        sin, cos = math.sin(self.pitch), math.cos(self.pitch)
        depth = x * cos - up * sin
        safe = np.maximum(depth, 0.1)
        u = self.width / 2 - self.focal * np.asarray(y) / safe
        v = self.height / 2 - self.focal * (up * cos + x * sin) / safe
        return u, v, depth


@dataclass
class Weather:
    daylight: float = 1.0       # 0 night to 1 day
    visibility: float = 600.0   # m at which fog leaves 1/e of the contrast
    rain: float = 0.0           # 0 to 1
    warmth: float = 0.0         # -1 blue to 1 warm
    sky: tuple = (150, 185, 225)
    ground: tuple = (105, 125, 80)
    asphalt: tuple = (92, 92, 96)


@dataclass
class Scene:
    """One moment: all that is needed to draw it and to decide what to do."""

    road: Road
    speed: float                                  # m/s, ego
    speed_limit: float = math.nan                 # m/s, NaN unknown
    vehicles: list = field(default_factory=list)
    pedestrians: list = field(default_factory=list)
    light: TrafficLight = None
    camera: Camera = field(default_factory=Camera)
    weather: Weather = field(default_factory=Weather)
    seed: int = 0                                 # of scenery and noise
    scenery: list = None                          # (s, d, kind) of trees and posts; None: by seed
    frame: int = 0                                # counts the images of a drive: their noise

    @property
    def lead(self):
        """Return the nearest vehicle in the ego lane, or None."""
        return min((v for v in self.vehicles if v.in_lane), key=lambda v: v.s, default=None)

    @property
    def pedestrian(self):
        """Return the pedestrian that matters: the nearest in the lane, else of all, or None."""
        return min(self.pedestrians, key=lambda p: (not p.in_lane, p.s), default=None)
