"""Faults of the camera."""

from array import array
from dataclasses import replace
import struct

from kinds.base import by_watchdog, Fault, RECOVERY, Silence, SLACK
import numpy as np
from owled_ros.driver.action import Status


class CameraStops(Silence):
    """No frame comes any more, for up to some deadlines: it is said again and again."""

    longest = 0.6
    setups = ('raw', 'compressed', 'sim', 'embedded')

    def frame(self, shot, stream):
        self.touched(stream.last_frame)
        return []


class EverythingStops(CameraStops):
    """Neither frames nor odometry come."""

    def odometry(self, measurement, stream):
        return []


class BadFrames(Fault):
    """Frames that must not be driven by; all of them, or every second one."""

    expected = frozenset({Status.INVALID_INPUT})

    def prepare(self):
        self.every = self.random.choice((1, 1, 2))
        self.draw()

    def draw(self):
        """Draw what is wrong with the frames."""

    def frame(self, shot, stream):
        if shot.number % self.every:
            return [shot]
        return self.spoilt(replace(shot, good=False, altered=True), stream)

    def spoilt(self, shot, stream):
        """Return what goes out in place of a frame."""
        shot.spoil = self.spoil
        return [shot]

    def limit(self, stream):
        return self.every * stream.camera_period + SLACK


class LateFrames(BadFrames):
    """Their stamps are older than max_frame_age."""

    setups = ('raw', 'compressed', 'sim', 'embedded')
    expected = frozenset({Status.STALE_INPUT})

    def draw(self):
        self.age = self.settings.max_frame_age + self.random.choice(
            (self.random.uniform(0.05, 0.2), self.random.uniform(0.2, 900)))

    def spoilt(self, shot, stream):
        return [replace(shot, stamp=shot.stamp - int(self.age * 1e9))]


class UnstampedFrames(BadFrames):
    """Their stamp is zero."""

    def spoilt(self, shot, stream):
        return [replace(shot, stamp=0)]


class FutureFrames(BadFrames):
    """Their stamps are ahead of the clock by more than max_clock_skew."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def draw(self):
        # So far that none can come true on its way to the node.
        self.ahead = self.settings.max_clock_skew + self.random.choice(
            (self.random.uniform(0.2, 0.5), self.random.uniform(0.3, 900)))

    def spoilt(self, shot, stream):
        return [replace(shot, stamp=shot.stamp + int(self.ahead * 1e9))]


class FramesOutOfOrder(BadFrames):
    """Each second frame is stamped before the one that went out just before it."""

    def draw(self):
        self.every = 2
        self.back = self.random.uniform(0.001, 0.02)

    def spoilt(self, shot, stream):
        # One period back is where the frame before it was. If that one was lost on its way, this
        # one is in order: whether it was is told by the order of the answers.
        period = stream.camera_period
        return [replace(shot, stamp=shot.stamp - int((period + self.back) * 1e9), good=True)]


class FramesTwice(BadFrames):
    """A second publisher on the topic sends every frame again."""

    def begin(self, bench, stream, witness):
        stream.do(bench.start_second)
        super().begin(bench, stream, witness)

    def end(self, bench, stream, witness):
        super().end(bench, stream, witness)
        stream.do(bench.stop_second)

    def draw(self):
        self.shot = None

    def frame(self, shot, stream):
        self.shot = replace(shot, good=False, altered=True, second=True)
        return [shot]

    def odometry(self, measurement, stream):
        # Not right after the frame: the node keeps the newest message only, and never saw two.
        if self.shot is not None:
            stream.send_frame(self.shot)
            self.shot = None
        return [measurement]

    def limit(self, stream):
        return super().limit(stream) + 0.5  # discovery of the second publisher


class FrozenCamera(BadFrames):
    """The same picture again and again, with new stamps."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def draw(self):
        self.shown = None

    def frame(self, shot, stream):
        self.shown = self.shown or shot
        # Good until it has repeated too often: the witness counts that.
        return [replace(shot, pixels=self.shown.pixels, picture=self.shown.picture,
                        number=self.shown.number, altered=True)]

    def limit(self, stream):
        # A frame or two may give way to a newer one before they are looked at.
        return (self.settings.max_frozen_frames + 3) * stream.camera_period + SLACK


class BlankFrames(BadFrames):
    """Every pixel has the same value."""

    setups = ('raw', 'compressed', 'sim', 'embedded')

    def draw(self):
        self.value = self.random.choice((0, 255, self.random.randrange(256)))

    def spoilt(self, shot, stream):
        return [replace(shot, pixels=np.full_like(shot.pixels, self.value), picture=-shot.number)]


