"""Asks a driver about single frames and compares its answers with the truth."""

from dataclasses import dataclass
import math
import time

import numpy as np

from owled_ros.driver.action import Action
from owled_ros.evaluation.sentences import read_sentence


@dataclass(frozen=True)
class Answer:
    """A driver's answer to a Case, and how long [s] its action took."""

    truth: Action
    action: Action
    true_text: str
    text: str
    seconds: float


def ask(driver, cases, *, explain=True, total=None, progress=lambda text: None):
    """Return the driver's Answers to an iterable of Cases, in order."""
    answers = []
    started = time.monotonic()
    for case in cases:
        decision = driver.decide(case.frame, case.ego, case.command)
        text = ''
        if explain:
            stream = driver.explain(decision)
            while not stream.advance(16):
                pass
            text = stream.text
        answers.append(Answer(case.action, decision.action, case.explanation, text,
                              decision.compute_time))
        if len(answers) % 100 == 0:
            rate = len(answers) / (time.monotonic() - started)
            left = f', {(total - len(answers)) / rate:.0f} s left' if total else ''
            progress(f'{len(answers)} frames{left}')
    return answers


def measure(answers, wheelbase):
    """Return the metrics of a list of Answers as a flat dict; NaN where they do not apply.

    mae_acceleration [m/s^2], mae_curvature [1/m], mae_steering [rad at the front wheels of a
    vehicle with this wheelbase, m]; shares between 0 and 1. `parsed` counts answers that are an
    action and, where the truth has a sentence, a sentence of the same form.
    """
    errors = np.array([(a.action.acceleration - a.truth.acceleration,
                        a.action.curvature - a.truth.curvature,
                        math.atan(wheelbase * a.action.curvature)
                        - math.atan(wheelbase * a.truth.curvature)) for a in answers])
    maes = np.abs(errors).mean(0) if len(errors) else np.full(3, math.nan)
    said = [(read_sentence(a.true_text), read_sentence(a.text)) for a in answers]
    spoken = [(truth, ours) for truth, ours in said if truth is not None]
    return {
        'frames': len(answers),
        'mae_acceleration': float(maes[0]), 'mae_curvature': float(maes[1]),
        'mae_steering': float(maes[2]),
        'maneuver_accuracy': share(a.action.maneuver == a.truth.maneuver for a in answers),
        'parsed': share(ours is not None for truth, ours in said
                        if truth is not None) if spoken else share(True for _ in answers),
        **language_metrics(spoken),
        'seconds_to_action_p50': float(np.median([a.seconds for a in answers])),
    }


def language_metrics(spoken):
    """Metrics of what is said, over pairs of (true Statement, Statement or None)."""
    def agrees(name, pairs):
        return share(ours is not None and getattr(truth, name) == getattr(ours, name)
                     for truth, ours in pairs)

    crossing = [pair for pair in spoken if pair[0].pedestrian == 'in the lane']
    clear = [pair for pair in spoken if pair[0].pedestrian != 'in the lane']
    return {
        'light_accuracy': agrees('light', spoken),
        'light_distance_mae': distance_error('light_distance', spoken),
        'lead_accuracy': share(
            ours is not None and (truth.lead_distance is None) == (ours.lead_distance is None)
            for truth, ours in spoken),
        'lead_distance_mae': distance_error('lead_distance', spoken),
        'pedestrian_in_lane_found': agrees('pedestrian', crossing),
        'pedestrian_in_lane_false_alarms': share(
            ours is not None and ours.pedestrian == 'in the lane' for _, ours in clear),
        'cause_accuracy': agrees('reason', spoken),
    }


def distance_error(name, spoken):
    """Mean absolute error [m] where truth and answer both give this distance."""
    errors = [abs(getattr(truth, name) - getattr(ours, name)) for truth, ours in spoken
              if ours is not None and None not in (getattr(truth, name), getattr(ours, name))]
    return float(np.mean(errors)) if errors else math.nan


def share(truths):
    values = list(truths)
    return sum(values) / len(values) if values else math.nan
