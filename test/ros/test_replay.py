"""A bag is played over DDS to another process: everything arrives, on time, with /clock."""

import json
import subprocess
import sys

import numpy as np
from owled_ros.bags.writing import DriveWriter, IMAGE_TOPIC, ODOM_TOPIC, TRUTH_TOPIC
from owled_ros.driver.action import Action, EgoState, Maneuver
from owled_ros.errors import UserError
import pytest

START = 1_000 * 10**9

# Writes one line of JSON for every message, in the order of arrival, until told to end.
LISTENER = """
import json, sys, threading
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from owled_ros.msg import DrivingAction

rclpy.init()
node = rclpy.create_node('listener')

offered = {}

def heard(topic, stamp):
    if topic not in offered:
        offered[topic], = {info.qos_profile.reliability.name
                           for info in node.get_publishers_info_by_topic(topic)}
        print(json.dumps([topic, offered[topic]]), flush=True)
    print(json.dumps([topic, stamp.sec * 10**9 + stamp.nanosec]), flush=True)

best_effort = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)
for kind, topic, qos in ((CompressedImage, '/camera/image_raw/compressed', best_effort),
                         (Odometry, '/odom', 1000), (DrivingAction, '/owled/truth', 1000)):
    node.create_subscription(
        kind, topic, lambda message, topic=topic: heard(topic, message.header.stamp), qos)
node.create_subscription(Clock, '/clock', lambda message: heard('/clock', message.clock), 1000)
print('ready', flush=True)
threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()
sys.stdin.readline()
"""

REPLAY = """
import json, sys
from owled_ros.ros.replay import replay
options = json.loads(sys.argv[2])
print(json.dumps(replay(sys.argv[1], report=lambda line: None, **options)))
"""


def write_bag(path, seconds=1.0):
    with DriveWriter(path) as writer:
        for tick in range(round(seconds * 50)):
            stamp = START + tick * 20_000_000
            ego = EgoState(5.0)
            writer.write_odometry(stamp, (0.0, 0.0, 0.0), ego)
            if tick % 5 == 0:
                writer.write_frame(stamp, np.zeros((48, 64, 3), np.uint8))
                writer.write_truth(stamp, ego, Action(0.0, 0.0, Maneuver.KEEP_LANE), 'Free.')
    return path


def play_to_listener(bag, **options):
    """Return the replay's summary, [topic, stamp] heard in order, {topic: reliability}."""
    listener = subprocess.Popen([sys.executable, '-c', LISTENER], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout.readline() == 'ready\n'
        options['wait_for'] = [IMAGE_TOPIC, ODOM_TOPIC, TRUTH_TOPIC]
        done = subprocess.run([sys.executable, '-c', REPLAY, str(bag), json.dumps(options)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        output, _ = listener.communicate('\n', timeout=30)
    finally:
        listener.kill()
    lines = [json.loads(line) for line in output.splitlines()]
    offered = dict(line for line in lines if isinstance(line[1], str))
    heard = [line for line in lines if isinstance(line[1], int)]
    return json.loads(done.stdout), heard, offered


def test_all_messages_arrive_with_the_clock(tmp_path, ros_domain):
    bag = write_bag(tmp_path / 'bag', seconds=2.0)
    summary, heard, offered = play_to_listener(bag, rate=2.0)
    assert summary['messages'] == {IMAGE_TOPIC: 20, ODOM_TOPIC: 100, TRUTH_TOPIC: 20,
                                   '/owled/truth_explanation': 20}
    assert summary['skipped'] == []
    assert offered[IMAGE_TOPIC] == 'BEST_EFFORT'
    assert offered[ODOM_TOPIC] == offered[TRUTH_TOPIC] == 'RELIABLE'
    assert 0.97 < summary['seconds'] < 10
    stamps = {topic: [stamp for name, stamp in heard if name == topic]
              for topic in (IMAGE_TOPIC, ODOM_TOPIC, TRUTH_TOPIC, '/clock')}
    assert stamps[ODOM_TOPIC] == [START + k * 20_000_000 for k in range(100)]
    assert stamps[IMAGE_TOPIC] == [START + k * 100_000_000 for k in range(20)]
    assert stamps[TRUTH_TOPIC] == stamps[IMAGE_TOPIC]
    clock = stamps['/clock']
    assert clock == sorted(clock) and clock[0] == START and clock[-1] == START + 1_980_000_000
    assert len(set(clock)) >= 100


def test_start_topics_and_silence_of_the_clock(tmp_path, ros_domain):
    bag = write_bag(tmp_path / 'bag')
    _, heard, _ = play_to_listener(bag, rate=5.0, start=0.5, clock=False)
    assert {name for name, _ in heard} == {IMAGE_TOPIC, ODOM_TOPIC, TRUTH_TOPIC}
    assert min(stamp for _, stamp in heard) == START + 500_000_000


def test_qos_profiles_are_those_recorded():
    from owled_ros.bags.writing import qos, TOPICS
    from owled_ros.ros.replay import offered_qos
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
    from rosbags.interfaces import QosDurability, QosReliability

    image = offered_qos([TOPICS[IMAGE_TOPIC][1]])
    assert (image.reliability, image.depth) == (ReliabilityPolicy.BEST_EFFORT, 1)
    odometry = offered_qos([TOPICS[ODOM_TOPIC][1]])
    assert (odometry.reliability, odometry.depth) == (ReliabilityPolicy.RELIABLE, 50)
    assert odometry.durability == DurabilityPolicy.VOLATILE
    latched = qos(QosReliability.RELIABLE, 0)._replace(durability=QosDurability.TRANSIENT_LOCAL)
    assert offered_qos([latched]).durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert offered_qos([latched]).depth == 10
    mixed = offered_qos([TOPICS[IMAGE_TOPIC][1], TOPICS[ODOM_TOPIC][1]])
    assert mixed.reliability == ReliabilityPolicy.RELIABLE
    assert offered_qos([]).reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize('options, says', [
    ({'rate': 0}, 'the rate is 0'),
    ({'start': 9}, 'outside the bag'),
    ({'topics': ['/nothing']}, 'no messages on /nothing; it has /camera'),
    ({'wait_for': ['/nothing']}, 'not played'),
    ({'wait_for': [ODOM_TOPIC], 'timeout': 0.2}, 'nobody listened on /odom within 0.2 s'),
])
def test_what_a_user_can_get_wrong(tmp_path, ros_domain, options, says):
    from owled_ros.ros.replay import replay
    with pytest.raises(UserError, match=says):
        replay(write_bag(tmp_path / 'bag'), **options)
