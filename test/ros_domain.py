"""A ROS graph that nobody else is in, for tests and for scripts that start nodes."""

import contextlib
import fcntl
import os
from pathlib import Path
import tempfile

# Domains above 101 use ports that Linux also hands out to other programs.
DOMAINS = range(1, 102)


@contextlib.contextmanager
def locked_domain():
    """Hold the first free domain; a lock goes with its process, however that ends."""
    folder = Path(tempfile.gettempdir(), f'owled_ros-test-domains-{os.getuid()}')
    folder.mkdir(exist_ok=True)
    for domain in DOMAINS:
        with open(folder / str(domain), 'w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f'no free ROS domain: {len(DOMAINS)} processes hold one each')


def environment(domain, logs):
    """Return the variables of a graph on this machine only, with logs in the folder `logs`."""
    variables = {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
                 'ROS_LOG_DIR': str(logs)}
    if os.environ.get('ROS_DISTRO') == 'humble':  # newer ones do not need it, and warn
        variables['ROS_LOCALHOST_ONLY'] = '1'
    return variables
