"""A heartbeat for lifecycle managers that keep a bond with their nodes, as Nav2's does.

The manager holds the other end of the bond (bond_core): it hears `bond.msg.Status` on the topic
`bond` and takes the node for dead when none comes for a few seconds. Of that protocol the node
only needs its own half: nothing here depends on the manager, so nothing is subscribed.
"""

import uuid

from rclpy.qos import QoSProfile

PERIOD = 0.5   # s
TIMEOUT = 4.0  # s; told to the manager, which has a limit of its own


class Heartbeat:
    """Beats between `start` and `stop`; silent where the package `bond` is not installed.

    `beat` is to be called every PERIOD by a timer of the node.
    """

    def __init__(self, node):
        self._node = node
        self._instance = None
        try:
            from bond.msg import Status
        except ImportError:
            node.get_logger().debug('no bond with a lifecycle manager: bond.msg is not installed')
            self._status = None
            return
        self._status = Status
        self._publisher = node.create_publisher(Status, 'bond', QoSProfile(depth=5))

    def start(self):
        """Form a new bond: the node was activated."""
        if self._status is not None:
            self._instance = str(uuid.uuid4())
            self.beat()

    def stop(self):
        """Break the bond, and say so: the manager need not wait for a time-out."""
        instance, self._instance = self._instance, None
        if instance is not None:
            self._say(instance, False)

    def beat(self):
        """Say that the node lives, while there is a bond."""
        instance = self._instance
        if instance is not None:
            self._say(instance, True)

    def _say(self, instance, active):
        message = self._status(
            id=self._node.get_name(), instance_id=instance, active=active,
            heartbeat_timeout=TIMEOUT, heartbeat_period=PERIOD)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
