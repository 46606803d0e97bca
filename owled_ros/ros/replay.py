"""Plays a bag into the ROS graph, for machines without `ros2 bag play`.

Messages go out as the bytes that were recorded, in the order and with the spacing of their times
of recording, under the recorded QoS profiles, and with /clock for nodes that `use_sim_time`.
"""

from collections import Counter
import importlib
import math
import time

from owled_ros.bags.reading import Bag
from owled_ros.errors import UserError
from owled_ros.ros.messages import time_message
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import QosDurability, QosReliability
from rosgraph_msgs.msg import Clock

CLOCK_PERIOD = 0.01  # s of real time between two /clock messages without others in between
SETTLE = 0.5         # s between seeing the subscriptions and the first message
DEPTH = 10           # where the recorder noted none, as `ros2 bag play` does


def replay(path, *, rate=1.0, start=0.0, loop=False, clock=True, topics=(), wait_for=(),
           timeout=30.0, report=print):
    """Play the bag at `path` until its end (with `loop`, until interrupted); return a summary.

    rate: times real time. start: s into the bag. topics: only these. wait_for: topics that
    somebody must listen to before it starts, within `timeout` [s]. The summary is a dict:
    'messages' (topic -> number published), 'skipped' (topics whose type is not installed),
    'seconds' (real time). Raises UserError.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(f'the rate is {rate}; it must be a positive number')
    # A context of its own, without signal handlers: an interrupt then ends up in the caller,
    # who may have a graph of its own.
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with Bag(path) as bag:
            player = Player(bag, context, rate, start, clock, topics, report)
            report(f'playing {", ".join(player.publishers)} of {path} at {rate:g} times real time')
            player.wait_for_listeners(wait_for, timeout)
            begun = time.monotonic()
            player.play()
            while loop:
                report('playing it again from the start')
                player.play()
            player.flush()
            return {'messages': dict(player.published), 'skipped': player.skipped,
                    'seconds': time.monotonic() - begun}
    finally:
        context.try_shutdown()


class Player:
    """The publishers for an open bag, and the time in it."""

    def __init__(self, bag, context, rate, start, clock, topics, report):
        self.bag, self.rate, self.report = bag, rate, report
        self.start = bag.reader.start_time + round(start * 1e9)
        if not bag.reader.start_time <= self.start < bag.reader.end_time:
            raise UserError(f'the start at {start} s is outside the bag {bag.path}, which is '
                            f'{bag.reader.duration / 1e9:.1f} s long')
        self.node = rclpy.create_node('owled_replay', context=context, enable_rosout=False,
                                      start_parameter_services=False)
        self.clock = self.node.create_publisher(Clock, '/clock', DEPTH) if clock else None
        self.published = Counter()
        self.skipped = []
        self.publishers = {}
        self._create_publishers(topics or [t for t in bag.topics if not (clock and t == '/clock')])

    def _create_publishers(self, topics):
        for topic in topics:
            self.bag.require(topic)
            kind = message_class(self.bag.topics[topic])
            if kind is None:
                self.skipped.append(topic)
                self.report(f'{topic} is left out: {self.bag.topics[topic]} is not installed')
                continue
            offered = [profile for connection in self.bag.connections
                       if connection.topic == topic
                       for profile in connection.ext.offered_qos_profiles]
            self.publishers[topic] = self.node.create_publisher(kind, topic, offered_qos(offered))
        if not self.publishers:
            raise UserError(f'no message type of the bag {self.bag.path} is installed here, so '
                            'nothing of it can be played; source the workspace that has them')

    def wait_for_listeners(self, topics, timeout):
        """Wait until each of `topics` has a subscription; raise UserError after `timeout` [s]."""
        for topic in topics:
            if topic not in self.publishers:
                raise UserError(f'nobody can be waited for on {topic}, which is not played')
        deadline = time.monotonic() + timeout
        while missing := [t for t in topics if not self.publishers[t].get_subscription_count()]:
            if time.monotonic() > deadline:
                raise UserError(f'nobody listened on {", ".join(missing)} within {timeout:g} s; '
                                'start the node first and check its remappings')
            self._tell_time(self.start)
            time.sleep(0.05)
        # We see a subscription before its process sees us, and what is published until then is
        # lost to it.
        time.sleep(SETTLE)

    def play(self):
        """Publish everything from the start once."""
        begun = time.monotonic()
        for connection, stamp, data in self.bag.raw_messages(*self.publishers, start=self.start):
            self._wait_until(stamp, begun)
            self._tell_time(stamp)
            self.publishers[connection.topic].publish(bytes(data))
            self.published[connection.topic] += 1

    def flush(self):
        """Let reliable messages arrive, where their receivers still take any."""
        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=2))

    def _wait_until(self, stamp, begun):
        due = begun + (stamp - self.start) / 1e9 / self.rate
        while (left := due - time.monotonic()) > 0:
            if left > CLOCK_PERIOD:
                self._tell_time(stamp - round(left * self.rate * 1e9))
            time.sleep(min(left, CLOCK_PERIOD))

    def _tell_time(self, stamp):
        if self.clock is not None:
            self.clock.publish(Clock(clock=time_message(stamp)))


def message_class(msgtype):
    """Return the class of a 'package/msg/Name', None where its package is not installed."""
    package, _, name = msgtype.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name, None)
    except ImportError:
        return None


def offered_qos(profiles):
    """Return one QoSProfile for what the recorded publishers of a topic offered.

    Where they differed, or the bag does not say, the stronger policy is offered: every
    subscription accepts it. Deadlines, lifespans and leases are not kept: at another rate they
    would be broken or meaningless.
    """
    def all_said(name, value):
        return bool(profiles) and all(getattr(profile, name) == value for profile in profiles)

    best_effort = all_said('reliability', QosReliability.BEST_EFFORT)
    latched = any(p.durability == QosDurability.TRANSIENT_LOCAL for p in profiles)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max((profile.depth for profile in profiles), default=0) or DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)
