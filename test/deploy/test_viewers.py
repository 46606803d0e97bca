"""The layouts for Foxglove and RViz show what the driving node says and hears."""

import json
from pathlib import Path
from xml.etree import ElementTree

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from owled_ros.msg import DrivingAction, Explanation
import pytest
from sensor_msgs.msg import CompressedImage
import yaml

CONFIG = Path(__file__).parents[2] / 'config'
FOXGLOVE = json.loads((CONFIG / 'owled_foxglove.json').read_text())
RVIZ = yaml.safe_load((CONFIG / 'owled.rviz').read_text())
TYPES = {
    '/owled/action': DrivingAction, '/owled/explanation': Explanation, '/odom': Odometry,
    '/owled/debug_image/compressed': CompressedImage, '/diagnostics': DiagnosticArray}


def topics_of_the_node():
    """Return the topics in the SROS2 policy, which test_policy.py compares with the node's."""
    (enclave,) = [enclave for enclave in
                  ElementTree.parse(CONFIG / 'sros2_policy.xml').iter('enclave')
                  if enclave.get('path') == '/owled_ros/driving_node']
    names = [topic.text.strip() for topic in enclave.iter('topic')]
    return {name if name[0] == '/' else f'/{name}' for name in names}


def foxglove_paths():
    """Return every message path of the panels, as /topic.field."""
    found = []
    for panel in FOXGLOVE['configById'].values():
        found += [panel[key] for key in ('topicPath', 'topicToRender') if key in panel]
        found += [path['value'] for path in panel.get('paths', ())]
        found += [panel['imageMode']['imageTopic']] if 'imageMode' in panel else []
    return found


def rviz_topics():
    return [display['Topic']['Value'] for display in RVIZ['Visualization Manager']['Displays']
            if 'Topic' in display]


def panels(layout):
    """Return the panels in the tree of a Foxglove layout."""
    return [layout] if isinstance(layout, str) else \
        [*panels(layout['first']), *panels(layout['second'])]


@pytest.mark.parametrize('path', [*foxglove_paths(), *rviz_topics()])
def test_every_topic_and_field_is_there(path):
    topic, *fields = path.split('.')
    assert topic in topics_of_the_node()
    value = TYPES[topic]()
    for field in fields:
        value = getattr(value, field)


def test_every_panel_is_laid_out_once():
    assert sorted(panels(FOXGLOVE['layout'])) == sorted(FOXGLOVE['configById'])


def test_what_an_integrator_looks_for_is_shown():
    shown = set(foxglove_paths())
    assert {'/owled/debug_image/compressed', '/owled/explanation', '/diagnostics'} <= shown
    assert {f'/owled/action.{field}' for field in (
        'acceleration', 'steering_angle', 'target_speed', 'status')} <= shown
    assert '/owled/debug_image/compressed' in rviz_topics()


def test_rviz_asks_for_no_more_than_is_offered():
    """Best effort fits every publisher; a reliable display would not see the debug image."""
    asked = [display['Topic']['Reliability Policy']
             for display in RVIZ['Visualization Manager']['Displays'] if 'Topic' in display]
    assert set(asked) == {'Best Effort'}
