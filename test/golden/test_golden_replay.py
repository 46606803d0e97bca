"""The demo bag through the node gives the actions that are written down in actions.json.

The frames go to the node one by one, each after the answer to the one before, so that the time
that the machine takes changes nothing: the limits that count time are opened wide. After a change
that is meant to change the actions (another embedded model, another bag), write them anew:

    OWLED_WRITE_GOLDEN=1 python -m pytest test/golden
"""

import json
import os
from pathlib import Path
import signal
import sys
import time

from owled_ros.bags.reading import Bag
from owled_ros.bags.writing import IMAGE_TOPIC, ODOM_TOPIC
from owled_ros.msg import DrivingAction
from owled_ros.scenes.recording import record_drive
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'driving_node'))

from rig import nanoseconds, Rig  # noqa: E402

NODE = Path(__file__).parents[2] / 'owled_ros' / 'driving_node.py'
GOLDEN = Path(__file__).with_name('actions.json')
SECONDS, SEED = 12.0, 7
# Other processors and versions of torch round otherwise, and a word that was nearly as likely as
# another may win: so few may differ, and these not by much.
MOST_DIFFERENT = 0.05            # share of the frames
ACCELERATION = 0.011             # m/s^2 that is no difference; the model answers in steps of 0.1
CURVATURE = 0.00011              # 1/m; in steps of 0.001
FAR_ACCELERATION = 1.0           # m/s^2 by which none may differ
FAR_CURVATURE = 0.02             # 1/m
# Nothing may depend on how long the machine takes.
PATIENT = {'max_ego_age': 2.0, 'max_frame_age': 10.0, 'deadline': 10.0, 'valid_for': 10.0,
           'horizon': 10.0, 'hang_limit': 600.0, 'limits.jerk': 1000.0,
           'limits.emergency_jerk': 1000.0, 'limits.steering_rate': 10.0, 'limits.speed': 100.0,
           'explain': False}


@pytest.fixture
def rig(tmp_path, ros_domain):
    rig = Rig(tmp_path, 'embedded', program=NODE, use_sim_time=True,
              image_transport='compressed', **PATIENT)
    yield rig
    rig.close()


def answers(rig, bag):
    """Feed every frame of a bag with the odometry up to it; return what was answered."""
    given = []
    with Bag(bag) as recording:
        for topic, message in recording.messages(ODOM_TOPIC, IMAGE_TOPIC):
            stamp = nanoseconds(message.header.stamp)
            rig.tick(stamp)
            if topic == ODOM_TOPIC:
                twist = message.twist.twist
                rig.odometry(twist.linear.x, twist.angular.z, stamp=stamp)
                continue
            time.sleep(0.05)  # the odometry goes another way; it must not be overtaken
            rig.compressed(message.data.tobytes(), stamp=stamp)
            given.append(in_words(rig.wait(lambda stamp=stamp: answer(rig, stamp), 'an answer')))
    return given


def answer(rig, stamp):
    return next((a for a in rig.actions if nanoseconds(a.header.stamp) == stamp), None)


def in_words(action):
    return {'status': action.status, 'maneuver': action.maneuver,
            'acceleration': round(action.acceleration, 4),
            'curvature': round(action.curvature, 6), 'target_speed': round(action.target_speed, 3)}


def same(one, other):
    return one['status'] == other['status'] and one['maneuver'] == other['maneuver'] \
        and abs(one['acceleration'] - other['acceleration']) <= ACCELERATION \
        and abs(one['curvature'] - other['curvature']) <= CURVATURE \
        and abs(one['target_speed'] - other['target_speed']) <= 2 * ACCELERATION


def test_the_demo_bag_gives_the_actions_that_are_written_down(rig, tmp_path):
    record_drive(tmp_path / 'bag', seconds=SECONDS, seed=SEED)
    rig.wait_until_heard()
    given = answers(rig, tmp_path / 'bag')
    model = rig.infos[0].hash
    assert {answer['status'] for answer in given} == {DrivingAction.OK}
    if os.environ.get('OWLED_WRITE_GOLDEN'):
        lines = ',\n '.join(json.dumps(answer) for answer in given)
        GOLDEN.write_text(f'{{"model": "{model}", "actions": [\n {lines}]}}\n')
    golden = json.loads(GOLDEN.read_text())
    assert golden['model'] == model, 'the embedded model is another one: write the actions anew'
    expected = golden['actions']
    assert len(given) == len(expected) == SECONDS * 10
    different = [(number, one, other) for number, (one, other) in enumerate(zip(given, expected))
                 if not same(one, other)]
    assert len(different) <= MOST_DIFFERENT * len(expected), different
    for one, other in zip(given, expected):
        assert abs(one['acceleration'] - other['acceleration']) <= FAR_ACCELERATION
        assert abs(one['curvature'] - other['curvature']) <= FAR_CURVATURE
    assert rig.signal(signal.SIGINT)[0] == 0
