"""Lets a driver drive through the rendered world by its own answers, many drives side by side.

What counts is in docs/evaluation.md. Worlds are those of held-out seeds; every drive starts in
the middle of its lane at the speed of the vehicle in front.
"""

from contextlib import contextmanager
from dataclasses import asdict, dataclass
import math
import os
import time

import numpy as np
from owled_ros.driver.action import Command
from owled_ros.evaluation.open_loop import BATCH
from owled_ros.scenes.drive import oncoming, random_world, Simulation, TICK
from owled_ros.scenes.expert import drive
from owled_ros.scenes.pool import rendering_pool
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds

THINK = 0.2              # s between two decisions
LENGTH, WIDTH = 4.5, 1.8  # m, of vehicles
PERSON = 0.25            # m, radius
LANE = 3.5               # m, width of the lanes of a drive's world
DEPARTED = LANE / 2 - WIDTH / 2  # m from the lane's centre at which a wheel is on the line
LOST = LANE              # m from the lane's centre at which a drive is over
MOVING = 0.1             # m/s; who stands hits nobody
FAR_ENOUGH = 0.5         # of the expert's way, without which standing still would be success
CAMERA = (320, 240)      # pixels; one of the two sizes that the embedded model was trained on


@dataclass
class Outcome:
    """What happened in a drive: counts, its length [m, s], and the expert's length [m]."""

    seed: int
    vehicle_collisions: int = 0
    pedestrian_collisions: int = 0
    red_lights_run: int = 0
    lane_departures: int = 0
    metres: float = 0.0
    seconds: float = 0.0
    expert_metres: float = math.nan

    @property
    def faults(self):
        return (self.vehicle_collisions + self.pedestrian_collisions + self.red_lights_run
                + self.lane_departures)

    @property
    def progress(self):
        """Share of the way that the expert made in this world."""
        return self.metres / self.expert_metres if self.expert_metres else math.nan

    @property
    def success(self):
        """No fault, and not by standing still."""
        return self.faults == 0 and self.progress >= FAR_ENOUGH


class Trial:
    """One drive, judged at every tick; over after a collision or when the road is lost."""

    def __init__(self, seed):
        width, height = CAMERA
        self.simulation = Simulation(random_world(seed, width=width, height=height))
        self.outcome = Outcome(seed)
        self.over = self._departed = False

    def advance(self, action):
        """Drive on by an Action until the next decision, unless the drive is over before."""
        for _ in range(round(THINK / TICK)):
            before = self.simulation.ego.s
            self.simulation.step(action)
            self._judge(before)
            if self.over:
                break

    def _judge(self, before):
        """Count what happened in the last tick; `before` [m] is where it began."""
        simulation, outcome = self.simulation, self.outcome
        ego, now = simulation.ego, simulation.time
        outcome.metres, outcome.seconds = float(ego.s), now
        outcome.vehicle_collisions += bool(self._hits_vehicle())
        outcome.pedestrian_collisions += bool(self._hits_pedestrian())
        outcome.red_lights_run += sum(
            bool(before < signal.s <= ego.s) and signal.state(now, ego.s) == 'red'
            for signal in simulation.world.signals)
        departed = bool(abs(ego.offset) > DEPARTED)
        outcome.lane_departures += departed and not self._departed
        self._departed = departed
        self.over = bool(outcome.vehicle_collisions or outcome.pedestrian_collisions
                         or abs(ego.offset) > LOST)

    def _hits_vehicle(self):
        ego, world = self.simulation.ego, self.simulation.world
        ahead = -LENGTH < world.leader.s - ego.s < 0 and abs(ego.offset) < WIDTH
        return ahead or any(-2 * LENGTH < other.s < 0 and abs(other.d - ego.offset) < WIDTH
                            for other in oncoming(world, ego.s, self.simulation.time))

    def _hits_pedestrian(self):
        ego, now = self.simulation.ego, self.simulation.time
        people = (crossing.pedestrian(now, ego.s, ego.speed)
                  for crossing in self.simulation.world.crossings)
        return ego.speed > MOVING and any(
            -LENGTH - PERSON < person.s < PERSON
            and abs(person.d - ego.offset) < WIDTH / 2 + PERSON for person in people)


