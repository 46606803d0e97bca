"""Pruned vision-language models that drive: calibration, driving node, and what they share."""

import pkgutil

__version__ = '0.1.0'

# The messages are generated, so a source tree has no owled_ros/msg: let Python look for it in
# every owled_ros folder on its path.
__path__ = pkgutil.extend_path(__path__, __name__)
