"""Prunes a model on a recorded drive, and ends with it.

ros2 launch owled_ros calibration.launch.py bag:=drive model:=embedded output:=pruned
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory('owled_ros')) / 'config' / 'calibration.yaml'
YES_NO = ['true', 'false']
WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number'}
# Parameters of the node, with their types. What is left empty stays as it is in the parameter
# file.
PARAMETERS = {
    'bag': (str, 'rosbag2 directory, or several separated by commas; none: the live topics'),
    'model': (str, "'embedded', a directory, or a hub name"),
    'output': (str, 'directory to make for the pruned model'),
    'image_topic': (str, 'camera, in the bag or live, without /compressed'),
    'image_transport': (str, 'raw or compressed, where there is no bag'),
    'odom_topic': (str, 'odometry whose twist is in base_frame'),
    'odom_type': (str, 'odometry, twist, twist_with_covariance or autoware, where there is no '
                  'bag'),
    'undistort': (bool, 'undo the distortion that the camera info tells of'),
    'field_of_view': (float, 'rad across that the model is shown; 0: all'),
    'camera_info_topic': (str, 'where that needs it; else camera_info beside the images'),
    'base_frame': (str, 'frame of the vehicle'),
    'command_topic': (str, 'where the route wanted to go'),
    'truth_topic': (str, 'actions to teach instead of the recorded motion'),
    'explanation_topic': (str, 'explanations to teach with them'),
    'sparsity': (float, 'share of the prunable weights to prune, from 0 to 0.99'),
    'method': (str, 'which weights go'),
    'allocation': (str, 'how blocks share the budget'),
    'statistics': (str, 'dense (faster) or sequential (in the model as it is pruned)'),
    'pattern': (str, 'unstructured, or n:m as in 2:4'),
    'components': (str, 'vision, projector, language, head, several with commas, both or all'),
    'component_sparsity': (str, 'a budget of its own for a component, as in vision=0.3'),
    'joint': (bool, 'whether the blocks of all components share one budget'),
    'include': (str, 'regular expression of the projections to prune'),
    'exclude': (str, 'regular expression of the projections to leave dense'),
    'samples': (int, 'frames to calibrate on'),
    'held_out': (int, 'other frames to measure the losses on'),
    'seed': (int, 'for the choice of frames'),
    'device': (str, "where it is computed: 'auto', 'cpu', 'cuda'"),
    'autostart': (bool, 'configure and activate without a lifecycle manager'),
}
ARGUMENTS = [
    *(DeclareLaunchArgument(name, default_value='', description=description)
      for name, (_, description) in PARAMETERS.items()),
    DeclareLaunchArgument('params_file', default_value=str(CONFIG),
                          description='parameters of the node'),
    DeclareLaunchArgument('namespace', default_value='', description='namespace of the node'),
    DeclareLaunchArgument('use_sim_time', default_value='false', choices=YES_NO,
                          description='take the time from /clock'),
    DeclareLaunchArgument('log_level', default_value='info',
                          choices=['debug', 'info', 'warn', 'error', 'fatal'],
                          description='least severe messages to log'),
]


def typed(name, text, kind):
    """Return an argument as the type that its parameter has."""
    if kind is str:
        return ParameterValue(text, value_type=str)  # else a bag called 7 would be a number
    try:
        return YES_NO.index(text.lower()) == 0 if kind is bool else kind(text)
    except ValueError:
        raise RuntimeError(f'{name} is {text!r}; it must be {WORDS[kind]}') from None


def calibration_node(context):
    """Return the node with the arguments as they were given."""
    def given(name):
        return LaunchConfiguration(name).perform(context)

    if not Path(given('params_file')).is_file():  # launch itself would only warn
        raise RuntimeError(f'params_file is {given("params_file")!r}, where there is no file')
    overrides = {name: typed(name, given(name), kind)
                 for name, (kind, _) in PARAMETERS.items() if given(name)}
    overrides['use_sim_time'] = given('use_sim_time') == 'true'
    return [Node(
        package='owled_ros', executable='calibration_node', name='calibration_node',
        namespace=given('namespace'), parameters=[given('params_file'), overrides],
        arguments=['--ros-args', '--log-level', given('log_level')],
        output='screen', emulate_tty=True)]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=calibration_node)])
