#!/usr/bin/env python3
"""Renders the scenes that the embedded model learns from, with everything the renderer knows.

    python training/render_dataset.py --output DIRECTORY --scenes 106000

Writes shards of 2,000 scenes (NumPy archives, nothing pickled); an interrupted run goes on with
the first shard that is missing. One scene in five is drawn at 640x480, the others at 320x240;
all are stored as the square JPEG that the vision encoder sees.
"""

import argparse
from multiprocessing import Pool
from pathlib import Path
import time

import cv2
import numpy as np
from PIL import Image

from owled_ros.scenes.expert import drive
from owled_ros.scenes.render import patch_labels, render
from owled_ros.scenes.sampling import random_scene

SHARD = 2000
IMAGE_SIZE = 192
GRID = 12


def squeeze(frame, size=IMAGE_SIZE):
    """Resize to the encoder's square as the model's image processor does."""
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR))


def render_one(seed):
    """Return the fields of one scene, each a NumPy scalar or array."""
    large = seed % 5 == 0
    scene = random_scene(seed, width=640 if large else 320, height=480 if large else 240)
    verdict = drive(scene)
    frame = cv2.cvtColor(squeeze(render(scene)), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()
    objects, distances, lights, light_distances = patch_labels(scene, GRID)
    return {
        'jpeg': jpeg, 'objects': objects.astype(np.uint8), 'lights': lights.astype(np.uint8),
        'distances': distances.astype(np.float16),
        'light_distances': light_distances.astype(np.float16),
        'speed': np.float32(scene.speed), 'speed_limit': np.float32(scene.speed_limit),
        'acceleration': np.float32(verdict.action.acceleration),
        'curvature': np.float32(verdict.action.curvature),
        'maneuver': np.uint8(verdict.action.maneuver),
        'text': np.bytes_(verdict.text),
    }


def render_shard(task):
    """Write one shard, unless it is there already; returns its number of scenes."""
    path, first = task
    if path.exists():
        return SHARD
    rows = [render_one(seed) for seed in range(first, first + SHARD)]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != 'jpeg'}
    sizes = np.array([len(row['jpeg']) for row in rows])
    columns['jpeg'] = np.concatenate([row['jpeg'] for row in rows])
    columns['ends'] = np.cumsum(sizes)
    partial = path.with_suffix('.partial')
    with open(partial, 'wb') as file:
        np.savez(file, **columns)
    partial.rename(path)
    return SHARD


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--scenes', type=int, default=106_000)
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument('--processes', type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    firsts = range(arguments.first_seed, arguments.first_seed + arguments.scenes, SHARD)
    tasks = [(arguments.output / f'{first:010d}.npz', first) for first in firsts]
    started, done = time.monotonic(), 0
    with Pool(arguments.processes) as pool:
        for count in pool.imap_unordered(render_shard, tasks):
            done += count
            rate = done / (time.monotonic() - started)
            print(f'{done} of {len(tasks) * SHARD} scenes, {rate:.0f} a second', flush=True)


if __name__ == '__main__':
    main()