def drive_expert(seed, seconds):
    """Return the Outcome of the expert in the world of a seed."""
    trial = Trial(seed)
    for _ in range(round(seconds / THINK)):
        if trial.over:
            break
        trial.advance(drive(trial.simulation.look()).action)
    trial.outcome.expert_metres = trial.outcome.metres
    return trial.outcome


def drive_closed_loop(driver, drives, seconds, *, processes=None, progress=lambda text: None):
    """Return (the driver's Outcomes, the expert's) of `drives` drives of `seconds` each.

    Frames are rendered by `processes` other processes (as many as there are cores; 0: by this
    one) for one half of the drives while the model decides for the other half.
    """
    seeds = held_out_seeds(drives)
    trials = [Trial(seed) for seed in seeds]
    halves = [half for half in (trials[::2], trials[1::2]) if half]
    steps, started = round(seconds / THINK), time.monotonic()
    with rendering(processes) as (start, experts):
        expected = experts(seeds, seconds)
        waiting = [look(half, start) for half in halves]
        for step in range(steps):
            for index, half in enumerate(halves):
                decide(driver, *waiting[index])
                waiting[index] = look(half, start)
            if step % 10 == 9:
                left = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
                under_way = sum(not trial.over for trial in trials)
                progress(f'{(step + 1) * THINK:.0f} of {seconds:.0f} s, {under_way} of {drives} '
                         f'drives under way, {left:.0f} s left')
        experts = expected()
    for trial, expert in zip(trials, experts):
        trial.outcome.expert_metres = expert.metres
    return [trial.outcome for trial in trials], experts


@contextmanager
def rendering(processes):
    """Yield two functions that start work and return a function that waits for its result.

    The first renders a list of Scenes, the second drives a list of seeds as the expert does.
    """
    processes = os.cpu_count() if processes is None else processes
    if not processes:
        yield (lambda scenes: lambda: list(map(render, scenes)),
               lambda seeds, seconds: lambda: [drive_expert(seed, seconds) for seed in seeds])
        return
    with rendering_pool(processes) as pool:
        yield (lambda scenes: pool.map_async(render, scenes, chunksize=5).get,
               lambda seeds, seconds: pool.starmap_async(
                   drive_expert, [(seed, seconds) for seed in seeds], chunksize=5).get)


def look(trials, start):
    """Start to render what those of the trials see that are not over."""
    under_way = [trial for trial in trials if not trial.over]
    scenes = [trial.simulation.look() for trial in under_way]
    return under_way, scenes, start(scenes)


def decide(driver, trials, scenes, wait):
    """Let the driver decide for trials whose frames are being rendered, and drive on."""
    questions = [(frame, trial.simulation.ego.state, Command(speed_limit=scene.speed_limit))
                 for trial, scene, frame in zip(trials, scenes, wait())]
    for first in range(0, len(questions), BATCH):
        decisions = driver.decide_all(questions[first:first + BATCH])
        for trial, decision in zip(trials[first:first + BATCH], decisions):
            trial.advance(decision.action)


COUNTS = ('vehicle_collisions', 'pedestrian_collisions', 'red_lights_run', 'lane_departures')


def summarise(outcomes):
    """Return success and progress as shares, the faults as counts a drive, as a flat dict."""
    return {'drives': len(outcomes),
            'success': float(np.mean([outcome.success for outcome in outcomes])),
            'progress': float(np.mean([outcome.progress for outcome in outcomes])),
            **{name: float(np.mean([getattr(outcome, name) for outcome in outcomes]))
               for name in COUNTS}}


def record(outcomes):
    """Return what happened drive by drive, ready for JSON."""
    return [{**asdict(outcome), 'success': outcome.success} for outcome in outcomes]
