"""Shows what the driving nodes of a ROS graph say, live in a terminal: `owled watch`."""

from collections import Counter, deque
import math
import textwrap
import time

from owled_ros.driver.action import Maneuver, Status
from owled_ros.msg import DrivingAction, Explanation
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

TYPES = {'owled_ros/msg/DrivingAction': DrivingAction, 'owled_ros/msg/Explanation': Explanation}
# Best effort hears every publisher, whatever it offers.
HEARD = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50,
                   reliability=ReliabilityPolicy.BEST_EFFORT)
RATED = 5.0         # s over which a rate is taken
LOOK_AROUND = 0.5   # s between two looks for new topics
REDRAW = 0.25       # s between two pictures on a terminal
SAY = 1.0           # s between two lines where there is none
SILENT = 1.0        # s after which a topic is said to be silent
CLEAR = '\x1b[H\x1b[J'
WIDTH = 96


def watch(seconds, stream):
    """Show every action and explanation topic of the graph on `stream` for so long [s].

    On a terminal the picture is drawn anew, elsewhere a line is written for each topic now and
    then. An interrupt ends it. Returns a dict: topic -> what was heard there.
    """
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node('owled_watch', context=context, enable_rosout=False,
                                 start_parameter_services=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        viewer = Viewer(node)
        try:
            viewer.look_on(executor, seconds, stream)
        except KeyboardInterrupt:
            pass
        return {topic: heard.summary() for topic, heard in sorted(viewer.topics.items())}
    finally:
        context.try_shutdown()


class Viewer:
    """Subscribes to whatever there is, and writes down what comes."""

    def __init__(self, node):
        self._node = node
        self.topics = {}

    def look_on(self, executor, seconds, stream):
        """Look on for so long [s], writing to `stream`."""
        end = time.monotonic() + seconds
        looked = said = -math.inf
        terminal = stream.isatty()
        while (now := time.monotonic()) < end:
            if now - looked >= LOOK_AROUND:
                looked = now
                self._look_around()
            if now - said >= (REDRAW if terminal else SAY):
                said = now
                words = '\n'.join(self.lines(now)) or 'no driving node to be heard yet'
                print(CLEAR + words if terminal else words, file=stream, flush=True)
            executor.spin_once(timeout_sec=min(REDRAW, max(end - now, 0.0)))

    def lines(self, now):
        """Return what is to be told of every topic at a time [s, steady]."""
        return [line for _, heard in sorted(self.topics.items()) for line in heard.lines(now)]

    def _look_around(self):
        for topic, kinds in self._node.get_topic_names_and_types():
            for kind in TYPES.keys() & kinds:
                if topic not in self.topics:
                    heard = self.topics[topic] = Heard(topic)
                    self._node.create_subscription(TYPES[kind], topic, heard.take, HEARD)


class Heard:
    """What was heard on one topic."""

    def __init__(self, topic):
        self.topic = topic
        self.messages, self.statuses = 0, Counter()
        self._arrivals = deque()    # s, steady, of the last seconds
        self._last = None

    def take(self, message):
        """Note a DrivingAction or an Explanation."""
        self.messages += 1
        self._arrivals.append(time.monotonic())
        self._last = message
        if isinstance(message, DrivingAction):
            self.statuses[name_of(Status, message.status)] += 1

    def rate(self, now):
        """Return messages a second over the last seconds before a time [s, steady]."""
        while self._arrivals and now - self._arrivals[0] > RATED:
            self._arrivals.popleft()
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(now - self._arrivals[0], 1e-3)

    def lines(self, now):
        """Return what is to be told at a time [s, steady]."""
        if self._last is None:
            return [f'{self.topic}  nothing yet']
        silent = now - self._arrivals[-1] if self._arrivals else math.inf
        rate = f'{self.rate(now):.1f} Hz'
        # Explanations come when they are complete; an action, or why there is none, always does.
        if silent > SILENT and isinstance(self._last, DrivingAction):
            rate = f'SILENT for {silent:.0f} s' if silent < RATED else f'SILENT for > {RATED:.0f} s'
        told = (action_words(self._last) if isinstance(self._last, DrivingAction)
                else [printable(self._last.text) + ('' if self._last.complete else ' ...')])
        return [f'{self.topic}  {rate}', *(
            line for words in told for line in textwrap.wrap(
                words, WIDTH, initial_indent='  ', subsequent_indent='  '))]

    def summary(self):
        """Return what was heard, for programs."""
        found = {'messages': self.messages, 'rate': round(self.rate(time.monotonic()), 2)}
        if self.statuses:
            found['statuses'] = dict(self.statuses)
        if isinstance(self._last, Explanation):
            found['text'] = self._last.text
        return found


def action_words(action):
    """Return an action as lines for people."""
    status = name_of(Status, action.status)
    if action.status != Status.OK:
        return [f'{status}  {printable(action.reason)}']
    latency = action.latency.sec + action.latency.nanosec / 1e9
    return [f'{status}  {name_of(Maneuver, action.maneuver).replace("_", " ").lower()}  '
            f'{action.acceleration:+.2f} m/s2  {math.degrees(action.steering_angle):+.1f} deg  '
            f'-> {action.target_speed:.1f} m/s',
            f'{1000 * latency:.0f} ms after its frame, by {printable(action.model)}']


def name_of(kind, value):
    """Return the name of a value of an enumeration; of another node it may be any number."""
    try:
        return kind(value).name
    except ValueError:
        return f'{kind.__name__} {value}'


def printable(text):
    """Return a text without what would move a terminal's cursor."""
    return ''.join(character if character.isprintable() else ' ' for character in text)
