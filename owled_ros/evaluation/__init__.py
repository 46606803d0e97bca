"""How well a model drives, on scenes it has never seen and on recorded drives. No ROS."""
