"""Which frames may be driven by."""

import zlib

import numpy as np
from owled_ros.driver.action import Status
from owled_ros.ros.refused import Refused
from owled_ros.ros.timekeeper import doubt

# Of a picture with a side of 1 or 3, image processors take that side for its channels.
SMALLEST_SIDE = 4  # pixels
SAMPLED = 16       # every so many rows and columns are looked at before the whole picture is


class FrameGate:
    """Refuses frames that are old, from the future, out of order, blank, frozen or too small.

    The callbacks ask for time and order, the worker for the picture.
    """

    def __init__(self):
        """Know of no frame yet; a new activation, or a clock that went back, takes a new gate."""
        self._last_stamp = None
        self._size = None
        self._picture = None
        self._repeats = 0

    def newest(self):
        """Return the stamp [ns] of the last frame let through, or None."""
        return self._last_stamp

    def check_time(self, stamp, now, settings):
        """Raise Refused unless a frame stamped `stamp` [ns] is good at the time `now` [ns]."""
        if stamp <= 0:
            raise Refused(Status.INVALID_INPUT, 'the frame has no stamp, or one before 1970; '
                          'fill in header.stamp')
        age = (now - stamp) / 1e9
        if age > settings.max_frame_age:
            raise Refused(Status.STALE_INPUT, f'the frame is {age:.3f} s old; '
                          f'max_frame_age is {settings.max_frame_age:g} s' + doubt(age))
        if age < -settings.max_clock_skew:
            raise Refused(Status.INVALID_INPUT, f'the frame is stamped {-age:.3f} s in the '
                          f'future; max_clock_skew is {settings.max_clock_skew:g} s' + doubt(age))

    def check_order(self, stamp):
        """Raise Refused unless `stamp` [ns] is later than that of the last frame let through."""
        if self._last_stamp is not None and stamp <= self._last_stamp:
            late = (self._last_stamp - stamp) / 1e9
            raise Refused(Status.INVALID_INPUT, f'the frame is out of order: stamped {late:.3f} s '
                          'before the last one, or the same')
        self._last_stamp = stamp

    def check_picture(self, frame, settings):
        """Raise Refused when the (H, W, 3) uint8 `frame` shows nothing, or never changes."""
        self._check_size(frame.shape[:2], settings)
        # A lens cap, a failed decoder and an unfilled buffer all give one value everywhere; that
        # of an unfilled YUV buffer is a green.
        if _one_colour(frame):
            raise Refused(Status.INVALID_INPUT, 'every pixel of the frame has the value '
                          + ' '.join(map(str, frame[0, 0].tolist())))
        self._check_frozen(frame, settings)
        self._size = frame.shape[:2]

    def _check_size(self, size, settings):
        if min(size) < SMALLEST_SIDE:
            raise Refused(Status.INVALID_INPUT, f'the frame has {_pixels(size)} pixels; no side '
                          f'may be shorter than {SMALLEST_SIDE}')
        configured = (settings.image_height, settings.image_width)
        expected = configured if all(configured) else self._size
        if expected is not None and size != expected:
            raise Refused(
                Status.INVALID_INPUT, f'the frame has {_pixels(size)} pixels instead of '
                f'{_pixels(expected)}; if the camera was changed, ' + (
                    'set image_width and image_height' if all(configured)
                    else 'deactivate the node and activate it again'))

    def _check_frozen(self, frame, settings):
        picture = zlib.crc32(np.ascontiguousarray(frame))
        self._repeats = self._repeats + 1 if picture == self._picture else 0
        self._picture = picture
        # Sensor noise alone makes two frames of a working camera differ.
        if 0 < settings.max_frozen_frames <= self._repeats:
            raise Refused(Status.INVALID_INPUT, f'the camera shows the same picture for the '
                          f'{self._repeats + 1}th time; it seems frozen')


def _one_colour(frame):
    """Return whether all pixels of an (H, W, 3) frame are the same."""
    first = frame[0, 0]
    # Most pictures differ in the sample already, and the whole is read only for those that do not.
    return bool((frame[::SAMPLED, ::SAMPLED] == first).all() and (frame == first).all())


def _pixels(size):
    height, width = size
    return f'{width}x{height}'
