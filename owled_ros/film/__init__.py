"""Drives as people watch them: actions drawn onto frames, and films of recorded drives. No ROS."""
