"""What the node is fed: clock, odometry and camera in real time, as a fault changes them."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
import math
import queue
import threading
import time

import cv2
from marks import Order, paint
from nav_msgs.msg import Odometry
import numpy as np
from owled_ros.ros.messages import time_message
from sensor_msgs.msg import CompressedImage, Image

TICK = 0.01          # s; also the period of /clock
ODOMETRY_EVERY = 2   # ticks: 50 Hz
CAMERA_EVERY = 3     # ticks: 33 Hz
SIM_START = 1000 * 10**9
PICTURES = 64        # painted beforehand; each is shown only every two seconds


@dataclass
class Shot:
    """One frame on its way out; faults change it."""

    number: int
    stamp: int                  # ns
    picture: int                # which of the pictures it shows
    pixels: np.ndarray
    epoch: int                  # counts the jumps of the clock backwards
    order: Order = Order.DRIVE
    good: bool = True           # an action may come of it
    altered: bool = False       # the fault has touched it
    second: bool = False        # goes out through a second publisher
    slow: float = math.inf      # m/s, the speed limit that the node has heard of and must keep
    spoil: Callable = lambda message: None   # changes the finished message
    sent: float = math.nan      # s, monotonic


@dataclass
class Measurement:
    """One odometry message on its way out; faults change it."""

    stamp: int
    speed: float
    epoch: int
    yaw_rate: float = 0.0
    frame: str = 'base_link'
    good: bool = True
    altered: bool = False
    sent: float = math.nan


@dataclass
class Lateness:
    """How far the stream fell behind its own schedule: what the machine did, not the node."""

    worst: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, seconds):
        with self.lock:
            self.worst = max(self.worst, seconds)

    def take(self):
        """Return the worst [s] since the last time."""
        with self.lock:
            worst, self.worst = self.worst, 0.0
            return worst


class NoFault:
    """Leaves everything as it is."""

    def frame(self, shot, stream):
        return [shot]

    def odometry(self, measurement, stream):
        return [measurement]

    def touched(self, sent):
        pass


class Stream:
    """Publishes in a thread of its own until it is closed."""

    def __init__(self, bench, ledger, seed, *, sim, compressed, camera_every=CAMERA_EVERY):
        self.bench, self.ledger = bench, ledger
        self.sim, self.compressed, self.camera_every = sim, compressed, camera_every
        self.random = np.random.default_rng(seed)
        self.fault = NoFault()
        self.camera_period = camera_every * TICK
        self.lateness = Lateness()
        self.rate = 1.0           # of the simulated clock
        self.sensors_behind = 0   # ns that stamps are behind the simulated clock
        self.epoch = 0
        self.last_frame = self.last_odometry = math.nan  # s, monotonic, when the last one went out
        self._sim_time = SIM_START
        self._driven = 0.0        # s; the vehicle stands still with the clock, and never jumps
        self._pictures = [paint(self.random, number) for number in range(PICTURES)]
        self._number = 0
        self._orders = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name='stream', daemon=True)
        self._thread.start()

    def close(self):
        self._closing.set()
        self._thread.join(5)

    def do(self, work):
        """Run `work()` in the stream's thread and wait for it: publishers are its own."""
        done = threading.Event()
        self._orders.put(lambda: (work(), done.set()))
        assert done.wait(10), 'the stream has stopped'

    def now(self):
        """Return the time [ns] that sensors stamp with."""
        return self._sim_time - self.sensors_behind if self.sim else time.time_ns()

    def jump(self, seconds):
        """Set the simulated clock; the sensors follow."""
        self._sim_time += int(seconds * 1e9)
        if seconds < 0:
            self.epoch += 1

    def new_shot(self):
        """Take the next picture, now. In the stream's thread."""
        self._number += 1
        picture = self._number % PICTURES
        return Shot(self._number, self.now(), picture, self._pictures[picture], self.epoch)

    # The thread ------------------------------------------------------------------------------

    def _run(self):
        due = last = time.monotonic()
        tick = 0
        while not self._closing.is_set():
            due += TICK
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            now = time.monotonic()
            self.lateness.note(now - due)
            if now - due > 5 * TICK:
                due = now  # what was missed is not made up for in a burst
            self._sim_time += int((now - last) * self.rate * 1e9)
            self._driven += (now - last) * self.rate
            last = now
            self._tick(tick)
            tick += 1

    def _tick(self, tick):
        while not self._orders.empty():
            self._orders.get()()
        if self.sim:
            self.bench.tick(self._sim_time)
        if tick % ODOMETRY_EVERY == 0:
            speed = 5 + math.sin(self._driven / 2)
            for measurement in self.fault.odometry(
                    Measurement(self.now(), speed, self.epoch), self):
                self._send_odometry(measurement)
        if tick % self.camera_every == 0:
            for shot in self.fault.frame(self.new_shot(), self):
                self.send_frame(shot)

    def _send_odometry(self, measurement):
        measurement.sent = time.monotonic()
        if measurement.altered:
            self.fault.touched(measurement.sent)
        else:
            self.last_odometry = measurement.sent
        self.ledger.odometry(measurement)
        message = Odometry(child_frame_id=measurement.frame)
        message.header.stamp = time_message(measurement.stamp)
        message.twist.twist.linear.x = measurement.speed
        message.twist.twist.angular.z = measurement.yaw_rate
        self.bench.publish_odometry(message)

    def send_frame(self, shot):
        """Publish a frame, and note it first. In the stream's thread."""
        if shot.order is not Order.DRIVE:
            shot.pixels = paint(self.random, shot.number, shot.order)
        message = compressed_message(shot) if self.compressed else raw_message(shot)
        message.header.stamp = time_message(shot.stamp)
        shot.spoil(message)
        shot.sent = time.monotonic()
        if shot.altered:
            self.fault.touched(shot.sent)
        else:
            self.last_frame = shot.sent
        self.ledger.frame(shot)
        self.bench.publish_frame(message, shot.second)


def raw_message(shot):
    height, width = shot.pixels.shape[:2]
    return Image(height=height, width=width, encoding='rgb8', step=width * 3,
                 data=array('B', shot.pixels.tobytes()))


def compressed_message(shot):
    """JPEG and PNG in turn."""
    kind = 'jpeg' if shot.number % 2 else 'png'
    data = cv2.imencode(f'.{kind}', shot.pixels[:, :, ::-1])[1]
    return CompressedImage(format=kind, data=array('B', data.tobytes()))
