"""The node in a process of its own, spoken to over DDS."""

from pathlib import Path
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
from owled_ros.errors import UserError
import pytest
import rclpy
import yaml

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # s; a busy machine imports torch for minutes


def arguments_of(parameters):
    return [part for name, value in parameters.items()
            for part in ('-p', f'{name}:={yaml.safe_dump(value).splitlines()[0]}')]


def start_node(**parameters):
    return subprocess.Popen(
        [sys.executable, '-m', 'owled_ros.calibration_node', '--ros-args',
         *arguments_of(parameters)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output_of(process):
    try:
        return process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()


@pytest.fixture
def graph(ros_domain):
    """Make a node of the test's own."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    node = rclpy.create_node('tester', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    node.destroy_node()
    context.try_shutdown()


CLIENTS = weakref.WeakKeyDictionary()


def call(graph, kind, service, request):
    node, executor = graph
    if service not in CLIENTS.setdefault(node, {}):
        CLIENTS[node][service] = node.create_client(kind, service)
    client = CLIENTS[node][service]
    assert client.wait_for_service(PATIENCE)
    future = client.call_async(request)
    executor.spin_until_future_complete(future, PATIENCE)
    return future.result()


def transition(graph, label):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    request = ChangeState.Request(transition=Transition(label=label))
    return call(graph, ChangeState, '/calibration_node/change_state', request).success


def set_parameter(graph, name, value):
    from rcl_interfaces.srv import SetParameters
    request = SetParameters.Request(
        parameters=[rclpy.parameter.Parameter(name, value=value).to_parameter_msg()])
    result, = call(graph, SetParameters, '/calibration_node/set_parameters', request).results
    return result.successful


def test_a_bad_request_is_a_failure_and_a_good_one_is_carried_out(tmp_path, graph, model, drive):
    output = tmp_path / 'pruned'
    process = start_node(bag=str(drive), model=str(tmp_path), output=str(output), samples=4,
                         held_out=2, autostart=False)
    try:
        for name, bad, good in (('model', str(tmp_path), str(model)),
                                ('sparsity', 1.0, 0.6),
                                ('truth_topic', '/nothing', '/owled/truth'),
                                ('output', '', str(output))):
            assert set_parameter(graph, name, bad)
            assert not transition(graph, 'configure')
            assert set_parameter(graph, name, good)
        assert not set_parameter(graph, 'bag', 'another')
        assert not output.exists()
        assert transition(graph, 'configure')
        assert transition(graph, 'activate')
        text = output_of(process)
    finally:
        process.kill()
    assert process.returncode == 0, text
    assert (output / 'model.safetensors').is_file() and (output / 'owled.json').is_file()
    assert 'no messages on /nothing; it has' not in text  # a sentence names what is needed, too
    assert 'no messages on /nothing, where owled_ros/msg/DrivingAction is needed' in text
    assert 'Traceback' not in text


def test_autostart_ends_with_two_on_a_bag_that_is_not_there(tmp_path, ros_domain):
    process = start_node(bag=str(tmp_path / 'nothing'), output=str(tmp_path / 'pruned'),
                         model=str(tmp_path))
    text = output_of(process)
    assert process.returncode == 2, text
    assert 'Traceback' not in text and 'not configured' in text
    assert [path.name for path in tmp_path.iterdir()] in (['ros_log'], [])


def test_a_live_drive_is_collected(tmp_path, graph, model):
    # In this process, whose imports are done; the publishers are in another context.
    from owled_ros.calibration_node import CalibrationNode
    context = rclpy.Context()
    parameters = {'model': str(model), 'output': str(tmp_path / 'pruned'), 'samples': 4,
                  'held_out': 0, 'spacing': 0.2, 'horizon': 0.2, 'image_topic': '/eye',
                  'odom_topic': '/move', 'undistort': True, 'camera_info_topic': '/lens'}
    rclpy.init(context=context, args=['--ros-args', *arguments_of(parameters)])
    node = CalibrationNode(context=context)
    executor = rclpy.executors.MultiThreadedExecutor(4, context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    try:
        publish_a_drive(graph[0], until=node.ended)
        assert node.status == 0
        assert (tmp_path / 'pruned' / 'model.safetensors').is_file()
    finally:
        executor.shutdown(timeout_sec=1)
        spinning.join(5)
        node.destroy_node()
        context.try_shutdown()


def publish_a_drive(node, until):
    from nav_msgs.msg import Odometry
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image
    frames = node.create_publisher(Image, '/eye', qos_profile_sensor_data)
    motion = node.create_publisher(Odometry, '/move', 50)
    lens = node.create_publisher(CameraInfo, '/lens', 10)
    info = CameraInfo(width=64, height=48, distortion_model='plumb_bob',
                      d=[-0.2, 0.05, 0.0, 0.0, 0.0],
                      k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0])
    tick, deadline = 0, time.monotonic() + PATIENCE
    while not until.wait(0.02) and time.monotonic() < deadline:
        stamp = node.get_clock().now().to_msg()
        message = Odometry(child_frame_id='base_link')
        message.header.stamp = stamp
        message.twist.twist.linear.x, message.twist.twist.angular.z = 5.0, 0.1
        motion.publish(message)
        if tick % 5 == 1:
            info.header.stamp = stamp
            lens.publish(info)
            image = Image(height=48, width=64, encoding='rgb8', step=192)
            image.header.stamp = stamp
            image.data = np.full(48 * 192, tick % 250, np.uint8).tobytes()
            frames.publish(image)
        tick += 1


def test_every_setting_of_pruning_is_a_parameter_with_its_default():
    from dataclasses import fields

    from owled_ros.calibration_node import PARAMETERS, settings_of
    from owled_ros.pruning import PruningSettings
    defaults = {name: default for name, (default, _) in PARAMETERS.items()}
    assert {field.name for field in fields(PruningSettings)} <= set(defaults)
    assert settings_of(defaults) == PruningSettings()
    given = {**defaults, 'include': 'layers', 'exclude': 'q_proj|k_proj', 'components': 'all',
             'component_sparsity': 'vision=0.3, projector=0.1'}
    assert settings_of(given) == PruningSettings(
        include=('layers',), exclude=('q_proj|k_proj',), components='all',
        component_sparsity={'vision': 0.3, 'projector': 0.1})
    with pytest.raises(UserError, match='vision:0.3.* cannot be read'):
        settings_of({**given, 'component_sparsity': 'vision:0.3'})


def test_the_parameter_file_lists_every_parameter_with_its_default():
    from owled_ros.calibration_node import PARAMETERS
    written = yaml.safe_load((ROOT / 'config' / 'calibration.yaml').read_text())
    defaults = {name: default for name, (default, _) in PARAMETERS.items()}
    assert written == {'/**': {'ros__parameters': defaults}}
