"""Draws an action onto its frame, for people who watch."""

import cv2
import numpy as np

GREEN, RED, WHITE, BLACK = (60, 220, 90), (235, 70, 60), (255, 255, 255), (0, 0, 0)
LOOK_AHEAD = 25.0       # m of path drawn
CAMERA_HEIGHT = 1.4     # m, for the drawing only
FOCAL_SHARE = 0.9       # focal length as a share of the width, for the drawing only
FULL_BAR = 5.0          # m/s^2 that fills half the bar
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_action(frame, action, text=''):
    """Return a copy of `frame` with the path as an arc, the acceleration as a bar, and words.

    frame: (H, W, 3) uint8 RGB; action: LimitedAction; text: the last explanation.
    """
    picture = np.ascontiguousarray(frame).copy()
    _draw_path(picture, action.curvature)
    _draw_bar(picture, action.acceleration)
    name = action.maneuver.name.replace('_', ' ').lower()
    _write(picture, 0, f'{name}  {action.acceleration:+.1f} m/s2  '
           f'{np.degrees(action.steering_angle):+.1f} deg  -> {action.target_speed:.1f} m/s')
    for line, words in enumerate(_wrap(text, picture.shape[1]), start=1):
        _write(picture, line, words)
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


def _write(picture, line, words):
    scale = picture.shape[1] / 1000
    place = (int(12 * scale) + 4, int(34 * scale * (line + 1)))
    # A dark rim keeps the words legible on any picture.
    for colour, thickness in ((BLACK, 3), (WHITE, 1)):
        cv2.putText(picture, words, place, FONT, scale, colour, thickness, cv2.LINE_AA)


def _wrap(text, width):
    """Split words into at most three lines that fit a picture `width` pixels wide."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if cv2.getTextSize(longer, FONT, width / 1000, 1)[0][0] > 0.9 * width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line for line in lines[:3] if line]
