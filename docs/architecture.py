#!/usr/bin/env python3
"""
Draw docs/architecture.png, the picture of docs/concepts.md.

    python docs/architecture.py
"""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

PICTURE = Path(__file__).with_name('architecture.png')
WIDTH, HEIGHT = 120, 66     # of the picture; ten to an inch
OUTSIDE, NODE, MODEL, OFFLINE, EDGE = '#f4f4f4', '#dce8f5', '#e3f2df', '#fbeed5', '#44505c'

# (x, y, width, height) from the lower left corner, colour, title, words.
BOXES = [
    (2, 52, 16, 8, OUTSIDE, 'camera', 'image'),
    (2, 42, 16, 8, OUTSIDE, 'vehicle', 'odom'),
    (2, 32, 16, 8, OUTSIDE, 'route', 'command (optional)'),
    (25, 42, 15, 13, NODE, 'checks', 'age, stamp, size,\nfrozen, believable'),
    (45, 44, 11, 9, NODE, 'slot of one', 'newest frame'),
    (60, 44, 11, 9, NODE, 'watchdog', 'steady clock'),
    (76, 42, 15, 13, NODE, 'way out', 'ticket, limits,\ndeadline, last look'),
    (101, 51, 17, 8, OUTSIDE, 'planner', 'owled/action'),
    (101, 40, 17, 8, OUTSIDE, 'people', 'owled/explanation'),
    (43, 24, 15, 9, MODEL, 'model', 'prompt, constrained\ndecoding'),
    (2, 12.5, 16, 7, OUTSIDE, 'dense model', ''),
    (2, 3, 16, 7, OUTSIDE, 'recorded drive', 'rosbag2'),
    (25, 5, 15, 11, OFFLINE, 'calibration', 'what matters,\nthen pruning'),
    (43, 5.5, 15, 10, OFFLINE, 'pruned model', 'owled.json, report'),
    (76, 5.5, 15, 10, OFFLINE, 'evaluation', 'scenes, bags,\nclosed loop'),
]
# What lies in one process: (x, y, width, height, name).
PROCESSES = [(22, 39.5, 71.5, 23.5, 'driving node'), (30, 21.5, 31, 14.5, 'process of the model'),
             (22, 1.5, 71.5, 18, 'offline')]
# The corners that an arrow goes through, its words, and where they stand.
ARROWS = [
    ([(18, 56), (21, 56), (21, 50), (25, 50)], '', None),
    ([(18, 46), (25, 46)], '', None),
    ([(18, 36), (21, 36), (21, 43.5), (25, 43.5)], '', None),
    ([(40, 48.5), (45, 48.5)], '', None),
    ([(71, 48.5), (76, 48.5)], '', None),
    ([(32.5, 55), (32.5, 59), (83.5, 59), (83.5, 55)], 'refused: a status at once', (58, 60)),
    ([(50.5, 44), (50.5, 33)], 'picture, motion', (56.7, 37.2)),
    ([(58, 30), (81, 30), (81, 42)], 'action', (69, 31)),
    ([(58, 27), (86, 27), (86, 42)], 'then its explanation', (72, 25)),
    ([(91, 51), (96, 51), (96, 55), (101, 55)], '', None),
    ([(91, 46), (96, 46), (96, 44), (101, 44)], '', None),
    ([(18, 16), (21, 16), (21, 12.5), (25, 12.5)], '', None),
    ([(18, 6.5), (21, 6.5), (21, 8.5), (25, 8.5)], '', None),
    ([(40, 10.5), (43, 10.5)], '', None),
    ([(58, 10.5), (76, 10.5)], '', None),
    ([(50.5, 15.5), (50.5, 24)], 'loaded', (54.5, 17.8)),
]


def draw():
    """Write the picture; the same bytes from the same version of Matplotlib."""
    figure = pyplot.figure(figsize=(WIDTH / 10, HEIGHT / 10), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis('off')
    for x, y, width, height, name in PROCESSES:
        axes.add_patch(rounded(x, y, width, height, facecolor='none', linestyle='--'))
        axes.text(x + 1, y + height - 1, name, va='top', fontsize=9, style='italic', color=EDGE)
    for x, y, width, height, colour, title, words in BOXES:
        axes.add_patch(rounded(x, y, width, height, facecolor=colour))
        above = 0.9 * (words.count('\n') + 1) if words else 0
        axes.text(x + width / 2, y + height / 2 + above, title, ha='center', va='center',
                  fontsize=11, weight='bold')
        axes.text(x + width / 2, y + height / 2 - 1.2, words, ha='center', va='center', fontsize=9)
    for corners, words, place in ARROWS:
        axes.plot(*zip(*corners[:-1]), color=EDGE, linewidth=1.4, solid_capstyle='butt')
        axes.annotate('', corners[-1], corners[-2], arrowprops={
            'arrowstyle': '-|>', 'color': EDGE, 'linewidth': 1.4, 'shrinkA': 0, 'shrinkB': 0})
        if words:
            axes.text(*place, words, fontsize=9, ha='center', color=EDGE)
    figure.savefig(PICTURE, metadata={'Software': None})


def rounded(x, y, width, height, **style):
    return FancyBboxPatch((x, y), width, height, boxstyle='round,pad=0,rounding_size=1',
                          edgecolor=EDGE, linewidth=1.1, **style)


if __name__ == '__main__':
    draw()
