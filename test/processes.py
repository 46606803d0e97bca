"""What Linux tells of the node's processes."""

import os
from pathlib import Path
import time


def model_process(node):
    """Return the id of the process that the model of a node's process runs in, or None."""
    for folder in Path('/proc').iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            if parent == node and b'owled_ros.driver.process' in \
                    (folder / 'cmdline').read_bytes():
                return int(folder.name)
        except (OSError, IndexError):
            continue  # it ended while it was looked at
    return None


def is_gone(process, patience):
    """Return whether a process has ended within `patience` [s]; None: there was none."""
    end = time.monotonic() + patience
    while process is not None and Path(f'/proc/{process}').exists():
        try:
            if Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
                return True  # nobody has asked for its status yet
        except OSError:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def resident(process):
    """Return the resident memory of a process in bytes."""
    pages = Path(f'/proc/{process}/statm').read_text().split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def open_files(process):
    return len(os.listdir(f'/proc/{process}/fd'))


def threads(process):
    return len(os.listdir(f'/proc/{process}/task'))
