#!/usr/bin/env python3
"""Renders the scenes that the embedded model learns from, with everything the renderer knows.

    python training/render_dataset.py --output DIRECTORY --scenes 200000

Writes shards of 2,000 scenes (NumPy archives, nothing pickled); an interrupted run goes on with
the first shard that is missing. One scene in five is drawn at 640x480, the others at 320x240; all
are stored as the JPEG of what the model's image processor makes of them, with the tokens of prompt
and answer. What kinds of scenes there are: owled_ros/scenes/mixture.py.
"""

import argparse
import json
from pathlib import Path
import time

import cv2
from embedded_model import build_processor, FORMAT, GRID, SHOWN
import numpy as np
from owled_ros.driver.action import Command, EgoState
from owled_ros.driver.prompt import answer_tokens
from owled_ros.errors import UserError
from owled_ros.scenes.expert import drive
from owled_ros.scenes.mixture import GROUP, Mixture, training_scenes
from owled_ros.scenes.pool import rendering_pool
from owled_ros.scenes.render import patch_labels, render

SHARD = 2000
TEXT_LENGTH = 44  # tokens, prompt and answer, without the image's


class Recorder:
    """Turns scenes into rows of a shard; one in every process."""

    def __init__(self):
        self.processor = build_processor()

    def row(self, scene):
        """Return the fields of one scene, each a NumPy scalar or array."""
        verdict = drive(scene)
        tokens, asked = self._tokens(scene, verdict)
        objects, distances, lights, light_distances = patch_labels(scene, GRID, SHOWN)
        return {
            'jpeg': self._jpeg(render(scene)),
            'objects': objects.astype(np.uint8), 'lights': lights.astype(np.uint8),
            'distances': distances.astype(np.float16),
            'light_distances': light_distances.astype(np.float16),
            'curvature': np.float32(verdict.action.curvature),
            'tokens': tokens, 'asked': np.uint8(asked),
        }

    def _jpeg(self, frame):
        seen = self.processor.image_processor(
            frame, do_rescale=False, do_normalize=False, return_tensors='np')['pixel_values'][0]
        picture = cv2.cvtColor(seen.transpose(1, 2, 0).astype(np.uint8), cv2.COLOR_RGB2BGR)
        return cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()

    def _tokens(self, scene, verdict):
        """Tokens of prompt and answer, padded, and how many of them are the prompt's."""
        prompt = FORMAT.prompt_text(EgoState(scene.speed), Command(speed_limit=scene.speed_limit))
        asked = self.processor.tokenizer(prompt.replace('{image}', ''),
                                         add_special_tokens=False)['input_ids']
        answer = answer_tokens(self.processor, FORMAT, verdict.action, verdict.text)
        tokens = np.full(TEXT_LENGTH, self.processor.tokenizer.pad_token_id, np.uint16)
        tokens[:len(asked) + len(answer)] = asked + answer
        return tokens, len(asked)


_recorder = None


def render_shard(task):
    """Write one shard, unless it is there already; returns its number of scenes."""
    global _recorder  # built once in each process
    path, number, mixture = task
    if path.exists():
        return SHARD
    _recorder = _recorder or Recorder()
    groups = range(number * SHARD // GROUP, (number + 1) * SHARD // GROUP)
    rows = [_recorder.row(scene) for group in groups
            for scene in training_scenes(group, mixture, **size_of(group))]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != 'jpeg'}
    columns['jpeg'] = np.concatenate([row['jpeg'] for row in rows])
    columns['ends'] = np.cumsum([len(row['jpeg']) for row in rows])
    partial = path.with_suffix('.partial')
    with open(partial, 'wb') as file:
        np.savez(file, **columns)
    partial.rename(path)
    return SHARD


def size_of(group):
    large = group % 5 == 0
    return {'width': 640 if large else 320, 'height': 480 if large else 240}


def shard_path(directory, number):
    return Path(directory) / f'{number:06d}.npz'


def render_dataset(directory, scenes, mixture, processes):
    """Render `scenes` scenes in `processes` processes; shards appear in the order of numbers."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    check_mixture(directory, mixture)
    tasks = [(shard_path(directory, number), number, mixture)
             for number in range(-(-scenes // SHARD))]
    started, done = time.monotonic(), 0
    with rendering_pool(processes) as pool:
        for count in pool.imap(render_shard, tasks):
            done += count
            rate = done / (time.monotonic() - started)
            print(f'rendered {done} of {len(tasks) * SHARD} scenes, {rate:.0f} a second',
                  flush=True)


def check_mixture(directory, mixture):
    """Refuse to go on with another mixture than a directory was begun with."""
    path = directory / 'mixture.json'
    if path.exists() and json.loads(path.read_text()) != vars(mixture):
        raise UserError(f'{directory} was begun with the mixture {path.read_text().strip()}; '
                        'use it again or another directory')
    path.write_text(json.dumps(vars(mixture)) + '\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--scenes', type=int, default=200_000)
    parser.add_argument('--mixture', type=Mixture.parse, default=Mixture(),
                        help='shares of the kinds, as random=0.5,driven=0.5 (%(default)s)')
    parser.add_argument('--processes', type=int, default=2)
    arguments = parser.parse_args()
    render_dataset(arguments.output, arguments.scenes, arguments.mixture, arguments.processes)


if __name__ == '__main__':
    main()
