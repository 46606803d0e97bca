"""The rendering processes end with the one that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import time
from owled_ros.scenes.pool import rendering_pool

if __name__ == '__main__':
    with rendering_pool(2) as pool:
        pool.map(abs, range(4))
        print(*(process.pid for process in pool._pool), flush=True)
        time.sleep(60)
"""


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGTERM])
def test_no_process_stays_behind(tmp_path, sent):
    script = tmp_path / 'pool.py'
    script.write_text(SCRIPT)
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(workers) == 2 and all(map(is_running, workers))
        owner.send_signal(sent)
        owner.wait(30)
        end = time.monotonic() + 30
        while any(map(is_running, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(is_running, workers))
    finally:
        owner.kill()
        for pid in workers:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
