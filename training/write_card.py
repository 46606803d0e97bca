#!/usr/bin/env python3
"""Measures a trained model and writes its card, the README.md beside it.

    python training/write_card.py RUN/model

On held-out scenes, seeing and blind, and in closed loop (200 drives of 60 s, the longest part).
"""

import argparse
import math
from pathlib import Path

from owled_ros.driver.driver import Driver
from owled_ros.evaluation.cases import scene_cases
from owled_ros.evaluation.closed_loop import drive_closed_loop, summarise
from owled_ros.evaluation.metrics import measure
from owled_ros.evaluation.open_loop import ask
from owled_ros.scenes.recording import WHEELBASE

SECONDS = 60.0  # of a drive

CARD = """---
license: apache-2.0
pipeline_tag: image-text-to-text
library_name: transformers
---

# The embedded model of owled_ros

A tiny {family}: a vision encoder and a language model, {parameters:.1f} million parameters,
{megabytes:.1f} MB in fp16. It answers a front-camera frame and the vehicle's speed with an
acceleration, a curvature and a maneuver, and then says what it saw and why. It was trained from
nothing on scenes that `owled_ros/scenes` renders; no real image and no other model was used.

**It is not a driver.** It has never seen a real road and knows nothing but the renderer's world. It
exists so that pruning and the driving node can be tried, tested and measured with nothing to
download.

## How good it is

On {scenes} held-out scenes (seeds that training never uses), from
`owled evaluate embedded --scenes {scenes} --dtype {dtype}`, and `--blind` for the same model given
a grey image:

| | seeing | grey image |
|---|---|---|
{rows}

Shares are between 0 and 1; definitions: `docs/evaluation.md`. The steering is that of a vehicle
with a wheelbase of {wheelbase} m.

In closed loop, from `owled evaluate embedded --closed-loop --drives {drives} --dtype {dtype}`
(60 s each; faults are counts a drive):

| | the model | the expert |
|---|---|---|
{driving}

## What it cannot do

- It sees one frame. The speed of the vehicle ahead is guessed from its brake lamps.
- It keeps to its lane: it was never shown a turn or a lane change, and reads a route without
  heeding it.
- Distances are those of a camera with a field of view of 54 degrees, 1.25 to 1.65 m above the road.
- What it says about pedestrians in the lane is wrong as often as the table says.

## How it was made

`training/render_dataset.py` and `training/train.py`; see `training/README.md`. Prompt and answer:
`driving_format.yaml`.
"""

ROWS = {
    'E_lon': 'E_lon: acceleration, mean absolute error [m/s^2]',
    'E_lat': 'E_lat: steering, mean absolute error [rad]',
    'maneuver_accuracy': 'maneuver right',
    'parse_rate': 'answers that parse',
    'Acc_TL': 'Acc_TL: state of the light right (none, red, amber, green)',
    'D_TL': 'D_TL: distance of the light, mean absolute error [m]',
    'E_car': 'E_car: vehicle ahead told or not, wrong',
    'D_lead': 'distance of the vehicle ahead, mean absolute error [m]',
    'E_ped': 'E_ped: pedestrian told or not, wrong',
    'pedestrian_in_lane_found': 'pedestrians in the lane that are told',
    'pedestrian_in_lane_false_alarms': 'pedestrians told in a lane without',
    'cause_accuracy': 'cause of the action right',
    'slot_accuracy': 'slots of the sentence that are right',
    'L_token': 'L_token: cross entropy of the true answer [nats a token]',
}


def shown(value):
    return '–' if math.isnan(value) else f'{value:.4g}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=Path)
    parser.add_argument('--scenes', type=int, default=2000)
    parser.add_argument('--drives', type=int, default=200)
    parser.add_argument('--dtype', default='auto', help='bfloat16: faster on a CPU with AMX')
    arguments = parser.parse_args()
    driver = Driver.load(arguments.model, dtype=arguments.dtype)
    parameters = sum(p.numel() for p in driver.model.parameters())
    seeing, blind = (measure(ask(driver, cases, total=arguments.scenes, progress=print), WHEELBASE)
                     for cases in (scene_cases(arguments.scenes),
                                   (case.blind() for case in scene_cases(arguments.scenes))))
    ours, expert = map(summarise, drive_closed_loop(driver, arguments.drives, SECONDS,
                                                    progress=print))
    rows = '\n'.join(f'| {what} | {shown(seeing[name])} | {shown(blind[name])} |'
                     for name, what in ROWS.items())
    driving = '\n'.join(f'| {name.replace("_", " ")} | {shown(ours[name])} | '
                        f'{shown(expert[name])} |' for name in ours if name != 'drives')
    weights = (arguments.model / 'model.safetensors').stat().st_size
    (arguments.model / 'README.md').write_text(CARD.format(
        family=type(driver.model).__name__.removesuffix('ForConditionalGeneration'),
        parameters=parameters / 1e6, megabytes=weights / 1e6, scenes=arguments.scenes, rows=rows,
        dtype=str(driver.model.dtype).removeprefix('torch.'), wheelbase=WHEELBASE,
        drives=arguments.drives, driving=driving))
    print(f'{rows}\n\n{driving}')


if __name__ == '__main__':
    main()
