"""Inputs that do not come: which topic the node listens to, and who publishes there."""

from geometry_msgs.msg import TwistStamped
from owled_ros.msg import DrivingAction


def refused(rig, words, meanwhile=lambda: None):
    rig.wait(lambda: any(action.status == DrivingAction.NO_INPUT and action.reason == words
                         for action in rig.actions), words, 0.05, meanwhile)


def test_nobody_publishes_the_images_until_somebody_does(start):
    rig = start(remaps=['image:=/eye/image_raw'], image_transport='compressed', deadline=3.0)
    missing = 'no frame has arrived yet on /eye/image_raw/compressed'
    refused(rig, f'{missing}, which nobody publishes')
    assert ('listens to /eye/image_raw/compressed (sensor_msgs/msg/CompressedImage), '
            '/odom (nav_msgs/msg/Odometry), /command (owled_ros/msg/DrivingCommand)\n'
            ) in rig.words()
    publisher = rig.node.create_publisher(TwistStamped, '/eye/image_raw/compressed', 1)
    refused(rig, f'{missing}, whose type is geometry_msgs/msg/TwistStamped, '
                 'not sensor_msgs/msg/CompressedImage')
    rig.node.destroy_publisher(publisher)


def test_odometry_is_of_another_type(start):
    rig = start(remaps=['odom:=/wheels'], namespace='car')
    rig.node.create_publisher(TwistStamped, '/wheels', 1)
    refused(rig, 'no odometry has arrived yet on /wheels, whose type is '
                 'geometry_msgs/msg/TwistStamped, not nav_msgs/msg/Odometry', rig.image)


def test_a_camera_that_goes_silent(start):
    rig = start(deadline=3.0)
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    rig.wait(lambda: rig.heard(DrivingAction.STALE_INPUT, 0, 's ago on /image'), 'the silence')
