"""Message types for bags: those of ROS 2, and owled_ros's own from their .msg files."""

from functools import cache
from pathlib import Path

from owled_ros.errors import UserError
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
ODOMETRY = 'nav_msgs/msg/Odometry'
TWIST = 'geometry_msgs/msg/TwistStamped'
TWIST_WITH_COVARIANCE = 'geometry_msgs/msg/TwistWithCovarianceStamped'
VELOCITY_REPORT = 'autoware_vehicle_msgs/msg/VelocityReport'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
ACTION = 'owled_ros/msg/DrivingAction'
EXPLANATION = 'owled_ros/msg/Explanation'
COMMAND = 'owled_ros/msg/DrivingCommand'
# For bags that do not hold the definitions of their messages, as those of Humble in sqlite3.
VELOCITY_REPORT_FIELDS = """
std_msgs/Header header
float32 longitudinal_velocity
float32 lateral_velocity
float32 heading_rate
"""


@cache
def typestore():
    """Return the types of current ROS 2 and of owled_ros, shared and not to be changed."""
    store = get_typestore(Stores.LATEST)
    store.register(get_types_from_msg(VELOCITY_REPORT_FIELDS, VELOCITY_REPORT))
    for path in sorted(message_folder().glob('*.msg')):
        store.register(get_types_from_msg(path.read_text(), f'owled_ros/msg/{path.stem}'))
    return store


def message_folder():
    """Return the folder of owled_ros's .msg files.

    Every installation (colcon, pip, a distribution's package) puts them into
    `<prefix>/share/owled_ros/msg`, some levels above this file; a source tree has them in `msg`.
    """
    for parent in Path(__file__).absolute().parents:
        for folder in (parent / 'share' / 'owled_ros' / 'msg', parent / 'msg'):
            if (folder / 'DrivingAction.msg').is_file():
                return folder
    raise UserError('the message definitions of owled_ros (share/owled_ros/msg) are not '
                    'installed; install owled_ros again')
