"""Inputs that do not come are told of by their topics, and by who publishes there."""

from nav_msgs.msg import Odometry
from owled_ros.driver.action import Status
from owled_ros.ros.topics import Topics
import pytest

ODOMETRY, TWIST = 'nav_msgs/msg/Odometry', 'geometry_msgs/msg/TwistStamped'


@pytest.mark.parametrize('published, words', [
    ([], '/car/odom, which nobody publishes'),
    ([TWIST, TWIST], f'/car/odom, whose type is {TWIST}, not {ODOMETRY}'),
    ([TWIST, 'a/msg/B'], f'/car/odom, whose type is a/msg/B or {TWIST}, not {ODOMETRY}'),
    ([ODOMETRY], '/car/odom'),
    ([TWIST, ODOMETRY], '/car/odom'),
])
def test_who_publishes(published, words):
    topics = Topics()
    topics.add('odometry', 'odom', '/car/odom', Odometry)
    topics.look({'odom': published}.get)
    refusal = topics.missing('odometry')
    assert (refusal.status, refusal.reason) == (
        Status.NO_INPUT, f'no odometry has arrived yet on {words}')


def test_the_graph_is_asked_only_when_it_is_looked_at():
    topics, asked = Topics(), []
    topics.add('odometry', 'odom', '/odom', Odometry)
    assert topics.where('odometry') == ' on /odom'
    topics.look(lambda topic: asked.append(topic) or [])
    for _ in range(3):
        assert topics.where('odometry') == ' on /odom, which nobody publishes'
    assert asked == ['odom'] and topics.where('frame') == ''
    assert str(topics) == f'/odom ({ODOMETRY})'
