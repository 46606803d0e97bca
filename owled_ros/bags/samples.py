"""Recorded drives as samples: a frame, the ego state at its time, and the action that followed.

Everything is paired by header stamps, never by the time of recording: those differ by the
camera's exposure, the driver's buffers and the recorder's load.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
import math
from operator import itemgetter

import numpy as np
from owled_ros.bags.images import to_rgb, UnreadableImage, UnsupportedEncoding
from owled_ros.bags.motion import Motion, motion_of
from owled_ros.bags.reading import Bag
from owled_ros.bags.types import (
    ACTION,
    CAMERA_INFO,
    COMMAND,
    EXPLANATION,
    ODOMETRY,
    TWIST,
    TWIST_WITH_COVARIANCE,
    VELOCITY_REPORT,
)
from owled_ros.driver.action import Action, Command, EgoState, Maneuver, Route, Status
from owled_ros.driver.pinhole import (
    as_pinhole,
    Camera,
    camera_info_beside,
    camera_of,
    check_field,
    fault_of,
    is_asked,
)
from owled_ros.errors import UserError

MOST_REASONS = 5    # that an error names


@dataclass(frozen=True)
class Moment:
    """A frame's time in a drive, with all that is known about it but the picture."""

    ego: EgoState
    command: Command
    action: Action
    explanation: str  # '' unless the bag has one
    stamp: int        # ns
    bag: str
    camera: Camera | None = None  # that took the frame, where the Source asks for it

    def with_frame(self, frame):
        return Sample(frame, self.ego, self.command, self.action, self.explanation, self.stamp,
                      self.bag)


@dataclass(frozen=True)
class Sample:
    """What a model is shown and what it should answer."""

    frame: np.ndarray  # (H, W, 3) uint8 RGB
    ego: EgoState
    command: Command
    action: Action
    explanation: str   # '' unless the bag has one
    stamp: int         # ns
    bag: str


@dataclass(frozen=True)
class Source:
    """Where in a bag things are, and how they are paired.

    The image topic may be raw or compressed; the name of the raw topic finds its compressed one.
    Without a truth topic the action is the motion recorded over `horizon` [s] after the frame;
    with one it is the DrivingAction with the frame's stamp. Frames without odometry within
    `max_ego_gap` [s] on both sides are left out. A command holds for `max_command_age` [s].
    undistort and field_of_view [rad]: as the driving node has them; the camera info is beside the
    images unless its topic is named.
    """

    image_topic: str = '/camera/image_raw'
    odom_topic: str = '/odom'
    base_frame: str = 'base_link'
    horizon: float = 1.0
    max_ego_gap: float = 0.1
    command_topic: str = ''
    max_command_age: float = 2.0
    truth_topic: str = ''
    explanation_topic: str = ''
    undistort: bool = False
    field_of_view: float = 0.0
    camera_info_topic: str = ''

    def __post_init__(self):
        check_field(self.field_of_view)
        for name in ('horizon', 'max_ego_gap', 'max_command_age'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f'{name} is {value}; it must be a positive number of seconds')

    def info_topic(self):
        """Return the topic of the camera info, or '' where none is needed."""
        if not is_asked(self.undistort, self.field_of_view):
            return ''
        return self.camera_info_topic or camera_info_beside(self.image_topic)


@dataclass
class Timeline:
    """What happened around the frames of one drive, without the frames."""

    source: Source
    bag: str
    motion: Motion = None
    truths: dict = field(default_factory=dict)        # stamp -> Action
    explanations: dict = field(default_factory=dict)  # stamp -> text
    commands: list = field(default_factory=list)      # (stamp, Command), by stamp
    cameras: list = field(default_factory=list)       # (stamp, Camera) of each change, by stamp

    def __post_init__(self):
        self.motion = Motion(self.source.max_ego_gap)

    def odometry(self, message):
        """Return (stamp [ns], speed [m/s], yaw rate [rad/s]) of what tells the motion.

        That is an Odometry message, a twist with a stamp, or a VelocityReport of Autoware.
        None if they are not finite. Raises UserError when it moves another frame than the
        vehicle's.
        """
        source = self.source
        frame, speed, yaw_rate = motion_of(message)
        if frame != source.base_frame:
            raise UserError(
                f'the odometry on {source.odom_topic} of {self.bag} moves the frame '
                f'{frame!r}, not {source.base_frame!r}; set base_frame to it '
                'if that is the vehicle')
        if not (math.isfinite(speed) and math.isfinite(yaw_rate)):
            return None
        return stamp_of(message), speed, yaw_rate

    def moment_at(self, stamp):
        """Return the Moment at `stamp` [ns], or one phrase that says why there is none."""
        source = self.source
        ego = self.motion.ego_at(stamp)
        if ego is None:
            return 'without odometry around them'
        if source.truth_topic:
            action = self.truths.get(stamp)
            missing = 'without a valid truth'
        else:
            action = self.motion.action_after(stamp, source.horizon)
            missing = 'without enough recorded motion after them'
        if action is None:
            return missing
        camera = None
        if source.info_topic():
            _, camera = _last(self.cameras, stamp)
            if camera is None:
                return 'before any camera info'
            if fault := fault_of(camera, source.undistort, source.field_of_view):
                return f'because {fault}'
        return Moment(ego, self._command_at(stamp), action, self.explanations.get(stamp, ''),
                      stamp, self.bag, camera)

    def add_camera_info(self, message):
        """Take a CameraInfo message; of several in a row that say the same the first is kept."""
        camera = camera_of(message)
        if not self.cameras or camera != self.cameras[-1][1]:
            self.cameras.append((stamp_of(message), camera))
            self.cameras.sort(key=itemgetter(0))

    def _command_at(self, stamp):
        at, command = _last(self.commands, stamp)
        if command is None or stamp - at > self.source.max_command_age * 1e9:
            return Command()
        return command


