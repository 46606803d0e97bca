"""What the ROS nodes share: conversions, parameters, QoS, and the rules of timing.

Files without a ROS import hold the rules and can be tried without a graph; `lifecycle`,
`messages`, `parameters`, `qos` and `diagnostics` speak to rclpy.
"""
