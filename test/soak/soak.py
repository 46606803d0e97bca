"""Lets the driving node drive for a long time and watches what may grow.

The embedded model drives on a demo bag that is replayed in a loop over DDS, in simulated time, so
the clock goes back each time the bag starts again. Memory, open files and threads of the node are
read every second. After a warm-up they must be flat.
"""

import argparse
from contextlib import contextmanager
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import processes  # noqa: E402
from ros_domain import environment, locked_domain  # noqa: E402

PERIOD = 1.0           # s between two readings
WARM_UP = 0.2          # of the run is not judged: caches and allocators fill
BAG_SECONDS = 40.0
START_PATIENCE = 300.0  # s for the model to be loaded on a busy machine
# Bars on the growth from the end of the warm-up to the end of the run, along a fitted line.
MEMORY_BAR = 0.02      # of the resident memory
COUNT_BAR = 0.5        # open files, threads: not one more
SILENCE_BAR = 30.0     # s without an action that is OK
EXIT_WITHIN = 2.0      # s from SIGINT to the end of the process


def judge(readings):
    """Return {what: {first, last, growth, bar, met}} of a run's readings.

    readings: dicts with seconds, memory [MB], files, threads and actions (OK so far).
    """
    judged = [r for r in readings if r['seconds'] >= WARM_UP * readings[-1]['seconds']]
    bars = {}
    for what in ('memory', 'files', 'threads'):
        values = np.array([reading[what] for reading in judged], float)
        bar = MEMORY_BAR * values[0] if what == 'memory' else COUNT_BAR
        growth = fitted_growth([reading['seconds'] for reading in judged], values)
        bars[what] = {'first': float(values[0]), 'last': float(values[-1]),
                      'highest': float(values.max()), 'growth': round(growth, 3),
                      'bar': round(bar, 3), 'met': bool(growth <= bar)}
    silence = longest_silence(readings)
    bars['silence'] = {'longest': silence, 'bar': SILENCE_BAR, 'met': silence <= SILENCE_BAR}
    return bars


def fitted_growth(seconds, values):
    """Return how much a straight line through the values rises from the first to the last."""
    if len(values) < 2 or seconds[-1] == seconds[0]:
        return 0.0
    slope = np.polyfit(np.asarray(seconds) - seconds[0], values, 1)[0]
    return float(slope * (seconds[-1] - seconds[0]))


def longest_silence(readings):
    """Return the longest time [s] in which the number of good actions stood still."""
    longest, since, count = 0.0, readings[0]['seconds'], readings[0]['actions']
    for reading in readings[1:]:
        if reading['actions'] != count:
            since, count = reading['seconds'], reading['actions']
        longest = max(longest, reading['seconds'] - since)
    return round(longest, 1)