def _last(timed, stamp):
    """Return the last of (stamp, thing) pairs, in their order, until `stamp`; or (0, None)."""
    after = bisect_right(timed, stamp, key=itemgetter(0))
    return timed[after - 1] if after else (0, None)


class Drive:
    """One bag. Opening it reads everything but the pictures, which are then streamed."""

    def __init__(self, path, source):
        """Read odometry, truth, commands and camera info; raises UserError where one is missing."""
        self.path = path
        self.source = source
        self.dropped = Counter()  # why frames were left out -> how many
        self.timeline = Timeline(source, str(path))
        with Bag(path) as bag:
            self.image_topic = check_topics(bag, source)
            self._read_timeline(bag)

    def _read_timeline(self, bag):
        source, timeline = self.source, self.timeline
        odometry = []
        topics = filter(None, (source.odom_topic, source.truth_topic, source.explanation_topic,
                               source.command_topic, source.info_topic()))
        for topic, message in bag.messages(*topics):
            if topic == source.odom_topic:
                odometry.append(timeline.odometry(message))
            elif topic == source.truth_topic:
                if (action := action_of(message)) is not None:
                    timeline.truths[stamp_of(message)] = action
            elif topic == source.explanation_topic:
                if message.complete:
                    timeline.explanations[stamp_of(message)] = message.text
            elif topic == source.info_topic():
                timeline.add_camera_info(message)
            elif (command := command_of(message)) is not None:
                timeline.commands.append((stamp_of(message), command))
        for reading in sorted(filter(None, odometry)):
            timeline.motion.add(*reading)
        timeline.commands.sort(key=itemgetter(0))

    def frames(self):
        """Yield (Moment, image message, not decoded) in the order of recording; count others."""
        self.dropped.clear()
        seen = set()
        with Bag(self.path) as bag:
            for _, message in bag.messages(self.image_topic):
                stamp = stamp_of(message)
                moment = self.timeline.moment_at(stamp)
                if stamp in seen:
                    moment = 'with a stamp that was there before'
                seen.add(stamp)
                if isinstance(moment, str):
                    self.dropped[moment] += 1
                else:
                    yield moment, message

    def samples(self, stamps=None):
        """Yield the Samples, one decoded frame at a time; broken frames are left out.

        stamps: a set of the stamps [ns] to decode, all when it is None.
        """
        for moment, message in self.frames():
            if stamps is not None and moment.stamp not in stamps:
                continue
            try:
                sample = sample_of(moment, message, self.source)
            except UnsupportedEncoding as error:  # the next frame is no better
                raise UserError(
                    f'{self.image_topic} of the bag {self.path}: {error}') from None
            except UnreadableImage:
                self.dropped['that cannot be decoded'] += 1
            except UserError as error:
                self.dropped[f'because {error}'] += 1
            else:
                yield sample


def sample_of(moment, message, source):
    """Return the Sample of a Moment and its image message: what a model is shown at that moment.

    Raises UserError, UnsupportedEncoding where the next frame is no better.
    """
    frame = to_rgb(message)
    if moment.camera is not None:
        frame = as_pinhole(frame, moment.camera, source.undistort, source.field_of_view)
    return moment.with_frame(frame)


def check_topics(bag, source):
    """Return the image topic; raise UserError where an open bag lacks what `source` names."""
    image_topic = bag.image_topic(source.image_topic)
    _check_odometry(bag, source.odom_topic)
    for topic, msgtype in ((source.info_topic(), CAMERA_INFO), (source.command_topic, COMMAND),
                           (source.truth_topic, ACTION), (source.explanation_topic, EXPLANATION)):
        if topic:
            bag.require(topic, msgtype)
    return image_topic


def _check_odometry(bag, topic):
    if bag.topics.get(topic, '').startswith('std_msgs/msg/Float'):
        raise UserError(f'{topic} of the bag {bag.path} bears no stamps, so that speeds cannot be '
                        'paired with frames; record nav_msgs/Odometry or a stamped twist beside '
                        'speed and steering')
    bag.require(topic, ODOMETRY, TWIST, TWIST_WITH_COVARIANCE, VELOCITY_REPORT)


def check_bag(path, source):
    """Raise UserError unless there is a bag at `path` that has what `source` names."""
    with Bag(path) as bag:
        check_topics(bag, source)


def read_samples(bags, **source):
    """Yield the Samples of one or several bags; the keywords are the fields of Source.

    Raises UserError when a bag cannot be read or not one frame of it can be used.
    """
    for path in bags:
        drive = Drive(path, Source(**source))
        count = 0
        for sample in drive.samples():
            count += 1
            yield sample
        if not count:
            raise UserError(nothing_usable([drive]))


def nothing_usable(drives):
    """One sentence: why no frame of these drives became a sample."""
    reasons = sum((drive.dropped for drive in drives), Counter())
    told = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common(MOST_REASONS))
    paths = ', '.join(str(drive.path) for drive in drives)
    return f'no frame on {drives[0].image_topic} of {paths} can be used: {told}'


def stamp_of(message):
    """Capture time of a message with a header [ns]."""
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def action_of(message):
    """Return the Action in a DrivingAction message, None unless it is one to drive by."""
    numbers = (message.acceleration, message.curvature)
    if message.status != Status.OK or not all(map(math.isfinite, numbers)):
        return None
    if message.maneuver not in list(Maneuver):
        return None
    return Action(*map(float, numbers), Maneuver(message.maneuver), float(message.confidence))


def command_of(message):
    """Return the Command in a DrivingCommand message, None if its route is unknown."""
    if message.route not in list(Route):
        return None
    return Command(Route(message.route), float(message.speed_limit))