class TruncatedFrames(BadFrames):
    """The data are shorter than height and step promise."""

    setups = ('raw', 'sim', 'embedded')

    def draw(self):
        self.kept = self.random.random() * 0.99

    def spoil(self, message):
        message.data = message.data[:int(len(message.data) * self.kept)]


class WrongSize(BadFrames):
    """Height, width or step do not fit the data."""

    setups = ('raw', 'sim')

    def draw(self):
        self.field = self.random.choice(('height', 'width', 'step'))
        self.factor = self.random.choice((0, 2, 3, 1000, 2**20))

    def spoil(self, message):
        setattr(message, self.field, getattr(message, self.field) * self.factor)


class HugeFrames(BadFrames):
    """More pixels than max_image_pixels, all of them there.

    On a busy machine DDS may lose messages of that size, and then nothing arrives.
    """

    setups = ('raw',)
    expected = frozenset({Status.INVALID_INPUT, Status.STALE_INPUT})

    def draw(self):
        self.every = 1

    def limit(self, stream):
        return by_watchdog(self.settings)

    def spoilt(self, shot, stream):
        return [replace(shot, pixels=np.tile(shot.pixels, (4, 4, 1)))]


class OtherSize(BadFrames):
    """A camera that suddenly sends another size: not the one that the node drove by so far."""

    setups = ('raw', 'compressed')

    def draw(self):
        self.every = 1
        self.cut = self.random.choice(((32, 64), (48, 48), (24, 32)))

    def spoilt(self, shot, stream):
        return [replace(shot, pixels=np.ascontiguousarray(
            shot.pixels[:self.cut[0], :self.cut[1]]))]


class UnknownEncoding(BadFrames):
    """An encoding that nobody can read, or one that does not fit the data."""

    setups = ('raw', 'sim')

    def draw(self):
        self.encoding = self.random.choice(('', 'rgb9', '16UC1', '8UC3', 'rgba8', '../../etc'))

    def spoil(self, message):
        message.encoding = self.encoding


class TruncatedJpeg(BadFrames):
    """A compressed frame that ends too early."""

    setups = ('compressed',)

    def draw(self):
        self.kept = self.random.random() * 0.95

    def spoil(self, message):
        message.data = message.data[:int(len(message.data) * self.kept)]


class GarbageJpeg(BadFrames):
    """Starts and ends like a JPEG or PNG, with chance in between."""

    setups = ('compressed',)

    def spoil(self, message):
        noise = self.random.randbytes(self.random.randrange(4000))
        start, end = self.random.choice((
            (b'\xff\xd8\xff', b'\xff\xd9'), (b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'), (b'', b'')))
        message.data = array('B', start + noise + end)


class DecompressionBomb(BadFrames):
    """A small message whose header promises a picture of gigabytes."""

    setups = ('compressed',)

    def spoil(self, message):
        width, height = (self.random.randrange(20_000, 65_000) for _ in range(2))
        if self.random.random() < 0.5:
            head = (b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sIIBBBBB', 13, b'IHDR', width, height,
                                                       8, 2, 0, 0, 0))
            message.data = array('B', head + bytes(200) + b'IEND\xaeB`\x82')
        else:
            segment = struct.pack('>HBHHB', 17, 8, height, width, 3) + bytes(9)
            message.data = array('B', b'\xff\xd8\xff\xc0' + segment + bytes(200) + b'\xff\xd9')


class CameraRestarts(Silence):
    """The camera's publisher goes away and comes back."""

    def prepare(self):
        self.back = False

    def begin(self, bench, stream, witness):
        self.touched(stream.last_frame)
        stream.do(bench.stop_camera)
        super().begin(bench, stream, witness)

    def frame(self, shot, stream):
        return []

    def end(self, bench, stream, witness):
        stream.do(bench.start_camera)
        super().end(bench, stream, witness)

    recovery = RECOVERY + 1.0  # discovery of the new publisher


class FloodOfFrames(Fault):
    """Hundreds of frames at once: the newest wins, nothing grows."""

    longest, shortest = 0.06, 0.03

    def frame(self, shot, stream):
        return [replace(stream.new_shot(), stamp=shot.stamp + n * 10_000, altered=True)
                for n in range(self.random.randrange(20, 60))]

    recovery = 1.0
