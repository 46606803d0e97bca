"""The node as users start it: its own program, the embedded model, pictures of a scene."""

from pathlib import Path
import signal

from owled_ros.msg import DrivingAction
from owled_ros.ros import messages

NODE = Path(__file__).parents[2] / 'owled_ros' / 'driving_node.py'


def test_the_embedded_model_drives_and_explains(start):
    rig = start('embedded', program=NODE)
    rig.wait_until_heard()
    assert rig.infos[0].hash and rig.infos[0].backend
    rig.drive(lambda: rig.heard(DrivingAction.OK) and rig.explanations,
              'an action and an explanation', period=0.1)
    action = rig.heard(DrivingAction.OK)
    assert action.model.endswith(rig.infos[0].hash)
    assert 0 < messages.nanoseconds(action.compute_time) < 10**10
    assert 0 <= action.confidence <= 1
    assert rig.explanations[0].text
    assert set(rig.statuses()) <= {DrivingAction.OK, DrivingAction.NO_INPUT}
    status, seconds = rig.signal(signal.SIGINT)
    assert status == 0 and seconds < 2.0
    rig.wait(lambda: rig.heard(DrivingAction.INACTIVE), 'INACTIVE')
