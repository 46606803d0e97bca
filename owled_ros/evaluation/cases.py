"""What a model is asked, with the right answer: from rendered scenes or from bags."""

from dataclasses import dataclass

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState
from owled_ros.scenes.expert import drive
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds, random_scene


@dataclass(frozen=True)
class Case:
    """A frame (height, width, 3) uint8 RGB, the ego state and command, and the truth."""

    frame: np.ndarray
    ego: EgoState
    command: Command
    action: Action
    explanation: str = ''

    def blind(self):
        """Return the same case with a grey image: what can be answered without seeing."""
        return Case(np.full_like(self.frame, 128), self.ego, self.command, self.action,
                    self.explanation)


def scene_cases(count, *, width=640, height=480):
    """Yield `count` rendered scenes of seeds that no training uses."""
    for seed in held_out_seeds(count):
        scene = random_scene(seed, width=width, height=height)
        verdict = drive(scene)
        yield Case(render(scene), EgoState(scene.speed), Command(speed_limit=scene.speed_limit),
                   verdict.action, verdict.text)


def sample_cases(samples):
    """Yield recorded samples (see bags/samples.py) as cases."""
    for sample in samples:
        yield Case(sample.frame, sample.ego, sample.command, sample.action, sample.explanation)
