"""A driver that follows a script instead of a model; run as a program it is the driving node.

The script is the parameter `model`: 'scripted' or 'scripted:word=number,...', of
delay [s] per decision, words of the explanation, pause [s] per token, load [s], warm [s] of
warming up, hang [s] of a hang, turn (1: turns left always), wild (1: out of limits always),
broken_load (1: loading raises), out_of_memory_from: the number of the decision from which on
there is no memory, explains (how many words until its process ends), and hang_at, raise_at,
nonsense_at, nan_at, wild_at, out_of_memory_at, die_at (its process ends with status 3): that at
which it happens.
"""

from dataclasses import dataclass
import math
import os
import sys
import time

from owled_ros.driver.action import Action, InvalidAction, Maneuver
from owled_ros.errors import UserError

FOREVER = 3600.0  # s


@dataclass(frozen=True)
class Decision:
    action: Action


class Stream:

    def __init__(self, words, pause, dies):
        self._waiting = list(words)
        self._pause = pause
        self._dies = dies
        self.text = ''
        self.confidence = 0.5
        self.complete = False

    def advance(self, max_tokens):
        for _ in range(max_tokens):
            if not self._waiting:
                break
            time.sleep(self._pause)
            if self._dies is not None and len(self.text.split()) == self._dies:
                os._exit(5)
            self.text = f'{self.text} {self._waiting.pop(0)}'.strip()
        self.complete = not self._waiting
        return self.complete


class ScriptedDriver:
    name = 'scripted'
    hash = '0123abcd'
    backend = 'script'
    backend_reason = 'a test'
    requested_sparsity = 0.5
    measured_sparsity = 0.5

    def __init__(self, script):
        self.script = script
        self.decisions = 0

    @classmethod
    def load(cls, model, **how):
        name, _, words = model.partition(':')
        if name != 'scripted':
            raise UserError(f'the model {model} is not there; name one that is')
        script = {key: float(value) for key, value in
                  (word.split('=') for word in words.split(',') if word)}
        time.sleep(script.get('load', 0))
        if script.get('broken_load'):
            raise RuntimeError('CUDA out of memory\nand a long trace')
        return cls(script)

    def warm_up(self):
        time.sleep(self.script.get('warm', 0))

    def decide(self, frame, ego, command):
        self.decisions += 1
        if self._now('die_at'):
            os._exit(3)
        if self._now('hang_at'):
            time.sleep(self.script.get('hang', FOREVER))
        time.sleep(self.script.get('delay', 0))
        if self._now('out_of_memory_at') or \
                self.decisions >= self.script.get('out_of_memory_from', math.inf):
            raise MemoryError('no more memory')
        if self._now('raise_at'):
            raise RuntimeError('a tensor has the wrong shape\nand a long trace')
        if self._now('nonsense_at'):
            raise InvalidAction('the answer is no action')
        if self._now('wild_at') or self.script.get('wild'):
            return Decision(Action(99.0, -9.0, Maneuver.KEEP_LANE, 0.9))
        if self._now('nan_at'):
            return Decision(Action(math.nan, 0.0, Maneuver.KEEP_LANE, 0.9))
        if self.script.get('turn'):
            return Decision(Action(0.0, 0.01, Maneuver.TURN_LEFT, 0.9))
        # The first pixel says which frame it was.
        return Decision(Action(0.5, float(frame[0, 0, 0]) / 10000, Maneuver.KEEP_LANE, 0.9))

    def explain(self, decision):
        words = int(self.script.get('words', 3))
        return Stream([f'word{n}' for n in range(words)], self.script.get('pause', 0),
                      self.script.get('explains'))

    def _now(self, what):
        return self.decisions == self.script.get(what)


def main(args=None):
    """Run the driving node with this driver."""
    from owled_ros import driving_node
    return driving_node.main(args, load_driver=ScriptedDriver.load)


if __name__ == '__main__':
    sys.exit(main())
