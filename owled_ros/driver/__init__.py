"""Frame and ego state -> action, then explanation. Imports no ROS."""
