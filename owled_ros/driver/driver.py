"""The driver: a vision-language model that turns a frame and the ego state into an action."""

from dataclasses import dataclass
import time

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, Route
from owled_ros.driver.backend import choose_backend, PACKING_BACKENDS
from owled_ros.driver.beginning import keep_beginning
from owled_ros.driver.checkpoint import (
    load_model,
    load_processor,
    locate,
    recorded_sparsity,
    weights_hash,
)
from owled_ros.driver.decoding import decode_fields, Decoder, ExplanationStream
from owled_ros.driver.prompt import (
    answer_tokens,
    batched_prompts,
    DrivingFormat,
    field_tree,
    prompt_inputs,
    tokenize,
)
from owled_ros.driver.stepping import CachePool, SteppedDecoder
import torch

WARM_UP_SIZE = 640, 480  # pixels, width and height


@dataclass
class Decision:
    """An action as decoded, before any limit, and what its explanation goes on from."""

    action: Action
    compute_time: float  # s, from the frame to the action
    losses: torch.Tensor = None  # nats of each token of the true answer, where it was given
    _decoder: Decoder = None
    _row: int = 0


class Driver:
    """Loads a model, warms it up, and drives. Not thread safe: one thread owns it."""

    def __init__(self, model, processor, driving_format, *, name='model', hash='',
                 sparsity=(0.0, 0.0), backend=None):
        """Take a transformers model and its processor; see `load` for a directory's.

        sparsity: as requested and as measured; backend: by default transformers.
        """
        self.model, self.processor, self.format = model.eval(), processor, driving_format
        self.name, self.hash = name, hash
        self.device = next(model.parameters()).device
        self._backend = backend or choose_backend(model, 'transformers')
        self.backend, self.backend_reason = self._backend.name, self._backend.reason
        self._caches = CachePool()
        self.requested_sparsity, self.measured_sparsity = sparsity
        self._literals, self._trees = {}, {}

    @classmethod
    def load(cls, model, *, device='auto', dtype='auto', expected_hash='',
             backend='auto'):
        """Load a model: 'embedded', a directory, or a name on the hub.

        device: 'auto' (CUDA where there is one), 'cpu', 'cuda'. dtype: 'auto' (bf16 or fp16 on
        CUDA, float32 on a CPU) or a name of torch's. backend: see backend.py; 'auto' measures what
        decodes fastest here. Raises UserError with one sentence when the
        model is not there, not whole, not a vision-language model, or not the expected one.
        """
        directory = locate(model)
        found = weights_hash(directory, expected_hash)
        processor = load_processor(directory)
        sparsity = recorded_sparsity(directory)
        driving_format = DrivingFormat.of_model(directory)
        loaded = load_model(directory, device, dtype, packed=backend in PACKING_BACKENDS)
        driver = cls(loaded, processor, driving_format, name=directory.name, hash=found,
                     sparsity=sparsity, backend=choose_backend(loaded, backend))
        driver.prepare()
        return driver

    def prepare(self):
        """Make what every answer is decoded with; raises UserError where that cannot be."""
        for literal, blank, name in self.format.answer_parts():
            self._literal(literal)
            if name != 'explanation':
                for route in Route:
                    self._tree(name, blank, Command(route))
        if self._backend.keeps_caches:
            self._keep_beginning()

    def _keep_beginning(self):
        """Compute what all prompts begin with once, where that is worth it."""
        image = getattr(self.processor, 'image_token_id', None)
        if image is None:
            return
        frame = _noise(WARM_UP_SIZE)
        questions = (EgoState(0.0), Command()), (EgoState(13.7, 0.1), Command(Route.LEFT, 8.0))
        prompts = [self._on_device(prompt_inputs(self.processor, self.format, frame, *question))
                   for question in questions]
        count = keep_beginning(self.model, prompts, image, self._caches, self._backend.step)
        if count:
            self.backend_reason += f'; the first {count} tokens of a prompt are computed once'

    @torch.inference_mode()
    def decide(self, frame, ego, command=None):
        """Decode the action for a frame (height, width, 3) uint8 RGB and an EgoState.

        Raises FloatingPointError when the model's scores are not finite.
        """
        started = time.monotonic()
        command = command or Command()
        inputs = self._on_device(prompt_inputs(self.processor, self.format, frame, ego, command))
        if self._backend.keeps_caches:
            decoder = SteppedDecoder(self.model, inputs, self._caches, self._backend.step)
        else:
            decoder = Decoder(self.model, inputs)
        action, = self._decode_actions(decoder, [command])
        return Decision(action, time.monotonic() - started, _decoder=decoder)

    @torch.inference_mode()
    def decide_all(self, questions, answers=None):
        """Decode the actions for a list of (frame, EgoState, Command) in one batch.

        Returns a list of Decisions with the actions that `decide` gives one by one; their
        compute_time is that of the batch. With the true answers, a list of (Action,
        explanation), each has the `losses` of its answer's tokens too, teacher-forced.
        Raises FloatingPointError as `decide` does.
        """
        started = time.monotonic()
        decoder = Decoder(self.model, self._on_device(
            batched_prompts(self.processor, self.format, questions)),
            pad=self.processor.tokenizer.pad_token_id or 0)
        losses = [None] * len(questions) if answers is None else decoder.losses(
            [answer_tokens(self.processor, self.format, *answer) for answer in answers])
        actions = self._decode_actions(decoder, [command for _, _, command in questions])
        seconds = time.monotonic() - started
        return [Decision(action, seconds, losses[row], decoder, row)
                for row, action in enumerate(actions)]

    def explain(self, decision):
        """Return the ExplanationStream of a decision; it decodes only when it is advanced."""
        return ExplanationStream(decision._decoder, self.processor.tokenizer,
                                 self.format.explanation_tokens, decision._row)

    @torch.inference_mode()
    def explain_all(self, decisions):
        """Return the whole explanations of what one `decide_all` returned, as texts."""
        streams = [self.explain(decision) for decision in decisions]
        while not all(stream.complete for stream in streams):
            logits = decisions[0]._decoder.next_logits()
            for stream in streams:
                if not stream.complete:
                    stream.take(logits)
        return [stream.text for stream in streams]

    def _decode_actions(self, decoder, commands):
        """Decode the action of every row, up to where its explanation begins."""
        values = [{} for _ in commands]
        confidences = [1.0 for _ in commands]
        for literal, blank, name in self.format.answer_parts():
            for row in range(len(commands)):
                decoder.feed(self._literal(literal), row)
            if name == 'explanation':
                break
            trees = [self._tree(name, blank, command) for command in commands]
            for row, (value, probability) in enumerate(decode_fields(decoder, trees)):
                values[row][name] = value
                confidences[row] *= probability
        return [Action(confidence=confidence, **fields)
                for confidence, fields in zip(confidences, values)]

    def warm_up(self, frames=3):
        """Drive on noise until kernels, caches and allocators are settled."""
        explained = None    # held while the next is decided, as on the road: each has its cache
        for _ in range(frames):
            decision = self.decide(_noise(WARM_UP_SIZE), EgoState(5.0), Command())
            explained = self.explain(decision)
            explained.advance(4)

    def _on_device(self, inputs):
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
            self._trees[key] = field_tree(self.processor, self.format, name, blank, command)
        return self._trees[key]


def _noise(size):
    """Return a frame that no model has seen."""
    width, height = size
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
