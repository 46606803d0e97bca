"""package.xml, pyproject.toml and the sources name the same things."""

from pathlib import Path
import xml.etree.ElementTree as ElementTree

import owled_ros
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()


def named(*tags):
    return {element.text for tag in tags for element in PACKAGE.findall(tag)}


def test_the_version_is_the_same_everywhere():
    assert PACKAGE.findtext('version') == owled_ros.__version__


def test_messages_are_built_with_and_for_rosidl():
    assert 'rosidl_default_generators' in named('buildtool_depend')
    assert 'rosidl_default_runtime' in named('exec_depend')
    assert named('member_of_group') == {'rosidl_interface_packages'}


@pytest.mark.parametrize('dependency', [
    'builtin_interfaces', 'cv_bridge', 'diagnostic_msgs', 'geometry_msgs', 'launch', 'launch_ros',
    'lifecycle_msgs', 'nav_msgs', 'rclpy', 'ros2launch', 'rosgraph_msgs', 'sensor_msgs',
    'std_msgs'])
def test_ros_dependencies_are_declared(dependency):
    assert dependency in named('depend', 'exec_depend')


@pytest.mark.parametrize('key', [
    'python3-numpy', 'python3-opencv', 'python3-pytorch-pip', 'python3-transformers-pip'])
def test_building_the_messages_needs_none_of_the_model_s_libraries(key):
    assert key in named('exec_depend')
    assert key not in named('depend', 'build_depend', 'buildtool_depend')


def test_the_licence_is_apache():
    assert PACKAGE.find('license').text == 'Apache-2.0'
    assert 'Apache License' in (ROOT / PACKAGE.find('license').get('file')).read_text()
