"""Which moments of a drive to calibrate on: few, from all of it, the rare ones included."""

from collections import defaultdict
from pathlib import Path
import random

# Edges of the kinds of driving. Acceleration [m/s^2]: hard braking, braking, steady, speeding up.
ACCELERATION_EDGES = (-2.5, -0.5, 0.5)
ACCELERATION_NAMES = ('hard braking', 'braking', 'steady', 'speeding up')
# Curvature [1/m]: right, straight, left. 0.01 is a curve of 100 m radius.
CURVATURE_EDGES = (-0.01, 0.01)
CURVATURE_NAMES = ('right', 'straight', 'left')

# How long [ns] the pieces of a drive are of which every fifth is held out. Neighbouring frames
# are nearly the same picture, so single frames would not be unseen.
HELD_OUT_PIECE = 3 * 10**9
HELD_OUT_EVERY = 5


def choose_samples(moments, count, seed=0):
    """Return `count` of the moments (all, where there are fewer), in their order.

    Every kind of driving that occurs (braking, turning, ...) gets a share that grows with the
    square root of how often it occurs, and at least one: a drive is mostly straight and steady,
    and a plain draw would miss the rest. Within a kind they are spread over time. The same
    moments and seed give the same choice.
    """
    kinds = defaultdict(list)
    for index, moment in enumerate(moments):
        kinds[kind_of(moment.action)].append(index)
    chance = random.Random(seed)
    chosen = []
    for kind, share in shares(kinds, count).items():
        chosen += spread(kinds[kind], share, chance)
    return [moments[index] for index in sorted(chosen)]


def kind_of(action):
    """Return the kind of driving of an Action as two small numbers."""
    return (sum(action.acceleration > edge for edge in ACCELERATION_EDGES),
            sum(action.curvature > edge for edge in CURVATURE_EDGES))


def name_of(kind):
    """Return words for a kind of driving."""
    acceleration, curvature = kind
    return f'{ACCELERATION_NAMES[acceleration]}, {CURVATURE_NAMES[curvature]}'


def account_of(moments, chosen, held_out):
    """Return what is told of a choice of moments, for JSON.

    `kinds`: how many are usable, calibrated on and held out of each kind of driving. `drives`:
    name and length [s] of each drive, and [time in it [s], kind] of what was chosen from it.
    """
    groups = {'usable': moments, 'calibration': chosen, 'held_out': held_out}
    kinds = {name_of(kind): dict.fromkeys(groups, 0)
             for kind in sorted({kind_of(moment.action) for moment in moments})}
    drives = {}
    for moment in moments:
        drive = drives.setdefault(moment.bag, {
            'name': Path(moment.bag).name, 'start': moment.stamp, 'calibration': [],
            'held_out': []})
        drive['seconds'] = round((moment.stamp - drive['start']) / 1e9, 2)
    for group, members in groups.items():
        for moment in members:
            kind = name_of(kind_of(moment.action))
            kinds[kind][group] += 1
            if group != 'usable':
                drive = drives[moment.bag]
                drive[group].append([round((moment.stamp - drive['start']) / 1e9, 2), kind])
    for drive in drives.values():
        del drive['start']
    return {'kinds': kinds, 'drives': list(drives.values())}


def shares(kinds, count):
    """How many moments each kind gives: kind -> number, at the most `count` in all."""
    given = dict.fromkeys(sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind)), 0)
    for _ in range(min(count, sum(map(len, kinds.values())))):
        open_kinds = [kind for kind in given if given[kind] < len(kinds[kind])]
        unseen = [kind for kind in open_kinds if not given[kind]]
        neediest = unseen[0] if unseen else max(
            open_kinds, key=lambda kind: len(kinds[kind]) ** 0.5 / (given[kind] + 1))
        given[neediest] += 1
    return given


def spread(indices, count, chance):
    """Draw one of `indices` from each of `count` equal parts of them."""
    edges = [len(indices) * part // count for part in range(count + 1)] if count else [0]
    return [indices[chance.randrange(start, end)] for start, end in zip(edges, edges[1:])]


def split_held_out(moments):
    """Part moments into (for calibration, held out): every fifth piece of 3 s is held out.

    A drive too short for a fifth piece holds out its last one; a single piece is not parted. A
    piece with a kind of driving that occurs in no other one is not held out.
    """
    pieces = defaultdict(list)
    first = {}
    for moment in moments:
        start = first.setdefault(moment.bag, moment.stamp)
        pieces[moment.bag, (moment.stamp - start) // HELD_OUT_PIECE].append(moment)
    pieces = list(pieces.values())
    every = min(HELD_OUT_EVERY, max(len(pieces), 2))
    kinds = [{kind_of(moment.action) for moment in piece} for piece in pieces]
    kept = {number for number in range(len(pieces)) if (number + 1) % every}
    seen = set().union(*(kinds[number] for number in kept))
    for number in range(len(pieces)):
        if not kinds[number] <= seen:
            kept.add(number)
            seen |= kinds[number]
    return ([m for number, piece in enumerate(pieces) if number in kept for m in piece],
            [m for number, piece in enumerate(pieces) if number not in kept for m in piece])
