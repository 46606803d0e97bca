"""Records a rendered drive as a bag: what `owled demo-bag` writes."""

from dataclasses import dataclass
from pathlib import Path

from owled_ros.bags.writing import DriveWriter
from owled_ros.errors import UserError
from owled_ros.scenes.drive import random_world, simulate
from owled_ros.scenes.expert import drive
from owled_ros.scenes.render import render

START = 1_700_000_000 * 10 ** 9  # ns; any time but zero, which ROS takes for "no time"
WHEELBASE = 2.7                  # m, of the demo vehicle


@dataclass(frozen=True)
class Recording:
    """What was written: counts, the drive's length and how often the vehicle stood still."""

    path: Path
    frames: int
    seconds: float
    metres: float
    stops: int


def record_drive(path, *, seconds=40.0, seed=7, width=640, height=480, storage='mcap',
                 progress=lambda text: None):
    """Drive through the world of a seed as the expert does and write it to a bag at `path`.

    Camera, its info and truth at 10 Hz, odometry at 50 Hz. Returns a Recording. Raises UserError.
    """
    if not seconds >= 1:
        raise UserError(f'a drive of {seconds} s was asked for; it must last at least 1 s')
    world = random_world(seed, width=width, height=height)
    centre = (width / 2, height / 2)    # where the renderer puts what is straight ahead
    frames = stops = 0
    metres, standing = 0.0, True
    with DriveWriter(path, storage, wheelbase=WHEELBASE) as writer:
        for moment in simulate(world, drive, seconds):
            stamp = START + round(moment.time * 1e9)
            writer.write_odometry(stamp, moment.pose, moment.ego)
            if not moment.decided:
                continue
            writer.write_camera_info(stamp, (width, height), world.camera.focal, centre)
            writer.write_frame(stamp, render(moment.scene))
            writer.write_truth(stamp, moment.ego, moment.verdict.action, moment.verdict.text)
            frames += 1
            metres += moment.ego.speed * 0.1
            stops += moment.ego.speed < 0.05 and not standing
            standing = moment.ego.speed < 0.05
            if frames % 50 == 0:
                progress(f'{moment.time:.0f} of {seconds:.0f} s')
    return Recording(Path(path), frames, float(seconds), metres, stops)
