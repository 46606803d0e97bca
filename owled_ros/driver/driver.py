"""The driver: a vision-language model that turns a frame and the ego state into an action."""

from dataclasses import dataclass
import json
import time

import numpy as np
import torch

from owled_ros.driver.action import Action, Command, EgoState
from owled_ros.driver.checkpoint import load_model, load_processor, locate, weights_hash
from owled_ros.driver.decoding import Decoder, ExplanationStream, TokenTree, decode_field
from owled_ros.driver.prompt import DrivingFormat, prompt_inputs, tokenize


@dataclass
class Decision:
    """An action as decoded, before any limit, and what its explanation goes on from."""

    action: Action
    compute_time: float  # s, from the frame to the action
    _decoder: Decoder = None


class Driver:
    """Loads a model, warms it up, and drives. Not thread safe: one thread owns it."""

    def __init__(self, model, processor, driving_format, *, name='model', hash='', report=None):
        """Take a transformers model and its processor; see `load` for a directory's."""
        self.model, self.processor, self.format = model.eval(), processor, driving_format
        self.name, self.hash = name, hash
        self.device = next(model.parameters()).device
        self.backend = 'transformers'
        self.backend_reason = f'{next(model.parameters()).dtype} on {self.device}'
        self.requested_sparsity = float((report or {}).get('sparsity', {}).get('requested', 0.0))
        self.measured_sparsity = float((report or {}).get('sparsity', {}).get('measured', 0.0))
        self._literals, self._trees = {}, {}

    @classmethod
    def load(cls, model, *, device='auto', dtype='auto', expected_hash=''):
        """Load a model: 'embedded', a directory, or a name on the hub.

        device: 'auto' (CUDA where there is one), 'cpu', 'cuda'. dtype: 'auto' (bf16 or fp16 on
        CUDA, float32 on a CPU) or a name of torch's. Raises UserError with one sentence when the
        model is not there, not whole, not a vision-language model, or not the expected one.
        """
        directory = locate(model)
        found = weights_hash(directory, expected_hash)
        processor = load_processor(directory)
        report = directory / 'owled.json'
        return cls(load_model(directory, device, dtype), processor,
                   DrivingFormat.of_model(directory), name=directory.name, hash=found,
                   report=json.loads(report.read_text()) if report.is_file() else None)

    @torch.inference_mode()
    def decide(self, frame, ego, command=None):
        """Decode the action for a frame (height, width, 3) uint8 RGB and an EgoState.

        Raises FloatingPointError when the model's scores are not finite.
        """
        started = time.monotonic()
        command = command or Command()
        decoder = Decoder(self.model, self._inputs(frame, ego, command))
        values, confidence = {}, 1.0
        for literal, blank, name in self.format.answer_parts():
            decoder.feed(self._literal(literal))
            if name == 'explanation':
                break
            values[name], probability = decode_field(decoder, self._tree(name, blank, command))
            confidence *= probability
        action = Action(confidence=confidence, **values)
        return Decision(action, time.monotonic() - started, decoder)

    def explain(self, decision):
        """Return the ExplanationStream of a decision; it decodes only when it is advanced."""
        return ExplanationStream(decision._decoder, self.processor.tokenizer,
                                 self.format.explanation_tokens)

    def warm_up(self, frames=3, width=640, height=480):
        """Drive on noise until kernels, caches and allocators are settled."""
        random = np.random.default_rng(0)
        for _ in range(frames):
            frame = random.integers(0, 255, (height, width, 3), np.uint8)
            self.explain(self.decide(frame, EgoState(5.0), Command())).advance(4)

    def _inputs(self, frame, ego, command):
        inputs = prompt_inputs(self.processor, self.format, frame, ego, command)
        dtype = self.model.dtype
        return {name: value.to(self.device, dtype if value.is_floating_point() else None)
                for name, value in inputs.items()}

    def _literal(self, text):
        if text not in self._literals:
            self._literals[text] = tokenize(self.processor, text)
        return self._literals[text]

    def _tree(self, name, blank, command):
        key = (name, blank, command.route if name == 'maneuver' else None)
        if key not in self._trees:
            self._trees[key] = TokenTree(
                [(tokenize(self.processor, blank + text), value)
                 for text, value in self.format.choices(name, command)])
        return self._trees[key]
