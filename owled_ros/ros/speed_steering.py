"""The motion of a vehicle that tells its speed and its steering on topics of their own.

Such messages bear no stamp: they are stamped with the node's time when they are heard.
"""

import math

from owled_ros.driver.action import Status
from owled_ros.errors import UserError
from owled_ros.ros.ego_history import Motion
from owled_ros.ros.refused import Refused

MAX_ANGLE = 1.5  # rad; front wheels turn less, and the tangent has no end


class SpeedAndSteering:
    """Makes a measurement of each speed with the latest steering.

    `steer` and `motion` may be called by two threads.
    """

    def __init__(self, topics):
        """Know of no steering yet; take the Topics, to tell of its own."""
        self._topics = topics
        self._steering = None  # (stamp [ns], angle [rad])

    def steer(self, angle, now):
        """Take the angle of the front wheels [rad], left positive, heard at `now` [ns]."""
        self._steering = (now, angle)

    def motion(self, speed, now, settings):
        """Return the Motion at a speed [m/s] heard at `now` [ns].

        Raises Refused or UserError where the steering is missing, old or cannot be true.
        """
        if self._steering is None:
            raise self._topics.missing('steering')
        stamp, angle = self._steering
        age = (now - stamp) / 1e9
        if age > settings.max_ego_age:
            raise Refused(Status.STALE_INPUT, f'the steering is {age:.3f} s older than the speed; '
                          f'max_ego_age is {settings.max_ego_age:g} s')
        if not abs(angle) <= MAX_ANGLE:     # NaN fails too
            raise UserError(f'the steering cannot be true: {angle:g} rad at the front wheels')
        return Motion(now, speed, speed * math.tan(angle) / settings.wheelbase)
