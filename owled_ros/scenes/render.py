"""Draws a Scene as a camera would see it, and says for every patch what is in it."""

import math

import cv2
import numpy as np
from owled_ros.scenes.scene import LENGTH, LIGHT_STATES

SHIFT = 4  # fractional bits of OpenCV's coordinates, for edges without steps
NEAREST = 2.5  # m; the road closer than this lies below the image
TOUCHING = 1.0  # m; what is closer is drawn as if it were here, and fills the image
BEHIND = -0.5   # m; what is farther back is not drawn

LAMPS = {'red': (255, 40, 30), 'amber': (255, 180, 20), 'green': (40, 255, 120)}
OBJECTS = ('nothing', 'lead', 'braking lead', 'other vehicle', 'pedestrian in lane',
           'pedestrian at side')


def render(scene):
    """Return the camera's image of a scene: (height, width, 3) uint8 RGB."""
    return _Painter(scene).paint()


def patch_labels(scene, grid, shown=1.0):
    """Return what each of grid x grid patches of the image shows, as the renderer knows it.

    shown: the share of the image's height, around its middle, that the patches cover.

    Returns (objects, distances, lights, light_distances), each (grid, grid): objects are indices
    of OBJECTS, lights of LIGHT_STATES, distances in metres (0 where there is nothing).
    """
    return _Labels(scene, grid, shown).all()


