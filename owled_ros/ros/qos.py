"""How each topic is carried, and that users may override it."""

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

# A planner learns within this time that the node's process is gone.
LIVELINESS_LEASE = 1.0  # s


def _profile(depth, reliability, **policies):
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability,
                      **policies)


IMAGE = _profile(1, ReliabilityPolicy.BEST_EFFORT)
ODOMETRY = _profile(50, ReliabilityPolicy.BEST_EFFORT)
# Stamped when they are heard: one that waited behind others would pass for a new one.
UNSTAMPED = _profile(1, ReliabilityPolicy.BEST_EFFORT)
CAMERA_INFO = _profile(1, ReliabilityPolicy.BEST_EFFORT)
COMMAND = _profile(1, ReliabilityPolicy.RELIABLE)
ACTION = _profile(1, ReliabilityPolicy.RELIABLE,
                  liveliness_lease_duration=Duration(seconds=LIVELINESS_LEASE))
PLANNER_OUTPUT = _profile(1, ReliabilityPolicy.RELIABLE)
EXPLANATION = _profile(10, ReliabilityPolicy.RELIABLE)
INFO = _profile(1, ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DEBUG_IMAGE = _profile(1, ReliabilityPolicy.BEST_EFFORT)
DIAGNOSTICS = _profile(10, ReliabilityPolicy.RELIABLE)


def overridable():
    """Return the option that lets parameters `qos_overrides.*` change history and reliability."""
    return QoSOverridingOptions.with_default_policies()
