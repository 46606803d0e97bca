"""The paper's metrics: what an answer gets right. Definitions and units: docs/evaluation.md.

Every metric is the mean, over the frames that it applies to, of one number per frame; so frames
can be drawn again for confidence intervals, and two models be compared frame by frame. The names
are those of OWLed (arXiv 2411.07711), which takes them from arXiv 2310.01957, section IV.
"""

import math

import numpy as np
from owled_ros.evaluation.sentences import read_sentence

# What nuPlan calls comfortable (arXiv 2106.11810, `ego_is_comfortable`), m/s^2.
COMFORTABLE_BRAKING = -4.05
COMFORTABLE_ACCELERATION = 2.40
COMFORTABLE_SIDEWAYS = 4.89

DISTANCES = ('light_distance', 'lead_distance', 'pedestrian_distance')
SLOTS = ('light', 'lead_distance', 'lead_braking', 'pedestrian', 'light_distance',
         'pedestrian_distance', 'deed', 'reason')


def measure(answers, wheelbase):
    """Return the metrics of a list of Answers as a flat dict; NaN where they do not apply."""
    table = scores(answers, wheelbase)
    return {'frames': len(answers), **{name: mean(column) for name, column in table.items()}}


def scores(answers, wheelbase):
    """Return name -> (frames,) array of what each Answer scores, NaN where it does not apply.

    wheelbase [m]: of the vehicle whose steering angle E_lat is.
    """
    rows = [score(answer, wheelbase) for answer in answers]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def mean(column):
    """Return the mean of those that are not NaN; NaN where all are."""
    counted = column[~np.isnan(column)]
    return float(counted.mean()) if len(counted) else math.nan


def score(answer, wheelbase):
    """Return what one Answer scores: action, then language and perception."""
    return {**score_action(answer, wheelbase), 'L_token': answer.token_loss,
            **score_sentence(read_sentence(answer.true_text), read_sentence(answer.text))}


def score_action(answer, wheelbase):
    ours, truth = answer.action, answer.truth
    return {
        'E_lon': abs(ours.acceleration - truth.acceleration),
        'E_lat': abs(math.atan(wheelbase * ours.curvature)
                     - math.atan(wheelbase * truth.curvature)),
        'maneuver_accuracy': float(ours.maneuver == truth.maneuver),
        'comfort': float(is_comfortable(ours, answer.ego.speed)),
        'true_comfort': float(is_comfortable(truth, answer.ego.speed)),
    }


def is_comfortable(action, speed):
    """Say whether an Action at `speed` [m/s] stays within the bounds of comfort."""
    along = COMFORTABLE_BRAKING <= action.acceleration <= COMFORTABLE_ACCELERATION
    return along and abs(action.curvature) * speed ** 2 <= COMFORTABLE_SIDEWAYS


def score_sentence(truth, ours):
    """Compare two Statements; ours is None where it cannot be read, truth where there is none."""
    if truth is None:
        return {**dict.fromkeys(SENTENCE_SCORES, math.nan), 'parse_rate': 1.0}
    if ours is None:
        return {**dict.fromkeys(SENTENCE_SCORES, math.nan), 'E_car': 1.0, 'E_ped': 1.0,
                'Acc_TL': 0.0, 'cause_accuracy': 0.0, 'slot_accuracy': 0.0, 'parse_rate': 0.0,
                **pedestrian_scores(truth, 'none')}
    return {
        'E_car': float((truth.lead_distance is None) != (ours.lead_distance is None)),
        'E_ped': float((truth.pedestrian == 'none') != (ours.pedestrian == 'none')),
        **pedestrian_scores(truth, ours.pedestrian),
        'Acc_TL': float(truth.light == ours.light),
        'D_TL': distance(truth.light_distance, ours.light_distance),
        'D_lead': distance(truth.lead_distance, ours.lead_distance),
        'cause_accuracy': float(truth.reason == ours.reason),
        'slot_accuracy': float(np.mean([slot_right(truth, ours, slot) for slot in SLOTS])),
        'parse_rate': 1.0,
    }


SENTENCE_SCORES = ('E_car', 'E_ped', 'pedestrian_in_lane_found', 'pedestrian_in_lane_false_alarms',
                   'Acc_TL', 'D_TL', 'D_lead', 'cause_accuracy', 'slot_accuracy', 'parse_rate')


def pedestrian_scores(truth, told):
    """Return whether somebody in the lane is told, and whether it is told of nobody."""
    crossing = truth.pedestrian == 'in the lane'
    said = float(told == 'in the lane')
    return {'pedestrian_in_lane_found': said if crossing else math.nan,
            'pedestrian_in_lane_false_alarms': math.nan if crossing else said}


def distance(truth, ours):
    """Absolute error [m] where both give a distance, else NaN."""
    return math.nan if truth is None or ours is None else abs(truth - ours)


def slot_right(truth, ours, slot):
    """Say whether a slot of the sentence is right; distances within 2 m or 10 %."""
    true, told = getattr(truth, slot), getattr(ours, slot)
    if slot in DISTANCES and true is not None and told is not None:
        return abs(true - told) <= max(2.0, 0.1 * true)
    return true == told