class Listener:
    """Counts what the node says."""

    def __init__(self):
        from owled_ros.driver.action import Status
        from owled_ros.msg import DrivingAction, Explanation
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        self.counts = dict.fromkeys((*(status.name for status in Status), 'explanations'), 0)
        self._names = {int(status): status.name for status in Status}
        rclpy.init()
        node = rclpy.create_node('soak_listener')
        node.create_subscription(DrivingAction, 'owled/action', self._action, 100)
        node.create_subscription(Explanation, 'owled/explanation', self._explanation, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        threading.Thread(target=self._executor.spin, daemon=True).start()

    def _action(self, message):
        self.counts[self._names[message.status]] += 1

    def _explanation(self, message):
        self.counts['explanations'] += 1


@contextmanager
def running(command, log):
    """Run a process that is ended by SIGINT."""
    with open(log, 'w') as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_process(process, begun, actions):
    """Return one reading of the node's process and that of its model together."""
    both = [process.pid, *filter(None, [processes.model_process(process.pid)])]
    return {'seconds': round(time.monotonic() - begun, 2), 'processes': len(both),
            'memory': round(sum(map(processes.resident, both)) / 1e6, 2),
            'files': sum(map(processes.open_files, both)),
            'threads': sum(map(processes.threads, both)), 'actions': actions}


def soak(minutes, folder, say):
    """Run for so many minutes; return the readings, the counts and how the node ended."""
    from owled_ros.bags.writing import IMAGE_TOPIC, ODOM_TOPIC
    from owled_ros.scenes.recording import record_drive
    say('writing the bag')
    record_drive(folder / 'bag', seconds=BAG_SECONDS, seed=7)
    listener = Listener()
    node = ['-m', 'owled_ros.driving_node', '--ros-args', '-p', 'image_transport:=compressed',
            '-p', 'use_sim_time:=true', '-r', 'image:=/camera/image_raw', '-r', 'odom:=/odom']
    player = ['-m', 'owled_ros.cli', 'replay', str(folder / 'bag'), '--loop', '--topics',
              IMAGE_TOPIC, ODOM_TOPIC, '--wait-for', IMAGE_TOPIC, ODOM_TOPIC]
    with running(node, folder / 'node.log') as process:
        with running(player, folder / 'player.log'):
            wait_for_action(listener, process, folder / 'node.log')
            say('it drives')
            readings = watch(process, listener, minutes, say)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        end = {'status': process.wait(30), 'seconds': round(time.monotonic() - began, 2)}
    return {'minutes': minutes, 'end': end, 'counts': listener.counts, 'readings': readings}


def wait_for_action(listener, process, log):
    end = time.monotonic() + START_PATIENCE
    while not listener.counts['OK']:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit('the node does not drive; its last words:\n'
                             + log.read_text()[-2000:])
        time.sleep(0.2)


def watch(process, listener, minutes, say):
    """Read the process every PERIOD until the time is over, or it ends."""
    readings, begun = [], time.monotonic()
    while (passed := time.monotonic() - begun) < minutes * 60 and process.poll() is None:
        readings.append(read_process(process, begun, listener.counts['OK']))
        if len(readings) % 60 == 0:
            say('{seconds:.0f} s: {memory:.0f} MB in {processes} processes, {files} files, '
                '{threads} threads, {actions} actions'.format(**readings[-1]))
        time.sleep(max(0.0, PERIOD - (time.monotonic() - begun - passed)))
    return readings


def plot(run, path):
    """Draw memory, files and threads over time."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, constrained_layout=True)
    minutes = [reading['seconds'] / 60 for reading in run['readings']]
    for axis, (what, unit) in zip(axes, (
            ('memory', 'resident memory [MB]'), ('files', 'open files'), ('threads', 'threads'))):
        axis.plot(minutes, [reading[what] for reading in run['readings']], linewidth=1)
        axis.axvspan(0, WARM_UP * minutes[-1], color='0.9')
        axis.set_ylabel(unit)
        bar = run['bars'][what]
        axis.set_title(f'growth {bar["growth"]:+g}, bar {bar["bar"]:g}', fontsize=9)
    axes[0].set_ylim(0, 1.1 * max(reading['memory'] for reading in run['readings']))
    axes[-1].set_xlabel('minutes (grey: warm-up, not judged)')
    figure.savefig(path, dpi=110)
    plt.close(figure)


def summary(run):
    """Return the last line of a run."""
    bars, counts = run['bars'], run['counts']
    grown = ', '.join(f'{what} {bars[what]["first"]:g} -> {bars[what]["last"]:g} '
                      f'(fitted {bars[what]["growth"]:+g}, bar {bars[what]["bar"]:g})'
                      for what in ('memory', 'files', 'threads'))
    return (f'{"passed" if passed(run) else "FAILED"}: {run["minutes"]:g} minutes, '
            f'{counts["OK"]} actions, {counts["explanations"]} explanations; {grown}; longest '
            f'silence {bars["silence"]["longest"]:g} s; ended with {run["end"]["status"]} after '
            f'{run["end"]["seconds"]:g} s')


def passed(run):
    return all(bar['met'] for bar in run['bars'].values()) and run['end']['status'] == 0 \
        and run['end']['seconds'] <= EXIT_WITHIN


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='script/soak', description=__doc__.splitlines()[0],
        epilog='example: script/soak --minutes 60 --output soak')
    parser.add_argument('--minutes', type=float, default=60.0, help='how long (60)')
    parser.add_argument('--output', type=Path, default=Path('soak'), metavar='DIRECTORY',
                        help='where soak.json and soak.png go (soak)')
    options = parser.parse_args(arguments)
    begun = time.monotonic()

    def say(words):
        print(f'soak [{time.monotonic() - begun:5.0f} s] {words}', flush=True)

    with locked_domain() as domain, \
            tempfile.TemporaryDirectory(prefix='owled_ros-soak-') as folder:
        os.environ.update(environment(domain, folder))
        run = soak(options.minutes, Path(folder), say)
    if len(run['readings']) < 2:
        raise SystemExit('the node has ended, or the time was too short for two readings')
    run['bars'] = judge(run['readings'])
    options.output.mkdir(parents=True, exist_ok=True)
    temporary = options.output / 'soak.json.part'
    temporary.write_text(json.dumps(run, indent=1) + '\n')
    temporary.replace(options.output / 'soak.json')
    plot(run, options.output / 'soak.png')
    print(summary(run))
    return 0 if passed(run) else 1


if __name__ == '__main__':
    sys.exit(main())
