#!/usr/bin/env python3
"""The whole job on the embedded model: a bag, a pruned model, a driving node that acts on it.

Writes a bag of a rendered drive, calibrates and prunes the embedded model on it, starts the
driving node on the pruned model in a process of its own, replays the bag against it over DDS, and
shows what it answered. Everything lies in demo/ afterwards. Ends with 0 only if actions came out
of the node and the model has the sparsity that was asked for.
"""

import argparse
from bisect import bisect_right
from contextlib import contextmanager
import json
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
from owled_ros.bags.samples import Drive, Source
from owled_ros.bags.writing import IMAGE_TOPIC, ODOM_TOPIC, TRUTH_EXPLANATION_TOPIC, TRUTH_TOPIC
from owled_ros.calibration import calibrate, Request
from owled_ros.driver.action import LimitedAction, LimitsApplied, Maneuver, Status
from owled_ros.driver.driver import Driver
from owled_ros.errors import UserError
from owled_ros.evaluation.cases import sample_cases
from owled_ros.evaluation.metrics import measure
from owled_ros.evaluation.open_loop import ask
from owled_ros.pruning import PruningSettings
from owled_ros.scenes.recording import record_drive, WHEELBASE

SOURCE = Source(image_topic='/camera/image_raw', odom_topic=ODOM_TOPIC, truth_topic=TRUTH_TOPIC,
                explanation_topic=TRUTH_EXPLANATION_TOPIC)
TOLERANCE = 1e-3        # of the sparsity
START_PATIENCE = 120.0  # s for the node to load its model
LAST_PATIENCE = 2.0     # s after the bag for the last explanation
SHEET = (4, 3)          # pictures across and down


def say(text):
    print(f'demo [{time.monotonic() - STARTED:4.0f} s] {text}', flush=True)


STARTED = time.monotonic()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, default=Path('demo'))
    parser.add_argument('--seconds', type=float, default=40.0, help='length of the drive (40)')
    parser.add_argument('--seed', type=int, default=7, help='which world is driven through (7)')
    parser.add_argument('--sparsity', type=float, default=0.5)
    arguments = parser.parse_args()
    # A graph of its own: the demo must not drive somebody's vehicle.
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_LOG_DIR', str(arguments.output.absolute() / 'log'))
    try:
        return run(arguments)
    except UserError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2