class _Painter:
    """Paints from far to near onto one image."""

    def __init__(self, scene):
        self.scene = scene
        self.camera = scene.camera
        self.weather = scene.weather
        self.random = np.random.default_rng(scene.seed)
        dim = 0.16 + 0.84 * self.weather.daylight
        self.sky = np.array(self.weather.sky) * dim
        haze = np.array([200, 205, 210]) * dim
        self.fog = haze if self.weather.visibility < 300 else (self.sky + haze) / 2
        self.dim = dim
        self.image = np.empty((self.camera.height, self.camera.width, 3), np.uint8)

    def paint(self):
        self._backdrop()
        self._road()
        drawn = [(v.s, self._vehicle, v) for v in self.scene.vehicles]
        drawn += [(p.s, self._pedestrian, p) for p in self.scene.pedestrians]
        drawn += [(s, self._roadside, (s, d, kind)) for s, d, kind in (
            self._scenery() if self.scene.scenery is None else self.scene.scenery)]
        if self.scene.light is not None:
            drawn.append((self.scene.light.s + self.scene.light.setback, self._light,
                          self.scene.light))
        for _, draw, thing in sorted(drawn, key=lambda item: -item[0]):
            draw(thing)
        return self._expose()

    # -- colours and shapes ---------------------------------------------------------------

    def _tint(self, colour, distance, glow=False):
        """Return a surface's colour in this light, through this much fog."""
        clear = math.exp(-distance / self.weather.visibility)
        lit = np.asarray(colour, float) * (1.0 if glow else self.dim)
        mixed = lit * clear + self.fog * (1 - clear)
        return tuple(float(c) for c in np.clip(mixed, 0, 255))

    def _polygon(self, u, v, colour):
        points = np.stack([u, v], -1)
        points = np.clip(points, -4000, 4000) * (1 << SHIFT)
        cv2.fillPoly(self.image, [points.astype(np.int32)], colour, cv2.LINE_AA, SHIFT)

    def _place(self, s, d):
        """Ego (x, y) of a thing, or None where it is behind the camera."""
        x, y = self.scene.road.to_ego(s, d)
        return (max(float(x), TOUCHING), float(y)) if x > BEHIND else None

    def _upright(self, place, side, low, high, colour, glow=False):
        """Draw a rectangle that faces the camera: side = (left, right) offsets [m], heights [m]."""
        x, y = place
        left, right = side
        u, v, depth = self.camera.project(x, y + np.array([left, right]), np.array([high, low]))
        tint = self._tint(colour, float(depth[0]), glow)
        self._polygon(u[[0, 1, 1, 0]], v[[0, 0, 1, 1]], tint)

    def _disc(self, place, side, height, radius, colour, glow=False):
        u, v, depth = self.camera.project(place[0], place[1] + side, height)
        pixels = self.camera.focal * radius / max(float(depth), 0.5)
        if not (-200 < u < self.camera.width + 200 and -200 < v < self.camera.height + 200):
            return
        centre = (round(float(u) * (1 << SHIFT)), round(float(v) * (1 << SHIFT)))
        cv2.circle(self.image, centre, max(round(pixels * (1 << SHIFT)), 8),
                   self._tint(colour, float(depth), glow), -1, cv2.LINE_AA, SHIFT)

    # -- the world, far to near ------------------------------------------------------------

    def _backdrop(self):
        height = self.camera.height
        horizon = float(self.camera.project(1e5, 0.0, 0.0)[1])
        rows = np.arange(height)[:, None]
        up = np.clip((horizon - rows) / height, 0, 1)
        sky = self.fog * (1 - up * 1.4).clip(0, 1) + self.sky * (up * 1.4).clip(0, 1)
        below = np.maximum(rows - horizon, 0.5)
        distance = self.camera.mount_height * self.camera.focal / below
        clear = np.exp(-distance / self.weather.visibility)
        ground = np.array(self.weather.ground) * self.dim * clear + self.fog * (1 - clear)
        column = np.where(rows < horizon, sky, ground)
        self.image[:] = column[:, None, :].astype(np.uint8)
        for _ in range(self.random.integers(0, 7)):  # hills and houses on the horizon
            left = self.random.uniform(-0.1, 1) * self.camera.width
            wide, high = self.random.uniform(0.05, 0.3) * self.camera.width, self.random.uniform(
                0.01, 0.09) * height
            colour = self._tint(self.random.uniform(60, 150, 3), 150)
            self._polygon(np.array([left, left + wide, left + wide, left]),
                          np.array([horizon + 1, horizon + 1, horizon - high, horizon - high]),
                          colour)

    def _strip(self, s, left, right, colour):
        """Draw a strip of road surface between two lateral positions [m]."""
        xl, yl = self.scene.road.to_ego(s, left)
        xr, yr = self.scene.road.to_ego(s, right)
        x, y = np.concatenate([xl, xr[::-1]]), np.concatenate([yl, yr[::-1]])
        seen = x > 1.0
        if seen.sum() < 3:
            return
        u, v, _ = self.camera.project(x[seen], y[seen], 0.0)
        self._polygon(u, v, self._tint(colour, float(np.mean(s))))

    def _road(self):
        road, half = self.scene.road, self.scene.road.lane_width / 2
        edges = (-half - road.lanes_right * 2 * half, half + road.lanes_left * 2 * half)
        # In pieces, so that fog takes the far ones first.
        bounds = [NEAREST - 1, 6, 12, 22, 40, 65, 95, LENGTH - 2]
        for near, far in reversed(list(zip(bounds[:-1], bounds[1:]))):
            s = np.linspace(near, far, 9)
            self._strip(s, edges[1] + 0.4, edges[0] - 0.4, self.weather.asphalt)
            for edge in edges:
                self._strip(s, edge + 0.07, edge - 0.07, (225, 225, 220))
        dashes = [half] if road.lanes_left else []
        dashes += [-half] if road.lanes_right else []
        start = self.random.uniform(-9, 0) if road.dashes is None else road.dashes
        for line in dashes:
            for s in np.arange(start, 80, 9.0)[::-1]:
                self._strip(np.array([max(s, 1), max(s, 1) + 3]), line + 0.07, line - 0.07,
                            (225, 225, 220))
        light = self.scene.light
        if light is not None and light.s > 0:
            self._strip(np.array([light.s, light.s + 0.4]), half, -half, (235, 235, 230))

    def _scenery(self):
        """Trees and posts beside the road: (s, d, kind)."""
        road = self.scene.road
        right = -(road.lanes_right + 0.5) * road.lane_width
        left = (road.lanes_left + 0.5) * road.lane_width
        things = []
        for _ in range(self.random.integers(0, 9)):
            edge = left + self.random.uniform(2, 12) if self.random.random() < 0.5 else (
                right - self.random.uniform(2, 12))
            kind = 'tree' if self.random.random() < 0.6 else 'post'
            things.append((float(self.random.uniform(6, 110)), float(edge), kind))
        return things

    def _roadside(self, thing):
        s, d, kind = thing
        place = self._place(s, d)
        shade = 0.7 + 0.5 * (abs(d) * 997 % 1)  # each its own, and the same in every frame
        if place is None:
            return
        if kind == 'post':
            self._upright(place, (0.06, -0.06), 0, 2.6 * shade, (120, 120, 120))
            return
        self._upright(place, (0.15, -0.15), 0, 2.5, (80, 60, 40))
        green = np.array([60, 95, 45]) * shade
        self._disc(place, 0, 3.6 * shade, 1.6 * shade, green)
        self._disc(place, 0.7, 2.9 * shade, 1.1 * shade, green * 0.9)

    def _vehicle(self, vehicle):
        place = self._place(vehicle.s, vehicle.d)
        if place is None:
            return
        width, height = vehicle.size
        half = width / 2
        colour = np.array(vehicle.colour)
        self._upright(place, (half + 0.1, -half - 0.1), -0.02, 0.2, (25, 25, 25))
        self._upright(place, (half, -half), 0.2, height * 0.62, colour)
        self._upright(place, (half * 0.85, -half * 0.85), height * 0.6, height, colour * 0.85)
        self._upright(place, (half * 0.75, -half * 0.75), height * 0.64, height * 0.92,
                      (40, 48, 58))
        for side in (1, -1):
            inner = side * (half - 0.3)
            self._upright(place, (max(side * half, inner), min(side * half, inner)), 0, 0.25,
                          (20, 20, 20))
        self._vehicle_lamps(vehicle, place, half, height)

    def _vehicle_lamps(self, vehicle, place, half, height):
        dark = self.weather.daylight < 0.5
        for side in (1, -1):
            at = side * (half - 0.22)
            low, high = height * 0.42, height * 0.56
            if vehicle.oncoming:
                lamp = (255, 250, 220) if dark else (215, 215, 205)
                self._upright(place, (at + 0.17, at - 0.17), low, high, lamp, dark)
            elif vehicle.braking:
                self._disc(place, at, (low + high) / 2, 0.3, (190, 25, 20), True)
                self._upright(place, (at + 0.2, at - 0.2), low, high, (255, 50, 40), True)
            else:
                lamp = (150, 20, 20) if dark else (110, 20, 20)
                self._upright(place, (at + 0.18, at - 0.18), low, high, lamp, dark)
        if vehicle.braking and not vehicle.oncoming:
            self._upright(place, (0.3, -0.3), height * 0.93, height, (255, 50, 40), True)

    def _pedestrian(self, person):
        place = self._place(person.s, person.d)
        if place is None:
            return
        tall, stride = person.height, 0.22 * math.sin(2 * math.pi * person.phase)
        trousers = tuple(0.5 * c for c in person.colour)
        for side in (stride, -stride):
            self._upright(place, (side + 0.1, side - 0.1), 0, tall * 0.5, trousers)
        self._upright(place, (0.25, -0.25), tall * 0.45, tall * 0.83, person.colour)
        self._disc(place, 0, tall * 0.92, tall * 0.08, (205, 160, 130))

    def _light(self, light):
        """Draw a pole at the right kerb and an arm above the lane, a signal head on each."""
        road = self.scene.road
        kerb = -(road.lanes_right + 0.5) * road.lane_width - 0.8
        pole = self._place(light.s + light.setback, kerb)
        arm = self._place(light.s + light.setback, 0.0)
        if pole is None or arm is None:
            return
        self._upright(pole, (0.09, -0.09), 0, 5.9, (70, 70, 70))
        u, v, depth = self.camera.project(np.array([pole[0], arm[0]]),
                                          np.array([pole[1], arm[1]]), np.full(2, 5.8))
        thickness = max(round(self.camera.focal * 0.12 / max(float(depth[0]), 1)), 1)
        ends = [tuple(int(c) for c in np.clip(end, -4000, 4000)) for end in zip(u, v)]
        cv2.line(self.image, *ends, self._tint((70, 70, 70), float(depth[0])), thickness,
                 cv2.LINE_AA)
        for place, bottom in ((pole, 2.5), (arm, 4.6)):
            self._signal_head(place, bottom, light.state)

    def _signal_head(self, place, bottom, state):
        self._upright(place, (0.32, -0.32), bottom - 0.1, bottom + 1.3, (15, 15, 15))
        for row, name in enumerate(('green', 'amber', 'red')):
            height = bottom + 0.2 + 0.4 * row
            if name == state:
                halo = tuple(0.55 * c for c in LAMPS[name])
                self._disc(place, 0, height, 0.3, halo, True)
                self._disc(place, 0, height, 0.17, LAMPS[name], True)
            else:
                self._disc(place, 0, height, 0.13, tuple(0.2 * c for c in LAMPS[name]))

    # -- the camera ------------------------------------------------------------------------

    def _expose(self):
        image = self.image
        if self.scene.frame:
            self.random = np.random.default_rng((self.scene.seed, self.scene.frame))
        if self.weather.rain > 0:
            self._rain(image)
        warm = 1 + 0.12 * self.weather.warmth * np.array([1, 0, -1])
        coarse = self.random.normal(0, self.camera.noise, (image.shape[0] // 2 + 1,
                                                           image.shape[1] // 2 + 1))
        noise = np.repeat(np.repeat(coarse.astype(np.float32), 2, 0), 2, 1)
        noise = noise[:image.shape[0], :image.shape[1], None]
        exposed = image.astype(np.float32) * warm.astype(np.float32) + noise
        return np.clip(exposed, 0, 255).astype(np.uint8)

    def _rain(self, image):
        height, width = image.shape[:2]
        for _ in range(int(60 * self.weather.rain)):
            u, v = self.random.integers(0, width), self.random.integers(0, height)
            long = self.random.integers(height // 60 + 1, height // 20 + 2)
            cv2.line(image, (int(u), int(v)), (int(u + long // 6), int(v + long)),
                     tuple(float(c) for c in self.fog * 0.9), 1, cv2.LINE_AA)


class _Labels:
    """What the patches of an image show; nearer things hide farther ones."""

    def __init__(self, scene, grid, shown):
        self.scene, self.grid, self.shown = scene, grid, shown
        self.objects = np.zeros((grid, grid), np.int64)
        self.distances = np.zeros((grid, grid), np.float32)
        self.lights = np.zeros((grid, grid), np.int64)
        self.light_distances = np.zeros((grid, grid), np.float32)

    def all(self):
        lead = self.scene.lead
        things = [(v.s, v.d, v.size[0], 0.0, v.size[1],
                   (2 if v.braking else 1) if v is lead else 3) for v in self.scene.vehicles]
        things += [(p.s, p.d, 0.6, 0.0, p.height, 4 if p.in_lane else 5)
                   for p in self.scene.pedestrians]
        for s, d, width, low, high, index in sorted(things, reverse=True):
            cells = self._cells(s, d, width, low, high)
            if cells is not None:
                self.objects[cells], self.distances[cells] = index, max(s, 0.1)
        self._mark_light()
        return self.objects, self.distances, self.lights, self.light_distances

    def _mark_light(self):
        light, road = self.scene.light, self.scene.road
        if light is None:
            return
        kerb = -(road.lanes_right + 0.5) * road.lane_width - 0.8
        state = LIGHT_STATES.index(light.state)
        for d, bottom in ((kerb, 2.5), (0.0, 4.6)):
            cells = self._cells(light.s + light.setback, d, 0.6, bottom - 0.1, bottom + 1.3)
            if cells is not None:
                self.lights[cells], self.light_distances[cells] = state, max(light.s, 0.1)

    def _cells(self, s, d, width, low, high):
        """Return the patches that a box covers, as slices, or None where it is out of sight."""
        x, y = self.scene.road.to_ego(s, d)
        if x <= BEHIND:
            return None
        camera = self.scene.camera
        u, v, _ = camera.project(
            max(float(x), TOUCHING), float(y) + np.array([width / 2, -width / 2]),
            np.array([high, low]))
        columns = u / camera.width * self.grid
        rows = ((v / camera.height - 0.5) / self.shown + 0.5) * self.grid
        if columns[1] <= 0 or columns[0] >= self.grid or rows[1] <= 0 or rows[0] >= self.grid:
            return None
        # A patch counts when the box covers a fifth of its width and height, or its best part.
        span = [_inner(columns), _inner(rows)]
        return slice(*np.clip(span[1], 0, self.grid)), slice(*np.clip(span[0], 0, self.grid))


def _inner(edges):
    low, high = edges
    first, last = math.floor(low + 0.8), math.ceil(high - 0.8)
    if last <= first:
        first = math.floor((low + high) / 2)
        last = first + 1
    return first, last
