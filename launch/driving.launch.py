"""Starts the driving node: ros2 launch owled_ros driving.launch.py [argument:=value ...]."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory('owled_ros')) / 'config' / 'driving.yaml'
YES_NO = ['true', 'false']
TOPICS = ('image', 'odom', 'speed', 'steering', 'command')
# What is left empty stays as it is in the parameter file.
ARGUMENTS = [
    DeclareLaunchArgument('params_file', default_value=str(CONFIG),
                          description='parameters of the node'),
    DeclareLaunchArgument('model', default_value='',
                          description="'embedded', a directory, or a hub name"),
    DeclareLaunchArgument('model_hash', default_value='',
                          description='refuse a model whose hash does not begin so'),
    DeclareLaunchArgument('device', default_value='',
                          description="where the model runs: 'auto', 'cpu', 'cuda', 'cuda:1'"),
    DeclareLaunchArgument('base_frame', default_value='',
                          description="frame of the vehicle, and of the odometry's twist"),
    DeclareLaunchArgument('wheelbase', default_value='', description='m, axle to axle'),
    DeclareLaunchArgument('outputs', default_value='',
                          description='an OK action also as twist, ackermann, autoware; several '
                                      'separated by commas'),
    DeclareLaunchArgument('image_topic', default_value='image',
                          description='camera, without /compressed'),
    DeclareLaunchArgument('odom_topic', default_value='odom',
                          description='odometry whose twist is in base_frame'),
    DeclareLaunchArgument('odom_type', default_value='',
                          choices=['', 'odometry', 'twist', 'twist_with_covariance', 'autoware',
                                   'speed_steering'],
                          description='twist: TwistStamped instead of Odometry, ...'),
    DeclareLaunchArgument('speed_topic', default_value='speed',
                          description='Float64 [m/s], with odom_type:=speed_steering'),
    DeclareLaunchArgument('steering_topic', default_value='steering',
                          description='Float64 [rad at the front wheels, left positive], likewise'),
    DeclareLaunchArgument('undistort', default_value='', choices=['', *YES_NO],
                          description='undo the distortion that the camera info tells of'),
    DeclareLaunchArgument('field_of_view', default_value='',
                          description='rad across that the model is shown; 0: all'),
    DeclareLaunchArgument('camera_info_topic', default_value='',
                          description='where that needs it; else camera_info beside <image_topic>'),
    DeclareLaunchArgument('command_topic', default_value='command',
                          description='where the route wants to go; may be silent'),
    DeclareLaunchArgument('image_transport', default_value='', choices=['', 'raw', 'compressed'],
                          description='compressed subscribes to <image_topic>/compressed'),
    DeclareLaunchArgument('namespace', default_value='', description='namespace of the node'),
    DeclareLaunchArgument('use_sim_time', default_value='false', choices=YES_NO,
                          description='take the time from /clock'),
    DeclareLaunchArgument('autostart', default_value='', choices=['', *YES_NO],
                          description='configure and activate without a lifecycle manager'),
    DeclareLaunchArgument('log_level', default_value='info',
                          choices=['debug', 'info', 'warn', 'error', 'fatal'],
                          description='least severe messages to log'),
    DeclareLaunchArgument('respawn', default_value='false', choices=YES_NO,
                          description='start the node again when its process ends'),
]


def driving_node(context):
    """Return the node with the arguments as they were given."""
    def given(name):
        return LaunchConfiguration(name).perform(context)

    def number(name):
        try:
            return float(given(name))
        except ValueError:
            raise RuntimeError(f'{name} is {given(name)!r}; it must be a number') from None

    if not Path(given('params_file')).is_file():  # launch itself would only warn
        raise RuntimeError(f'params_file is {given("params_file")!r}, where there is no file')

    overrides = {
        # Typed, or a model that is called 7 would become a number.
        name: ParameterValue(given(name), value_type=str)
        for name in ('model', 'model_hash', 'device', 'image_transport', 'camera_info_topic',
                     'odom_type', 'base_frame', 'outputs')
        if given(name)}
    overrides |= {name: given(name) == 'true' for name in ('autostart', 'undistort')
                  if given(name)}
    overrides |= {name: number(name) for name in ('field_of_view', 'wheelbase') if given(name)}
    overrides['use_sim_time'] = given('use_sim_time') == 'true'
    return [Node(
        package='owled_ros', executable='driving_node', name='driving_node',
        namespace=given('namespace'), parameters=[given('params_file'), overrides],
        remappings=[(name, given(f'{name}_topic')) for name in TOPICS],
        arguments=['--ros-args', '--log-level', given('log_level')],
        respawn=given('respawn') == 'true', respawn_delay=2.0,
        output='screen', emulate_tty=True)]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=driving_node)])