def run(arguments):
    bag, pruned = prepare(arguments.output)
    say(f'writing a bag of a rendered drive to {bag}')
    recording = record_drive(bag, seconds=arguments.seconds, seed=arguments.seed)
    say(f'{recording.frames} frames, {recording.metres:.0f} m, {recording.stops} stops')
    say(f'pruning the embedded model on this drive, to a sparsity of {arguments.sparsity:.0%}')
    report = calibrate(Request(
        output=pruned, bags=(bag,), source=SOURCE,
        pruning=PruningSettings(sparsity=arguments.sparsity)), progress=say_progress())
    say('comparing dense and pruned with what the expert did')
    errors = {name: errors_on(bag, model)
              for name, model in (('dense', 'embedded'), ('pruned', pruned))}
    say('starting the driving node on the pruned model and replaying the bag against it')
    heard = drive_over_dds(bag, pruned, arguments.output / 'driving_node.log')
    summary = summarise(recording, report, errors, heard)
    write_sheet(arguments.output / 'contact_sheet.png', bag, heard)
    (arguments.output / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    print_summary(summary, arguments.output)
    return verdict(summary)


def prepare(output):
    """Make room: what an earlier demo left is removed, nothing else."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ('bag', 'pruned', 'log'):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in ('summary.json', 'contact_sheet.png', 'driving_node.log'):
        (output / name).unlink(missing_ok=True)
    return output / 'bag', output / 'pruned'


def say_progress():
    """Progress at most every five seconds."""
    last = [0.0]

    def progress(text):
        if time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            say(f'  {text}')
    return progress


def errors_on(bag, model):
    """How far a model's actions are from the expert's, asked directly, frame by frame."""
    driver = Driver.load(model, backend='transformers')  # its speed does not matter here
    cases = sample_cases(Drive(bag, SOURCE).samples())
    return measure(ask(driver, cases, explain=False), WHEELBASE)


# -- over DDS ----------------------------------------------------------------------------------

class Listener:
    """Keeps what the driving node says, in a thread of its own."""

    def __init__(self):
        from owled_ros.msg import DrivingAction, Explanation, ModelInfo
        from owled_ros.ros import qos
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.actions, self.explanations = [], []
        self.drives = False
        self.loaded = threading.Event()
        rclpy.init()
        self.node = rclpy.create_node('demo_listener')
        self.node.create_subscription(
            DrivingAction, 'owled/action', self.hear, 100)
        self.node.create_subscription(
            Explanation, 'owled/explanation', self.explanations.append, qos.EXPLANATION)
        self.node.create_subscription(
            ModelInfo, 'owled/info', lambda message: self.loaded.set(), qos.INFO)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        threading.Thread(target=self.executor.spin, daemon=True).start()

    def hear(self, action):
        self.actions.append(action)
        if action.status == Status.OK and not self.drives:
            self.drives = True
            say(f'the first action: {Maneuver(action.maneuver).name}, '
                f'{action.acceleration:+.1f} m/s^2, {action.curvature:+.3f} 1/m')

    def close(self):
        import rclpy
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def drive_over_dds(bag, model, log):
    """Replay the bag against a driving node; returns the Listener with what it heard."""
    listener = Listener()
    try:
        with driving_node(model, log) as node:
            wait_until_loaded(listener, node, log)
            replay(bag)
            time.sleep(LAST_PATIENCE)
    finally:
        listener.close()
    return listener


def replay(bag):
    """Play camera and odometry, in a process of its own: nothing else may hold up its clock."""
    topics = [IMAGE_TOPIC, ODOM_TOPIC]
    played = subprocess.run(
        [sys.executable, '-m', 'owled_ros.cli', 'replay', str(bag), '--topics', *topics,
         '--wait-for', *topics], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if played.returncode:
        raise UserError(f'the bag could not be replayed: {played.stderr.strip()}')


@contextmanager
def driving_node(model, log):
    """Run a driving node in a process of its own, ended by SIGINT."""
    command = [sys.executable, '-m', 'owled_ros.driving_node', '--ros-args',
               '-p', f'model:={model.absolute()}', '-p', 'image_transport:=compressed',
               '-p', 'use_sim_time:=true', '-r', 'image:=/camera/image_raw', '-r', 'odom:=/odom']
    with open(log, 'w') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_loaded(listener, process, log):
    end = time.monotonic() + START_PATIENCE
    while not listener.loaded.wait(0.2):
        if process.poll() is not None or time.monotonic() > end:
            raise UserError(f'the driving node did not start; its last words, in {log}, are: '
                            f'{(log.read_text().strip().splitlines() or ["none"])[-1]}')


# -- what came of it ---------------------------------------------------------------------------

def stamp_of(message):
    return message.header.stamp.sec * 10 ** 9 + message.header.stamp.nanosec


def summarise(recording, report, errors, heard):
    stamps = {stamp_of(message) for message in heard.actions if stamp_of(message)}
    fine = [message for message in heard.actions if message.status == Status.OK]
    latencies = [1e3 * message.latency.sec + message.latency.nanosec / 1e6 for message in fine]
    refused = {}
    for message in heard.actions:
        if message.status != Status.OK:
            name = Status(message.status).name
            refused[name] = refused.get(name, 0) + 1
    return {
        'frames_published': recording.frames,
        'frames_dropped': recording.frames - len(stamps),
        'actions_ok': len(fine),
        'actions_not_ok': len(heard.actions) - len(fine),
        'actions_not_ok_by_status': refused,
        'explanations': sum(message.complete for message in heard.explanations),
        'action_latency_ms': {'p50': percentile(latencies, 50), 'p95': percentile(latencies, 95)},
        'sparsity_requested': report['sparsity']['requested'],
        'sparsity_measured': report['sparsity']['measured'],
        'E_lon': {name: e['E_lon'] for name, e in errors.items()},
        'E_lat': {name: e['E_lat'] for name, e in errors.items()},
    }


def percentile(values, share):
    return round(float(np.percentile(values, share)), 1) if values else None


def write_sheet(path, bag, heard):
    """Twelve frames of the drive with the action and explanation that were published on them."""
    from owled_ros.film.overlay import draw_action
    actions = {stamp_of(m): m for m in heard.actions if m.status == Status.OK}
    texts = sorted((stamp_of(m), m.text) for m in heard.explanations if m.complete)
    if not actions:
        return
    stamps = sorted(actions)
    across, down = SHEET
    wanted = {stamps[round(i)] for i in np.linspace(0, len(stamps) - 1, across * down)}
    pictures = []
    for sample in Drive(bag, SOURCE).samples(wanted):
        # The explanation that was valid when the frame came: at most that of its own action.
        index = bisect_right(texts, (sample.stamp, chr(0x10ffff))) - 1
        text = texts[index][1] if index >= 0 else ''
        pictures.append(draw_action(sample.frame, limited(actions[sample.stamp]), text))
    while len(pictures) < across * down:
        pictures.append(np.zeros_like(pictures[0]))
    rows = [np.hstack(pictures[row * across:(row + 1) * across]) for row in range(down)]
    sheet = cv2.resize(np.vstack(rows), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), sheet[:, :, ::-1])


def limited(message):
    return LimitedAction(
        message.acceleration, message.curvature, message.steering_angle, message.target_speed,
        Maneuver(message.maneuver), LimitsApplied(message.limits_applied), message.confidence)


def print_summary(summary, output):
    latency, requested = summary['action_latency_ms'], summary['sparsity_requested']
    not_ok = ', '.join(f'{count} {name}' for name, count in
                       summary['actions_not_ok_by_status'].items()) or 'none'
    print(f"""
frames published       {summary['frames_published']}
frames dropped         {summary['frames_dropped']}
actions OK             {summary['actions_ok']}
actions not OK         {summary['actions_not_ok']} ({not_ok})
explanations           {summary['explanations']}
frame to action        {latency['p50']} ms (median), {latency['p95']} ms (95 %)
sparsity               {summary['sparsity_measured']:.4f} (requested {requested})

error against the expert       dense     pruned
E_lon, acceleration [m/s^2] {summary['E_lon']['dense']:8.3f}   {summary['E_lon']['pruned']:8.3f}
E_lat, steering [rad]       {summary['E_lat']['dense']:8.4f}   {summary['E_lat']['pruned']:8.4f}

{output}/contact_sheet.png     frames with the published actions and explanations
{output}/pruned/report.html    what was cut
{output}/summary.json          these numbers
""")


def verdict(summary):
    if summary['actions_ok'] == 0:
        print('demo: no action came out of the node; see driving_node.log', file=sys.stderr)
        return 1
    off = abs(summary['sparsity_measured'] - summary['sparsity_requested'])
    if off > TOLERANCE:
        print(f'demo: the sparsity is off by {off:.4f}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
