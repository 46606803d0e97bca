"""Which frames may be driven by."""

import zlib

import numpy as np

from owled_ros.driver.action import Status
from owled_ros.ros.refused import Refused


class FrameGate:
    """Refuses frames that are old, from the future, out of order, blank or frozen."""

    def __init__(self):
        self.clear()

    def clear(self):
        """Forget the frames seen so far: the clock went back, or the node starts anew."""
        self._last_stamp = None
        self._picture = None
        self._repeats = 0

    def check_time(self, stamp, now, settings):
        """Raise Refused unless a frame stamped `stamp` [ns] is good at the time `now` [ns]."""
        age = (now - stamp) / 1e9
        if age > settings.max_frame_age:
            raise Refused(Status.STALE_INPUT, f'the frame is {age:.3f} s old; '
                          f'max_frame_age is {settings.max_frame_age:g} s')
        if age < -settings.max_clock_skew:
            raise Refused(Status.INVALID_INPUT, f'the frame is stamped {-age:.3f} s in the '
                          f'future; max_clock_skew is {settings.max_clock_skew:g} s')

    def check_order(self, stamp):
        """Raise Refused unless `stamp` [ns] is later than that of the last frame let through."""
        if self._last_stamp is not None and stamp <= self._last_stamp:
            late = (self._last_stamp - stamp) / 1e9
            raise Refused(Status.INVALID_INPUT, f'the frame is out of order: stamped {late:.3f} s '
                          'before the last one, or the same')
        self._last_stamp = stamp

    def check_picture(self, frame, settings):
        """Raise Refused when the (H, W, 3) uint8 `frame` shows nothing, or never changes."""
        # A lens cap, a failed decoder and an unfilled buffer all give one value everywhere.
        if frame.min() == frame.max():
            raise Refused(Status.INVALID_INPUT,
                          f'every pixel of the frame has the value {int(frame.flat[0])}')
        picture = zlib.crc32(np.ascontiguousarray(frame))
        self._repeats = self._repeats + 1 if picture == self._picture else 0
        self._picture = picture
        # Sensor noise alone makes two frames of a working camera differ.
        if 0 < settings.max_frozen_frames <= self._repeats:
            raise Refused(Status.INVALID_INPUT, f'the camera shows the same picture for the '
                          f'{self._repeats + 1}th time; it seems frozen')
