"""Recorded drives: reading, pairing, choosing and writing rosbag2 files without ROS 2."""
