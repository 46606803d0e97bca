"""Draws an action onto its frame, for people who watch."""

import cv2
import numpy as np

GREEN, RED, WHITE = (60, 220, 90), (235, 70, 60), (255, 255, 255)
LOOK_AHEAD = 25.0       # m of path drawn
CAMERA_HEIGHT = 1.4     # m, for the drawing only
FOCAL_SHARE = 0.9       # focal length as a share of the width, for the drawing only
FULL_BAR = 5.0          # m/s^2 that fills half the bar
TEXT_WIDTH = 900         # pixels of a picture's width at which the text has its full size
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_action(frame, action, text='', note=''):
    """Return a copy of `frame` with the path as an arc, the acceleration as a bar, and words.

    frame: (H, W, 3) uint8 RGB; action: LimitedAction; text: the last explanation; note: what
    else is to be known, as status and age.
    """
    picture = np.ascontiguousarray(frame).copy()
    _draw_path(picture, action.curvature)
    _draw_bar(picture, action.acceleration)
    name = action.maneuver.name.replace('_', ' ').lower()
    _write(picture, [
        f'{name}  {action.acceleration:+.1f} m/s2  '
        f'{np.degrees(action.steering_angle):+.1f} deg  -> {action.target_speed:.1f} m/s',
        *_wrap(text, picture.shape[1])])
    if note:
        _write_below(picture, note)
    return picture


def draw_refusal(frame, status, reason):
    """Return a grey copy of the last `frame`, (H, W, 3) uint8 RGB, that says why nothing is driven.

    status: a Status other than OK; reason: its sentence.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) // 2
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    _write(picture, [status.name, *_wrap(reason, picture.shape[1])], RED)
    return picture


def _draw_path(picture, curvature):
    """Project the arc on flat ground; how the camera is mounted is guessed, not known."""
    height, width = picture.shape[:2]
    ahead = np.linspace(3.0, LOOK_AHEAD, 40)
    left = 0.5 * curvature * ahead ** 2
    focal = FOCAL_SHARE * width
    across = width / 2 - focal * left / ahead
    down = height / 2 + focal * CAMERA_HEIGHT / ahead
    points = np.stack([across, down], axis=1)
    points = np.clip(points, -4 * width, 4 * width).round().astype(np.int32)
    cv2.polylines(picture, [points], False, GREEN, max(2, width // 160), cv2.LINE_AA)


def _draw_bar(picture, acceleration):
    height, width = picture.shape[:2]
    thick, middle, half = max(6, width // 60), height // 2, height // 4
    left = width - 2 * thick
    end = middle - int(half * float(np.clip(acceleration / FULL_BAR, -1, 1)))
    cv2.rectangle(picture, (left, middle - half), (left + thick, middle + half), WHITE, 1)
    colour = GREEN if acceleration >= 0 else RED
    cv2.rectangle(picture, (left, min(middle, end)), (left + thick, max(middle, end)), colour, -1)


def _write(picture, lines, first=WHITE):
    """Write lines of words at the top, on a darkened band so that they can always be read.

    first: the colour of the first line.
    """
    scale, step = _scale(picture)
    _darken(picture[:step * len(lines) + step // 3])
    for number, words in enumerate(lines, start=1):
        _put(picture, words, int(step * (number - 0.15)), scale, first if number == 1 else WHITE)


def _write_below(picture, words):
    """Write one line of words at the bottom."""
    scale, step = _scale(picture)
    _darken(picture[-step - step // 3:])
    _put(picture, words, picture.shape[0] - step // 2, scale, WHITE)


def _scale(picture):
    """Return the size of the text, and the height of a line [pixels]."""
    scale = picture.shape[1] / TEXT_WIDTH
    return scale, max(int(34 * scale), 8)


def _darken(band):
    band[:] = band // 3


def _put(picture, words, down, scale, colour):
    cv2.putText(picture, words, (int(12 * scale) + 4, down), FONT, scale, colour, 1, cv2.LINE_AA)


def _wrap(text, width):
    """Split words into at most three lines that fit a picture `width` pixels wide."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if cv2.getTextSize(longer, FONT, width / TEXT_WIDTH, 1)[0][0] > 0.9 * width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line for line in lines[:3] if line]
