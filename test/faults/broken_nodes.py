"""Breaks the node's own guards, one at a time, and looks whether the campaign notices.

A campaign that passes says little unless it fails where it should. Each of GUARDS is a place in the
node's code that is made ineffective in a copy of the package; the kinds of faults that need it must
then fail.
"""

import argparse
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIME_LIMIT = 400  # s for one campaign
NODES = 25        # times as many, for nodes are ended in a hundredth of the faults only


@dataclass(frozen=True)
class Guard:
    """What is broken: in a file, by another text in place of `code`, for faults of `kinds`.

    times: so many more faults, where only some need the guard.
    """

    name: str
    file: str
    code: str
    broken: str
    kinds: tuple
    times: int = 1


def _ros(name, file, code, broken, *kinds, times=1):
    return Guard(name, f'owled_ros/ros/{file}.py', code, broken, kinds, times)


GUARDS = (
    _ros('age of a frame', 'frame_gate', 'if age > settings.max_frame_age:', 'if False:',
         'late_frames', 'sensors_left_behind'),
    _ros('frames of the future', 'frame_gate', 'if age < -settings.max_clock_skew:', 'if False:',
         'future_frames'),
    _ros('order of frames', 'frame_gate',
         'if self._last_stamp is not None and stamp <= self._last_stamp:', 'if False:',
         'frames_out_of_order', 'frames_twice'),
    _ros('one colour', 'frame_gate', 'if _one_colour(frame):', 'if False:', 'blank_frames'),
    _ros('frozen picture', 'frame_gate',
         'if 0 < settings.max_frozen_frames <= self._repeats:', 'if False:', 'frozen_camera'),
    _ros('size of a frame', 'frame_gate', 'if expected is not None and size != expected:',
         'if False:', 'other_size'),
    _ros('watchdog', 'watchdog', 'if now - self._silent_since < deadline:', 'if True:',
         'camera_stops', 'model_hangs', 'clock_and_camera_stop'),
    _ros('watchdog, again and again', 'watchdog',
         'self._silent_since = now\n            return', 'self._silent_since = now + 99\n'
         '            return', 'camera_stops', 'everything_stops'),
    _ros('silence through clock jumps', 'watchdog',
         'self._frame = None\n            self._odometry',
         'self._frame, self._silent_since = None, __import__("time").monotonic()\n'
         '            self._odometry', 'clock_flaps_and_camera_stops'),
    _ros('deadline', 'outlet', 'if late > self.settings.deadline:', 'if False:',
         'model_is_late', 'model_hangs'),
    _ros('results of another time', 'outlet',
         'return self._active and ticket == (self._activation, self._clock.jumps)',
         'return self._active', 'clock_jumps_under_the_model'),
    _ros('jerk after a refusal', 'outlet',
         'self._limiter.restart()\n            self._watchdog.refused', 'self._watchdog.refused',
         'model_out_of_limits', 'blank_frames', 'truncated_frames'),
    _ros('jump of the speed', 'ego_history', 'fault = _jump(newest, motion)', 'fault = None',
         'ego_jumps'),
    _ros('jump of the yaw rate', 'ego_history',
         'change = abs(motion.yaw_rate - newest.yaw_rate)', 'change = 0.0', 'ego_spikes'),
    _ros('impossible motion', 'ego_history',
         'if not (abs(motion.speed) <= MAX_SPEED and abs(motion.yaw_rate) <= MAX_YAW_RATE):',
         'if False:', 'ego_not_a_number', 'ego_impossible'),
    _ros('age of the odometry', 'ego_history',
         'if abs(motion.stamp - stamp) <= max_age * 1e9]', 'if True]',
         'odometry_stops', 'odometry_is_late', 'odometry_stands_still'),
    _ros('age of a command', 'inputs',
         'return command if -settings.max_clock_skew <= age <= settings.max_command_age \\\n'
         '            else Command()', 'return command', 'turn_command_grows_old'),
    _ros('commands of the future', 'inputs', 'if ahead > tolerance:', 'if False:',
         'command_makes_no_sense', times=5),
    _ros('speed limit of a command', 'messages',
         'if message.speed_limit < 0 or math.isinf(message.speed_limit):', 'if False:',
         'speed_command_makes_no_sense', times=5),
    _ros('inputs of before a clock jump', 'inputs',
         'if jumps == self._jumps_seen:\n                return', 'return',
         'clock_jumps_back', 'clock_flaps'),
    _ros('another process of the model', 'decision_loop', 'error = self._restart()',
         'raise error', 'model_process_killed'),
    _ros('time of a stopped process', 'model_worker',
         'self._total += min(now - self._last, self._longest)',
         'self._total += now - self._last', 'process_stopped_for_long'),
    Guard('kill of a process that hangs', 'owled_ros/driver/process.py',
          'if process is not None and process.pid == process_id:', 'if False:',
          ('model_process_hangs',)),
    Guard('last word', 'owled_ros/driving_node.py', '    node.say_goodbye()\n', '',
          ('node_terminated', 'node_interrupted'), NODES),
    Guard('end with the node', 'owled_ros/driver/process.py',
          'ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)', 'pass', ('node_killed',), NODES),
)


def campaign_notices(guard, folder, faults, seed):
    """Run the campaign against a copy of the package without the guard; return (noticed, line)."""
    shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(
        '.*', '__pycache__', 'docs', 'build', 'install', 'log'))
    source = folder / guard.file
    source.write_text(source.read_text().replace(guard.code, guard.broken))
    done = subprocess.run(
        [sys.executable, str(folder / 'test/faults/campaign.py'), '--faults', str(faults),
         '--seed', str(seed), '--only', *guard.kinds], cwd=folder, timeout=TIME_LIMIT,
        env=os.environ | {'PYTHONPATH': str(folder)}, capture_output=True, text=True)
    last = (done.stdout.splitlines() or [done.stderr[-300:]])[-1]
    return done.returncode == 1 and last.startswith('FAILED: '), last


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--faults', type=int, default=12, help='for each guard (12)')
    parser.add_argument('--seed', type=int, default=9)
    parser.add_argument('--only', nargs='+', metavar='GUARD', default=[],
                        choices=[guard.name for guard in GUARDS])
    options = parser.parse_args(arguments)
    guards = [guard for guard in GUARDS if guard.name in options.only or not options.only]
    unnoticed = []
    for guard in guards:
        with tempfile.TemporaryDirectory(prefix='owled_ros-broken-') as folder:
            noticed, line = campaign_notices(
                guard, Path(folder), options.faults * guard.times, options.seed)
        if not noticed:
            unnoticed.append(guard.name)
        print(f'{"noticed" if noticed else "NOT NOTICED"}: {guard.name}: {line}', flush=True)
    print(f'{len(guards) - len(unnoticed)} of {len(guards)} broken guards were noticed'
          + ''.join(f'; not: {name}' for name in unnoticed))
    return 1 if unnoticed else 0


if __name__ == '__main__':
    sys.exit(main())
