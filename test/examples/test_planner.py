"""The example planner follows what may be followed, and brakes for everything else."""

import importlib.util
from pathlib import Path
import subprocess
import sys

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from owled_ros.msg import DrivingAction

PROGRAM = Path(__file__).parents[2] / 'examples' / 'planner.py'
PATIENCE = 60.0     # s


@pytest.fixture(scope='module')
def planner():
    spec = importlib.util.spec_from_file_location('example_planner', PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module     # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def action(sequence, *, stamp=100.0, status=DrivingAction.OK, speed=7.0, curvature=0.05):
    message = DrivingAction(status=status, sequence=sequence, target_speed=speed,
                            curvature=curvature, reason='' if status == DrivingAction.OK else 'no')
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int(stamp % 1 * 1e9)
    message.valid_for.sec = 1
    return message


def test_an_ok_action_is_followed_within_the_planners_own_limits(planner):
    follower = planner.Follower()
    follower.take(action(1))
    assert follower.command(100.3, 5.0, 0.0) == pytest.approx((5.075, 0.05))
    follower.take(action(2, speed=2.0, curvature=-4.0))
    assert follower.command(100.3, 5.0, 0.0) == pytest.approx((4.85, -0.15))
    follower.take(action(3, speed=60.0))
    assert follower.command(100.3, 7.99, 0.0)[0] == pytest.approx(8.0)


@pytest.mark.parametrize('spoil, why', [
    (lambda f: f.take(action(2, status=DrivingAction.STALE_INPUT)), 'no'),
    (lambda f: f.take(DrivingAction()), 'the status is 0'),
    (lambda f: f.take(action(3)), 'actions were lost'),
    (lambda f: f.take(action(2, stamp=98.0)), 'is 2.00 s old'),
    (lambda f: f.take(action(2, stamp=103.0)), 'is -3.00 s old'),
], ids=['not ok', 'blank', 'gap', 'over', 'from the future'])
def test_without_one_it_brakes_and_holds_the_curve(planner, spoil, why):
    follower = planner.Follower()
    follower.take(action(1))
    spoil(follower)
    assert follower.command(100.0, 5.0, 0.04) == pytest.approx((4.85, 0.04))
    assert follower.command(100.0, 0.1, 0.04) == pytest.approx((0.0, 0.04))
    assert why in follower.why
    follower.take(action(follower.sequence + 1))
    assert follower.command(100.1, 5.0, 0.0)[0] > 5.0


def test_it_brakes_when_actions_stop_coming(ros_domain):
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('test', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    commands = []
    node.create_subscription(TwistStamped, 'cmd_vel', commands.append, 10)
    actions = node.create_publisher(DrivingAction, 'owled/action', 1)
    odometry = node.create_publisher(Odometry, 'odom', 1)
    process = subprocess.Popen([sys.executable, PROGRAM])
    sequence = 0

    def until(reached, *, acting):
        nonlocal sequence
        end = node.get_clock().now().nanoseconds + PATIENCE * 1e9
        while not (commands and reached(commands[-1])):
            now = node.get_clock().now()
            assert now.nanoseconds < end, commands[-1:]
            measured = Odometry()
            measured.header.stamp = now.to_msg()
            measured.twist.twist.linear.x = 5.0
            odometry.publish(measured)
            if acting:
                sequence += 1
                actions.publish(action(sequence, stamp=now.nanoseconds / 1e9))
            executor.spin_once(timeout_sec=0.05)

    try:
        until(lambda command: command.twist.linear.x > 5.0, acting=True)
        assert commands[-1].twist.angular.z == pytest.approx(
            0.05 * commands[-1].twist.linear.x)
        until(lambda command: 0.0 < command.twist.linear.x < 5.0, acting=False)
        until(lambda command: command.twist.linear.x > 5.0, acting=True)
    finally:
        process.terminate()
        process.wait(10)
        node.destroy_node()
        rclpy.shutdown(context=context)
