"""The node's half of a bond: what a lifecycle manager hears, if it can hear."""

import sys
from types import ModuleType, SimpleNamespace

from owled_ros.ros.heartbeat import Heartbeat
import pytest


class Node:
    """Notes what it is asked to do."""

    def __init__(self):
        self.said, self.topics, self.logged = [], [], []

    def get_name(self):
        return 'driving_node'

    def get_logger(self):
        return SimpleNamespace(debug=self.logged.append)

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: 'now'))

    def create_publisher(self, kind, topic, profile):
        self.topics.append(topic)
        return SimpleNamespace(publish=self.said.append)


class Status(SimpleNamespace):

    def __init__(self, **fields):
        super().__init__(header=SimpleNamespace(stamp=None), **fields)


@pytest.fixture
def bond(monkeypatch):
    package, module = ModuleType('bond'), ModuleType('bond.msg')
    module.Status = Status
    monkeypatch.setitem(sys.modules, 'bond', package)
    monkeypatch.setitem(sys.modules, 'bond.msg', module)


def test_it_beats_while_the_node_is_active(bond):
    node = Node()
    heartbeat = Heartbeat(node)
    heartbeat.beat()
    assert node.topics == ['bond'] and not node.said
    heartbeat.start()
    heartbeat.beat()
    heartbeat.stop()
    heartbeat.stop()
    heartbeat.beat()
    assert [message.active for message in node.said] == [True, True, False]
    (instance,) = {message.instance_id for message in node.said}
    message = node.said[0]
    assert message.id == 'driving_node' and message.header.stamp == 'now'
    assert message.heartbeat_timeout > 2 * message.heartbeat_period
    heartbeat.start()
    assert node.said[-1].instance_id != instance  # a bond that was broken is never mended


def test_it_is_silent_where_bonds_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond', None)
    node = Node()
    heartbeat = Heartbeat(node)
    heartbeat.start()
    heartbeat.beat()
    heartbeat.stop()
    assert not node.topics and not node.said and len(node.logged) == 1
