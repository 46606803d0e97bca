"""Starting a node: what a person can mend is said in one sentence, not with a traceback."""

import difflib
import re
import sys

from owled_ros.errors import UserError
from owled_ros.ros.refused import in_one_line
import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

FAILED = 1         # exit status: it may be otherwise the next time
USER_ERROR = 2     # exit status: it stays so until somebody changes what was asked for
# What a node raises whose parameters or topics cannot be.
REFUSED = (ParameterException, InvalidQosOverridesError, NameValidationException, UserError)
# Parameters that rclpy reads, of which a node may not know.
OF_RCLPY = ('use_sim_time', 'start_type_description_service')
QOS_OVERRIDES = 'qos_overrides.'
# What rcl says to nobody's use: where in its source it noticed an error, or that it says no more.
OF_NO_USE = re.compile(r', at \S+:\d+|\. Error: error not set')


def start(name, make, args):
    """Initialize rclpy and return the node that `make()` returns.

    Raises SystemExit, with the reason on standard error, when the arguments, a parameter or a
    topic cannot be.
    """
    try:
        _check(args)
        _initialize(args)
        node = make()
    except REFUSED as error:
        _leave(name, error, USER_ERROR)
    except _NotInitialized as error:
        _leave(name, error, FAILED)
    _warn_of_unknown(node)
    return node


class _NotInitialized(Exception):
    """ROS could not be initialized."""


def _check(args):
    """Raise UserError for ROS arguments, or a file of parameters, that cannot be read."""
    # rclpy raises the same for these as where the middleware cannot start; reading them alone
    # tells the two apart.
    try:
        remove_ros_args(args)
    except (RuntimeError, ValueError) as error:
        raise UserError(_words(error)) from None


def _initialize(args):
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as error:
        raise _NotInitialized(_words(error)) from None


def _words(error):
    words = OF_NO_USE.sub('', in_one_line(error))
    # Of arguments that do not exist rclpy gives the list alone.
    return f'there are no such ROS arguments: {words}' if words.startswith('[') else words


def _leave(name, error, status):
    print(f'{name}: {in_one_line(error)}', file=sys.stderr)
    rclpy.try_shutdown()
    raise SystemExit(status)


def _warn_of_unknown(node):
    """Log the parameters that were set for a node and that it does not have: rclpy says nothing."""
    # Without a public name in Humble, Jazzy and Kilted.
    overrides = getattr(node, '_parameter_overrides', {})
    unknown = [name for name in sorted(overrides)
               if not node.has_parameter(name) and name not in OF_RCLPY
               and not name.startswith(QOS_OVERRIDES)]
    if unknown:
        known = list(node.get_parameters_by_prefix(''))
        node.get_logger().warning('parameters that this node does not have were set for it: '
                                  + ', '.join(_with_the_nearest(name, known) for name in unknown))


def _with_the_nearest(name, known):
    grouped = [other for other in known if other.endswith(f'.{name}')]  # as limits.speed is
    nearest = grouped or difflib.get_close_matches(name, known, 1)
    return f'{name} (do you mean {nearest[0]}?)' if nearest else name
