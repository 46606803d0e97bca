"""What comes in: refused at the door, kept for the model, or handed to it."""

from dataclasses import dataclass
import threading
import time
from typing import Any

from owled_ros.driver.action import Command, Status
from owled_ros.driver.pinhole import as_pinhole, camera_of, is_asked
from owled_ros.errors import UserError
from owled_ros.ros import images, messages
from owled_ros.ros.ego_history import EgoHistory
from owled_ros.ros.frame_gate import FrameGate
from owled_ros.ros.model_worker import Slot
from owled_ros.ros.refused import one_line, Refused
from owled_ros.ros.speed_steering import SpeedAndSteering
from owled_ros.ros.timekeeper import doubt


@dataclass(frozen=True)
class Frame:
    """An image message on its way to the model.

    stamp [ns] is its capture time; arrived [s, steady]; wall_clock tells that stamps are of the
    system's clock and not of `/clock`; ticket is that of the outlet at its arrival.
    """

    message: Any
    stamp: int
    arrived: float
    wall_clock: bool
    ticket: tuple


class Inputs:
    """The newest frame, the recent motion and the last command.

    `image`, `odometry` (or `speed` and `steering`), `command` and `camera_info` are subscription
    callbacks and do no work on pixels; `take` and `of` are the worker's.
    """

    def __init__(self, *, clock, outlet, watchdog, counters, topics, logger, wall_clock):
        """Take the Timekeeper and `wall_clock() -> bool`: stamps are of the system's clock."""
        self._topics = topics
        self._clock = clock
        self._outlet = outlet
        self._watchdog = watchdog
        self._counters = counters
        self._logger = logger
        self._wall_clock = wall_clock
        self._slot = Slot()
        self._gate = FrameGate()
        self._ego = EgoHistory(topics)
        self._wheels = SpeedAndSteering(topics)
        self._command = None  # (stamp, Command)
        self._camera = None   # the Camera that was told of last
        self._jumps_seen = 0
        self._jumping = threading.Lock()
        self._decode, self.decoder_name = images.choose_decoder()

    # Callbacks -------------------------------------------------------------------------------

    def image(self, message):
        """Let a frame wait for the model, or refuse it at once."""
        self.notice_clock_jump()
        ticket = self._outlet.ticket()
        if ticket is None:
            return
        arrived = time.monotonic()
        stamp = messages.nanoseconds(message.header.stamp)
        self._counters.count('frames')
        self._watchdog.frame_came(arrived)
        try:
            self._gate.check_time(stamp, self._clock.now(), self._outlet.settings)
            self._gate.check_order(stamp)
        except Refused as refusal:
            self._outlet.refuse(refusal, ticket, stamp)
            return
        if self._slot.put(Frame(message, stamp, arrived, self._wall_clock(), ticket)):
            self._counters.count('frames dropped')

    def odometry(self, message):
        """Keep a measurement of the motion, or note that it cannot be used."""
        self._measure(lambda now, settings: messages.motion(message, settings.base_frame))

    def speed(self, message):
        """Keep a measurement of the motion: this speed with the steering heard last."""
        self._measure(lambda now, settings: self._wheels.motion(message.data, now, settings))

    def steering(self, message):
        """Keep the angle of the front wheels for the next speed."""
        self.notice_clock_jump()
        if self._outlet.ticket() is not None:
            self._wheels.steer(message.data, self._clock.now())

    def _measure(self, read):
        """Keep the Motion that `read(now, settings)` returns; it may raise Refused or UserError."""
        self.notice_clock_jump()
        if self._outlet.ticket() is None:
            return
        settings = self._outlet.settings
        self._counters.count('odometry')
        self._watchdog.odometry_came()
        taken, now = False, self._clock.now()
        try:
            taken = self._ego.add(read(now, settings), now, settings.max_clock_skew)
        except Refused as refusal:
            self._ego.refuse(refusal.reason, refusal.status)
        except UserError as error:
            self._ego.refuse(str(error))
        if not taken:
            self._counters.count('odometry refused')

    def command(self, message):
        """Keep where the route wants to go; one that makes no sense is as good as none."""
        self.notice_clock_jump()
        if self._outlet.ticket() is None:
            return
        try:
            command = messages.command(message)
            stamp = messages.nanoseconds(message.header.stamp)
            self._check_ahead(stamp)
        except UserError as error:
            self._counters.count('commands refused')
            self._logger.warning(str(error), throttle_duration_sec=5.0)
            self._command = None
            return
        self._counters.count('commands')
        self._command = (stamp, command)

    def camera_info(self, message):
        """Keep how the camera sees, from the next frame on."""
        self.notice_clock_jump()
        if self._outlet.ticket() is not None:
            self._camera = camera_of(message)

    def _check_ahead(self, stamp):
        """Raise UserError for a command from the future: later it would look fresh."""
        ahead = (stamp - self._clock.now()) / 1e9
        tolerance = self._outlet.settings.max_clock_skew
        if ahead > tolerance:
            raise UserError(f'the command is stamped {ahead:.3f} s in the future; max_clock_skew '
                            f'is {tolerance:g} s' + doubt(ahead))

    # For the worker --------------------------------------------------------------------------

    def take(self, timeout):
        """Return the newest Frame, or None when none comes within `timeout` [s]."""
        return self._slot.take(timeout)

    def of(self, frame):
        """Return picture (H, W, 3) uint8 RGB, EgoState and Command of a Frame; raise Refused."""
        settings = self._outlet.settings
        # It may have waited for the model, and the clock may stand elsewhere by now.
        now = self._clock.now()
        gate = self._gate  # of this time: it may be another one before the picture is read
        gate.check_time(frame.stamp, now, settings)
        camera = self._camera_if_asked(settings)
        try:
            picture = images.to_rgb(frame.message, self._decode, settings.max_image_pixels)
            if camera is not None:
                picture = as_pinhole(picture, camera, settings.undistort, settings.field_of_view)
        except UserError as error:
            raise Refused(Status.INVALID_INPUT, str(error)) from None
        except MemoryError:
            raise
        except Exception as error:  # what no check foresaw is no reason to blame the model
            raise Refused(Status.INVALID_INPUT,
                          f'the frame cannot be read: {one_line(error)}') from None
        gate.check_picture(picture, settings)
        ego = self._ego.at(frame.stamp, settings.max_ego_age)
        return picture, ego, self._command_at(now, settings)

    def _camera_if_asked(self, settings):
        """Return the Camera to see frames by, None where they are taken as they are."""
        if not is_asked(settings.undistort, settings.field_of_view):
            return None
        camera = self._camera
        if camera is None:
            raise self._topics.missing('camera info')
        return camera

    def _command_at(self, now, settings):
        """Return the command in force at `now` [ns]; an old one, or one of the future, is none."""
        if self._command is None:
            return Command()
        stamp, command = self._command
        age = (now - stamp) / 1e9
        return command if -settings.max_clock_skew <= age <= settings.max_command_age \
            else Command()

    # Time ------------------------------------------------------------------------------------

    def ages(self, now):
        """Return {what: age [s], or None} of the latest inputs at `now` [ns]."""
        command = self._command
        stamps = {'frame': self._gate.newest(), 'odometry': self._ego.newest(),
                  'command': command[0] if command else None}
        return {what: None if stamp is None else (now - stamp) / 1e9
                for what, stamp in stamps.items()}

    def notice_clock_jump(self):
        """Forget what was measured before the clock went back."""
        self._clock.now()
        with self._jumping:  # nobody goes on before what was measured then is gone
            jumps = self._clock.jumps
            if jumps == self._jumps_seen:
                return
            self._jumps_seen = jumps
            self.clear()
        self._counters.count('clock jumps')
        self._logger.warning('the clock went back; inputs from before were dropped')

    def clear(self):
        """Forget every input."""
        self._slot.clear()
        self._gate = FrameGate()
        self._ego.clear()
        self._wheels = SpeedAndSteering(self._topics)
        self._command = None
        self._camera = None
        self._watchdog.forget()
