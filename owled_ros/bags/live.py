"""A drive that is not in a bag but happening: the same pairing, as messages come in."""

from collections import deque

from owled_ros.bags.samples import command_of, stamp_of, Timeline

# A step back in time [ns] that is no disorder of messages: what plays has started again.
JUMP_BACK = 10**9


class LiveDrive:
    """Pairs frames with odometry; a frame is ready when the horizon after it has been driven.

    Of the frames only one every `spacing` [s] is kept, so what waits is bounded. `left_out` is
    told, in one phrase, why a frame became no pair. Not thread safe.
    """

    def __init__(self, source, spacing=0.5, left_out=lambda reason: None):
        self.source, self.spacing = source, round(spacing * 1e9)
        self._left_out = left_out
        self.lap = 0
        self._start_again()

    def _start_again(self):
        self.lap += 1
        self._timeline = Timeline(self.source, f'live {self.lap}')
        self._waiting = deque()
        self._last_frame = None

    def add_odometry(self, message):
        """Take what tells the motion; return the (Moment, image message) pairs it completes."""
        reading = self._timeline.odometry(message)
        if reading is None:
            return []
        newest = self._timeline.motion.last_stamp
        if newest is not None and reading[0] < newest - JUMP_BACK:
            self._start_again()
        self._timeline.motion.add(*reading)
        return list(self._ready())

    def add_frame(self, message):
        """Take an image message, raw or compressed."""
        stamp = stamp_of(message)
        if self._last_frame is None or stamp >= self._last_frame + self.spacing:
            self._last_frame = stamp
            self._waiting.append((stamp, message))

    def add_command(self, message):
        """Take a DrivingCommand message."""
        command = command_of(message)
        if command is not None:
            self._timeline.commands.append((stamp_of(message), command))
            self._timeline.commands.sort(key=lambda item: item[0])

    def add_camera_info(self, message):
        """Take a CameraInfo message."""
        self._timeline.add_camera_info(message)

    def _ready(self):
        horizon = round(self.source.horizon * 1e9)
        while self._waiting and self._waiting[0][0] + horizon <= self._timeline.motion.last_stamp:
            stamp, message = self._waiting.popleft()
            moment = self._timeline.moment_at(stamp)
            if isinstance(moment, str):
                self._left_out(moment)
            else:
                yield moment, message
