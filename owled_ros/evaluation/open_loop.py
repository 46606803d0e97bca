"""Asks a driver about single frames and keeps its answers beside the truth."""

from dataclasses import dataclass
from itertools import islice
import math
import time

import numpy as np
from owled_ros.driver.action import Action, EgoState
from owled_ros.driver.checkpoint import locate, weight_files

BATCH = 24  # frames decided at a time; the fastest on a CPU, where larger ones leave its cache


@dataclass(frozen=True)
class Answer:
    """A driver's answer to a Case.

    `token_loss` is the mean cross entropy [nats] of the true answer's tokens.
    """

    ego: EgoState
    truth: Action
    action: Action
    true_text: str
    text: str
    token_loss: float = math.nan


def ask(driver, cases, *, explain=True, batch=BATCH, total=None, progress=lambda text: None):
    """Return the driver's Answers to an iterable of Cases, in order, `batch` at a time."""
    answers, cases = [], iter(cases)
    started = time.monotonic()
    while group := list(islice(cases, batch)):
        answers += ask_batch(driver, group, explain)
        if len(answers) % 100 < len(group):  # another hundred
            rate = len(answers) / (time.monotonic() - started)
            left = f', {(total - len(answers)) / rate:.0f} s left' if total else ''
            progress(f'{len(answers)} frames{left}')
    return answers


def ask_batch(driver, cases, explain=True):
    """Return the driver's Answers to a list of Cases, decoded in one batch."""
    decisions = driver.decide_all(
        [(case.frame, case.ego, case.command) for case in cases],
        [(case.action, case.explanation if explain else '') for case in cases])
    texts = driver.explain_all(decisions) if explain else [''] * len(cases)
    return [Answer(case.ego, case.action, decision.action, case.explanation if explain else '',
                   text, float(decision.losses.mean()))
            for case, decision, text in zip(cases, decisions, texts)]


def time_driver(driver, cases, frames=20):
    """Return how long [s] actions and whole explanations take, one frame at a time.

    The first three of at most `frames` + 3 Cases warm up and are not counted.
    """
    to_action, to_explanation = [], []
    for case in islice(cases, frames + 3):
        started = time.monotonic()
        decision = driver.decide(case.frame, case.ego, case.command)
        stream = driver.explain(decision)
        while not stream.advance(16):
            pass
        to_action.append(decision.compute_time)
        to_explanation.append(time.monotonic() - started)
    counted = slice(3 if len(to_action) > 3 else 0, None)
    return {'seconds_to_action_p50': percentile(to_action[counted], 50),
            'seconds_to_action_p95': percentile(to_action[counted], 95),
            'seconds_to_explanation_p50': percentile(to_explanation[counted], 50)}


def percentile(values, share):
    return float(np.percentile(values, share)) if values else math.nan


def weight_bytes(model):
    """Return the size [bytes] of a model's weights, as they lie in its directory."""
    return sum(path.stat().st_size for path in weight_files(locate(model)))
