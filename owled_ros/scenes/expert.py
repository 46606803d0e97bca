"""The driver that is imitated: IDM for speed, pure pursuit for steering, and a reason.

IDM: Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and
microscopic simulations", Physical Review E 62 (2000), equations 2 and 3. A red light and a person
in the lane are standing obstacles. Pure pursuit: Coulter, CMU-RI-TR-92-01 (1992).
"""

from dataclasses import dataclass
import math

import numpy as np
from owled_ros.driver.action import Action, Maneuver

ACCELERATION = 1.5        # m/s^2, IDM's a
BRAKING = 2.0             # m/s^2, IDM's b
HEADWAY = 1.2             # s
DEFAULT_SPEED = 13.9      # m/s where no limit is known
LATERAL = 2.5             # m/s^2 that a curve may take
STRONGEST = 8.0           # m/s^2, of braking
EMERGENCY = 5.0           # m/s^2 of braking from which it is an emergency stop
NOTICEABLE = 0.3          # m/s^2 that a cause must take away to be named
HOLD = 2.0                # m beyond the space kept, within which who stands stays where it is

# Free space [m] kept to a standing vehicle, a stop line, a person.
KEPT = {'lead': 2.5, 'light': 1.0, 'pedestrian': 3.5}


@dataclass(frozen=True)
class Verdict:
    """The expert's answer: the action, what caused it, and the sentence that says so."""

    action: Action
    cause: str   # 'free', 'curve', 'limit', 'lead', 'light' or 'pedestrian'
    text: str


def drive(scene):
    """Return the expert's Verdict on a Scene."""
    acceleration, cause = decide_acceleration(scene)
    maneuver = choose_maneuver(scene, acceleration, cause)
    action = Action(acceleration, decide_curvature(scene), maneuver, 1.0)
    return Verdict(action, cause, explain(scene, cause, maneuver))


def decide_acceleration(scene):
    """Return the acceleration [m/s^2] and its cause."""
    speed = scene.speed
    wanted = DEFAULT_SPEED if math.isnan(scene.speed_limit) else scene.speed_limit
    free = towards(speed, wanted)
    answers = {'free': free}
    if speed > wanted + 0.5:
        answers = {'limit': free}
    bend = curve_speed(scene.road, speed)
    if bend < wanted:
        answers['curve'] = towards(speed, bend)
    for cause, (gap, obstacle_speed) in obstacles(scene).items():
        answers[cause] = follow(speed, gap, obstacle_speed, KEPT[cause], free)
    cause = min(answers, key=answers.get)
    unhindered = next(iter(answers))
    if answers[cause] > answers[unhindered] - NOTICEABLE:
        cause = unhindered
    # Braking may stop the vehicle within half a second, but never ask for driving backwards.
    acceleration = max(answers[cause], -STRONGEST, -speed / 0.5)
    return min(acceleration, ACCELERATION), cause


def towards(speed, wanted):
    """IDM on an empty road; above the wanted speed, a braking that grows with the excess."""
    if speed <= wanted:
        return ACCELERATION * (1 - (speed / max(wanted, 0.1)) ** 4)
    return max(-3.0, -0.8 * (speed - wanted))


def follow(speed, gap, obstacle_speed, kept, free):
    """IDM behind an obstacle at `gap` [m].

    IDM creeps on until exactly `kept` is left; who has come to a stand behind something that
    stands waits instead.
    """
    closing = speed * (speed - obstacle_speed) / (2 * math.sqrt(ACCELERATION * BRAKING))
    desired = kept + max(0.0, speed * HEADWAY * (obstacle_speed > 0.1) + closing)
    acceleration = free - ACCELERATION * (desired / max(gap, 0.3)) ** 2
    if speed < 0.5 and obstacle_speed < 0.5 and gap < kept + HOLD:
        return min(acceleration, -speed)
    return acceleration


def obstacles(scene):
    """Return what stands in the way: cause -> (gap [m], speed [m/s])."""
    found = {}
    if scene.lead is not None:
        found['lead'] = (scene.lead.s, scene.lead.speed)
    light = scene.light
    if light is not None and light.s > 0 and must_stop(light, scene.speed):
        found['light'] = (light.s, 0.0)
    person = scene.pedestrian
    if person is not None and person.in_lane:
        found['pedestrian'] = (person.s, 0.0)
    return found


def must_stop(light, speed):
    """Stop for red; for amber where comfortable braking is enough."""
    comfortable = speed ** 2 / (2 * max(light.s, 0.3)) < 3.0
    return light.state == 'red' or (light.state == 'amber' and comfortable)


def curve_speed(road, speed):
    """Speed [m/s] for the sharpest bend that is reached within three seconds."""
    reach = int(np.clip(3.0 * speed, 10, len(road.curvature)))
    sharpest = float(np.abs(road.curvature[:reach]).max())
    return math.sqrt(LATERAL / max(sharpest, 1e-4))


def decide_curvature(scene):
    """Pure pursuit of the lane's centre, eight metres or 0.9 s ahead."""
    ahead = max(8.0, 0.9 * scene.speed)
    x, y = scene.road.to_ego(ahead, 0.0)
    return float(2 * y / (x * x + y * y))


def choose_maneuver(scene, acceleration, cause):
    """Return the discrete answer that goes with an acceleration and its cause."""
    slowing = acceleration < -NOTICEABLE or scene.speed < 0.5
    if acceleration <= -EMERGENCY:
        return Maneuver.EMERGENCY_STOP
    if cause == 'lead':
        return Maneuver.FOLLOW
    if cause in ('light', 'pedestrian') and slowing:
        return Maneuver.STOP
    if cause != 'free' and acceleration < -NOTICEABLE:
        return Maneuver.SLOW_DOWN
    return Maneuver.KEEP_LANE


REASONS = {
    'free': 'the road is free',
    'curve': 'of the curve',
    'limit': 'of the speed limit',
    'lead': 'of the vehicle',
    'light': 'of the light',
    'pedestrian': 'of the pedestrian',
}
DEEDS = {
    Maneuver.KEEP_LANE: 'I keep my lane',
    Maneuver.FOLLOW: 'I follow',
    Maneuver.SLOW_DOWN: 'I slow down',
    Maneuver.STOP: 'I stop',
    Maneuver.EMERGENCY_STOP: 'I brake hard',
}


def explain(scene, cause, maneuver):
    """One sentence: what is seen of light, vehicle and pedestrian, what is done, and why."""
    seen = ', '.join((_light(scene.light), _lead(scene.lead), _pedestrian(scene.pedestrian)))
    deed = DEEDS[maneuver]
    if maneuver == Maneuver.KEEP_LANE and cause != 'free':
        deed = 'I hold back'
    return f'{seen}: {deed} because {REASONS[cause]}.'


def _light(light):
    if light is None or light.state == 'none':
        return 'No light'
    return f'{light.state.capitalize()} light {round(max(light.s, 0))} m ahead'


def _lead(lead):
    if lead is None:
        return 'no vehicle'
    return f'{"braking " if lead.braking else ""}vehicle {round(lead.s)} m ahead'


def _pedestrian(person):
    if person is None:
        return 'no pedestrian'
    where = 'in the lane' if person.in_lane else 'at the side'
    return f'pedestrian {where} {round(person.s)} m ahead'
