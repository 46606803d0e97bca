"""The DDS settings are well formed, and Fast DDS takes them: large pictures go in one piece."""

import json
from pathlib import Path
import subprocess
import sys
import time
from xml.etree import ElementTree

from owled_ros.ros import qos
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

DEPLOY = Path(__file__).parents[2] / 'deploy'
PROFILE = DEPLOY / 'fastdds.xml'
CAMERA = Path(__file__).with_name('camera.py')
PATIENCE = 60.0     # s
PICTURE = 3 * 1920 * 1080   # bytes


def number(name):
    """Return what a setting of Fast DDS's shared memory is set to."""
    root = ElementTree.parse(PROFILE).getroot()
    space = root.tag.partition('}')[0] + '}'
    (memory,) = [descriptor for descriptor in root.iter(f'{space}transport_descriptor')
                 if descriptor.findtext(f'{space}type') == 'SHM']
    return int(memory.findtext(f'{space}{name}'))


def kernel_settings():
    lines = (DEPLOY / '60-owled-dds.conf').read_text().splitlines()
    pairs = [line.partition(' = ') for line in lines if line and line[0] != '#']
    return {name: int(value) for name, _, value in pairs}


def test_a_picture_fits_in_one_message_and_several_in_the_memory():
    assert number('maxMessageSize') > PICTURE
    assert number('segment_size') > 5 * PICTURE


def test_the_kernel_gives_the_buffers_that_are_asked_for():
    settings = kernel_settings()
    asked = [int(size.text) for size in ElementTree.parse(PROFILE).getroot().iter()
             if size.tag.endswith(('sendBufferSize', 'receiveBufferSize'))]
    assert len(asked) == 2 and max(asked) <= settings['net.core.rmem_max']
    cyclone, = [element for element in ElementTree.parse(DEPLOY / 'cyclonedds.xml').iter()
                if element.tag.endswith('}SocketReceiveBufferSize')]
    for bound in ('min', 'max'):
        assert int(cyclone.get(bound).removesuffix('MB')) * 2**20 <= settings['net.core.rmem_max']
    for name in settings:
        assert Path('/proc/sys', name.replace('.', '/')).exists()


@pytest.fixture
def camera(ros_domain, monkeypatch):
    """Start a camera's process with the profile; this one has it too."""
    if rclpy.get_rmw_implementation_identifier() != 'rmw_fastrtps_cpp':
        pytest.skip('another DDS than Fast DDS')
    if not Path('/dev/shm').is_dir():
        pytest.skip('no shared memory')
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, str(PROFILE))
    process = subprocess.Popen([sys.executable, CAMERA], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    yield process
    process.terminate()
    process.communicate(timeout=10)


def test_fast_dds_takes_the_profile_and_large_pictures_arrive(camera):
    segments = json.loads(camera.stdout.readline() or camera.communicate()[1])
    assert max(segments.values(), default=0) >= number('segment_size')
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('viewer', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    seen = []
    node.create_subscription(
        Image, 'image', lambda picture: seen.append(len(picture.data)), qos.IMAGE)
    end = time.monotonic() + PATIENCE
    try:
        while len(seen) < 5:
            assert time.monotonic() < end, seen
            executor.spin_once(timeout_sec=0.1)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert set(seen) == {PICTURE}
