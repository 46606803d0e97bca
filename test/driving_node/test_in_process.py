"""What of the node can be seen only from inside its process."""

import gc
from types import SimpleNamespace
import weakref

from owled_ros import driving_node
from owled_ros.driver.action import Status
from owled_ros.driving_node import DrivingNode
import pytest
import rclpy
from rclpy.context import Context
from scripted_driver import ScriptedDriver


@pytest.fixture
def node(ros_domain):
    """Make a node that nobody spins, its driver and a list of those that it loaded."""
    context = Context()
    rclpy.init(context=context, args=['--ros-args', '-p', 'autostart:=false', '-p',
                                      'model:=scripted', '-p', 'model_process:=false'])
    loaded = []

    def load(model, **how):
        driver = ScriptedDriver.load(model, **how)
        loaded.append(weakref.ref(driver))
        return driver

    node = DrivingNode(load, context=context)
    node.loaded = loaded
    yield node
    node.say_goodbye()
    node.destroy_node()
    context.try_shutdown()


def test_a_callback_that_fails_does_no_harm(node, capfd):
    callback = node._unharmed(lambda message: 1 / message)
    callback(0)
    assert node._counters.snapshot()[0]['callbacks failed'] == 1
    assert 'a callback failed: ZeroDivisionError' in capfd.readouterr().err
    node._ending.set()
    callback(0)  # the graph goes away under it, and that is no failure
    assert node._counters.snapshot()[0]['callbacks failed'] == 1


def test_a_model_that_is_cleaned_up_is_gone(node):
    for _ in range(2):
        assert node.transition('configure') and node.transition('activate')
        assert node.transition('deactivate') and node.transition('cleanup')
    gc.collect()
    assert [driver() for driver in node.loaded] == [None, None]


def test_a_status_is_logged_when_it_changes_and_now_and_then(node, capfd, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(driving_node, 'time', SimpleNamespace(monotonic=lambda: now[0]))

    def lines(status):
        capfd.readouterr()
        node._log_status(SimpleNamespace(status=status, reason='no frame'))
        return capfd.readouterr().err.count('no frame')

    seen = []
    for status, wait in ((Status.NO_INPUT, 0.5), (Status.NO_INPUT, 0.5), (Status.STALE_INPUT, 0.5),
                         (Status.OK, 0.5), (Status.STALE_INPUT, 9.0), (Status.STALE_INPUT, 2.0),
                         (Status.STALE_INPUT, 0.5)):
        seen.append(lines(status))
        now[0] += wait
    assert seen == [1, 0, 1, 0, 1, 0, 1]
