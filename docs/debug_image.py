#!/usr/bin/env python3
"""
Draw docs/debug_image.jpg, the picture of docs/watching.md.

    python docs/debug_image.py
"""

from pathlib import Path

import cv2
import numpy as np
from owled_ros.driver.action import ActionLimiter, Command, Limits, Status
from owled_ros.driver.driver import Driver
from owled_ros.film.overlay import draw_action, draw_refusal
from owled_ros.scenes.drive import random_world, simulate
from owled_ros.scenes.expert import drive
from owled_ros.scenes.recording import WHEELBASE
from owled_ros.scenes.render import render

PICTURE = Path(__file__).with_name('debug_image.jpg')
SEED, SECONDS = 7, 33.0     # a frame of the demo drive, in a bend
QUALITY = 80
# As the node says it where frames no longer come.
REASON = 'the last frame came 0.63 s ago on /camera/image_raw/compressed'


def moment_shown():
    """Return the last moment of the demo drive at which the expert decides."""
    return [moment for moment in simulate(random_world(SEED), drive, SECONDS) if moment.decided][-1]


def draw():
    """Write an action and a refusal side by side, as the node draws them."""
    moment, driver = moment_shown(), Driver.load('embedded')
    frame = render(moment.scene)
    decision = driver.decide(frame, moment.ego)
    action = ActionLimiter(Limits(), WHEELBASE, 1.0).apply(
        decision.action, moment.ego, Command(), moment.time, 1.0)
    words = driver.explain(decision)
    while not words.advance(16):
        pass
    pictures = (draw_action(frame, action, words.text, f'{Status.OK.name}   40 ms after the frame'),
                draw_refusal(frame, Status.STALE_INPUT, REASON))
    cv2.imwrite(str(PICTURE), np.hstack(pictures)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == '__main__':
    draw()
