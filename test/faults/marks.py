"""Pictures that carry a number and an order to the fake driver.

Both are flat squares of grey on noise, far enough apart in brightness to survive JPEG. So the
order reaches the driver with the very frame that it is meant for, and the answer tells the
listener which frame the driver really looked at.
"""

from enum import IntEnum

import numpy as np

HEIGHT, WIDTH = 48, 64
SQUARE = 16
STEP = 12           # of brightness between two codes
NUMBERS = 8         # frames are numbered modulo this


class Order(IntEnum):
    """What the driver does with a frame."""

    DRIVE = 0
    HANG = 1                 # for faulty_node.HANG seconds
    BE_LATE = 2              # answers after faulty_node.LATE seconds, past the deadline
    RAISE = 3
    OUT_OF_MEMORY = 4
    END_THREAD = 5           # raises SystemExit
    NO_DECISION = 6
    NOT_A_NUMBER = 7
    INFINITE = 8
    WORDS = 9                # an acceleration that is text
    UNKNOWN_MANEUVER = 10
    TURN_LEFT = 11
    FAR_TOO_FAST = 12        # out of every limit
    FAR_TOO_HARD = 13        # the same, braking and to the other side
    EXPLANATION_RAISES = 14
    EXPLANATION_HANGS = 15
    MEMORY_RUNS_SHORT = 16   # once; asked again it drives
    HANG_FOR_GOOD = 17
    CRASH = 18               # a segmentation fault
    TAKE_TIME = 19           # answers after faulty_node.WORK seconds, in time


def paint(random, number, order=Order.DRIVE):
    """Return a (HEIGHT, WIDTH, 3) uint8 picture; random: numpy Generator."""
    picture = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for index, code in enumerate((number % NUMBERS, order)):
        picture[:SQUARE, index * SQUARE:(index + 1) * SQUARE] = code * STEP + STEP // 2
    return picture


def read(picture):
    """Return (number, Order) of a painted picture."""
    half = SQUARE // 2
    codes = [int(picture[half, index * SQUARE + half].mean()) // STEP for index in (0, 1)]
    return codes[0], Order(codes[1])


def curvature(number):
    """Return the curvature [1/m] by which the driver says which frame it saw.

    The steps are so small that no limit touches them.
    """
    return (number % NUMBERS - NUMBERS // 2) * 5e-4


def confidence(yaw_rate):
    """Return the confidence by which the driver says which yaw rate [rad/s] it was given."""
    return 0.5 + yaw_rate / 20
