"""The launch file makes the node that its arguments ask for. Needs ROS 2's launch."""

from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / 'launch' / 'driving.launch.py'


@pytest.fixture
def launched():
    """Return a function: launch arguments in, (Node, its command line) out."""
    pytest.importorskip('launch_ros')
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    def evaluate(**arguments):
        context = LaunchContext()
        context.launch_configurations.update(arguments)
        description = PythonLaunchDescriptionSource(str(FILE)).get_launch_description(context)
        *declared, opaque = description.entities
        for argument in declared:
            argument.visit(context)
        (node,) = opaque.visit(context)
        node._perform_substitutions(context)
        return node, ' '.join(
            ''.join(part.perform(context) for part in word) for word in node.cmd)

    return evaluate


def test_defaults_leave_the_parameter_file_alone(launched):
    node, command = launched()
    assert command.count('--params-file') == 2  # the file, and use_sim_time
    assert 'driving.yaml' in command and '--log-level info' in command
    assert node.expanded_node_namespace in ('', '/', node.UNSPECIFIED_NODE_NAMESPACE)


def test_arguments_reach_the_node(launched):
    node, command = launched(namespace='left', image_topic='/left/image_raw', model='7',
                             odom_topic='/odom', log_level='debug', autostart='false')
    assert 'image:=/left/image_raw' in command and 'odom:=/odom' in command
    assert '--log-level debug' in command and '__ns:=/left' in command


def test_unknown_choices_are_refused(launched):
    with pytest.raises(Exception, match='image_transport|choices|valid'):
        launched(image_transport='theora')
