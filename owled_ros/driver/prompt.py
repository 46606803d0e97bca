"""The words between a vehicle and a model: ego state -> prompt, action -> answer.

A model directory may carry `driving_format.json`; a model without one is asked in plain English
through its own chat template. The format is data: field names are looked up in a fixed list and
nothing in it can select code.
"""

from dataclasses import asdict, dataclass, field, fields
import json
import math
from pathlib import Path
from string import Formatter

import torch

from owled_ros.driver.action import Action, Maneuver, Route
from owled_ros.errors import UserError

FORMAT_FILE = 'driving_format.json'
PROMPT_FIELDS = {'speed', 'yaw_rate', 'acceleration', 'speed_limit', 'route'}
LARGEST_NUMBER = 1e6        # in a number format; nothing on a road is larger
SMALLEST_STEP = 1e-6
LONGEST_TEMPLATE = 10_000   # characters
LONGEST_WORDS = 100         # characters of a maneuver, a route, or `unknown`
MOST_EXPLANATION_TOKENS = 4096
ANSWER_FIELDS = ('acceleration', 'curvature', 'maneuver', 'explanation')


@dataclass(frozen=True)
class NumberFormat:
    """How a number is written: clipped to [minimum, maximum], rounded to `step`.

    `scale` converts from the SI unit first (3.6 writes m/s as km/h).
    """

    minimum: float
    maximum: float
    step: float
    signed: bool = False
    scale: float = 1.0

    def __post_init__(self):
        numbers = (self.minimum, self.maximum, self.step, self.scale)
        if not all(abs(number) <= LARGEST_NUMBER for number in numbers):  # nor NaN
            raise UserError(f'a number format has no numbers above {LARGEST_NUMBER:g}, but is '
                            f'{asdict(self)}; correct {FORMAT_FILE}')
        if not (self.minimum < self.maximum and self.step >= SMALLEST_STEP and self.scale > 0):
            raise UserError(f'a number format needs minimum < maximum, a step of at least '
                            f'{SMALLEST_STEP:g} and a positive scale, but is {asdict(self)}; '
                            f'correct {FORMAT_FILE}')
        if self._last_index() > 10_000:
            raise UserError(f'a number format with {self._last_index()} values is too fine; '
                            f'use a larger step in {FORMAT_FILE}')

    def _last_index(self):
        return round((self.maximum - self.minimum) / self.step)

    @property
    def decimals(self):
        return max(0, -math.floor(math.log10(self.step) + 1e-9))

    def write(self, value):
        clipped = min(max(value * self.scale, self.minimum), self.maximum)
        return self._write_index(round((clipped - self.minimum) / self.step))

    def _write_index(self, index):
        rounded = round(self.minimum + index * self.step, self.decimals) + 0.0  # no minus zero
        return f'{rounded:{"+" if self.signed else ""}.{self.decimals}f}'

    def choices(self):
        """All (text, value in SI units), in ascending order."""
        texts = [self._write_index(index) for index in range(self._last_index() + 1)]
        return [(text, float(text) / self.scale) for text in texts]


def _words(values):
    return {value.name.lower(): value.name.lower().replace('_', ' ') for value in values}


@dataclass(frozen=True)
class DrivingFormat:
    """Prompt and answer templates of one model, and how their fields are written."""

    prompt: str = (
        'You drive the vehicle that this front camera is mounted on. Speed {speed} m/s, yaw rate '
        '{yaw_rate} rad/s, speed limit {speed_limit} km/h, route: {route}. Answer with the '
        'acceleration in m/s^2, the curvature in 1/m (left positive), the maneuver, and one '
        'sentence that explains it.')
    answer: str = (
        'Acceleration: {acceleration}, curvature: {curvature}, maneuver: {maneuver}. '
        'Explanation: {explanation}')
    chat: bool = True
    acceleration: NumberFormat = NumberFormat(-8.0, 3.0, 0.5, signed=True)
    curvature: NumberFormat = NumberFormat(-0.2, 0.2, 0.01, signed=True)
    speed: NumberFormat = NumberFormat(0.0, 60.0, 0.1)
    yaw_rate: NumberFormat = NumberFormat(-2.0, 2.0, 0.01, signed=True)
    speed_limit: NumberFormat = NumberFormat(0, 200, 1, scale=3.6)
    unknown: str = 'unknown'
    maneuvers: dict = field(default_factory=lambda: _words(m for m in Maneuver if m))
    routes: dict = field(default_factory=lambda: _words(Route))
    explanation_tokens: int = 64

    def __post_init__(self):
        for words in (self.unknown, *self.maneuvers.values(), *self.routes.values()):
            if not (isinstance(words, str) and 0 < len(words) <= LONGEST_WORDS):
                raise UserError(f'{str(words)[:40]!r} in {FORMAT_FILE} must be a text of 1 to '
                                f'{LONGEST_WORDS} characters')
        if not 0 < self.explanation_tokens <= MOST_EXPLANATION_TOKENS:
            raise UserError(f'explanation_tokens in {FORMAT_FILE} is {self.explanation_tokens}; '
                            f'it must be 1 to {MOST_EXPLANATION_TOKENS}')
        _check_fields('prompt', self.prompt, PROMPT_FIELDS | {'image'})
        if _fields(self.answer) != list(ANSWER_FIELDS):
            raise UserError(f'the answer template must have the fields {", ".join(ANSWER_FIELDS)} '
                            f'in this order, but has {_fields(self.answer)}; correct {FORMAT_FILE}')
        if not self.answer.endswith('{explanation}'):
            raise UserError(f'the answer template must end with {{explanation}}; correct '
                            f'{FORMAT_FILE}')
        if set(self.maneuvers) != set(_words(m for m in Maneuver if m)):
            raise UserError(f'maneuvers must name {sorted(_words(m for m in Maneuver if m))}; '
                            f'correct {FORMAT_FILE}')
        if set(self.routes) != set(_words(Route)):
            raise UserError(f'routes must name {sorted(_words(Route))}; correct {FORMAT_FILE}')

    # -- reading and writing ---------------------------------------------------------------

    @classmethod
    def of_model(cls, directory):
        """Read a model directory's format; the default where it has none."""
        path = Path(directory) / FORMAT_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except (ValueError, RecursionError) as error:
            raise UserError(f'{path} is not JSON ({error}); correct or remove it') from error

    @classmethod
    def from_dict(cls, values):
        if not isinstance(values, dict):
            raise UserError(f'{FORMAT_FILE} holds no JSON object; correct or remove it')
        default = cls()
        known = {f.name for f in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise UserError(f'{FORMAT_FILE} has unknown entries {sorted(unknown)}; known are '
                            f'{sorted(known)}')
        read = dict(values)
        for name, value in values.items():
            expected = type(getattr(default, name))
            if expected is NumberFormat and isinstance(value, dict):
                read[name] = _read_number_format(name, value)
            elif not isinstance(value, expected):
                raise UserError(f'{name} in {FORMAT_FILE} is {str(value)[:40]!r}; it must be of '
                                f'type {expected.__name__}')
        return cls(**read)

    def write(self, directory):
        (Path(directory) / FORMAT_FILE).write_text(json.dumps(asdict(self), indent=2) + '\n')

    # -- prompt and answer -----------------------------------------------------------------

    def prompt_text(self, ego, command):
        """The prompt for an EgoState and a Command, without the image's token."""
        limit = command.speed_limit
        return self.prompt.format(
            image='{image}',
            speed=self.speed.write(ego.speed), yaw_rate=self.yaw_rate.write(ego.yaw_rate),
            acceleration=self.acceleration.write(ego.acceleration),
            speed_limit=self.unknown if math.isnan(limit) else self.speed_limit.write(limit),
            route=self.routes[command.route.name.lower()])

    def answer_parts(self):
        """The answer as (literal, field) pairs; blanks before a field belong to the field.

        Byte-pair tokenizers write a blank together with what follows it, so the field's text is
        tokenized with its blank.
        """
        parts = []
        for literal, name, _, _ in Formatter().parse(self.answer):
            bare = literal.rstrip(' ')
            parts.append((bare, literal[len(bare):], name))
        return parts

    def choices(self, name, command):
        """The allowed (text, value) of an answer's field under a Command."""
        if name == 'maneuver':
            return [(self.maneuvers[m.name.lower()], m) for m in command.allowed_maneuvers()]
        return getattr(self, name).choices()

    def write_field(self, name, action):
        """How a field of an Action is written in the answer."""
        if name == 'maneuver':
            return self.maneuvers[action.maneuver.name.lower()]
        return getattr(self, name).write(getattr(action, name))


def _read_number_format(name, value):
    try:
        return NumberFormat(**value)
    except TypeError as error:
        raise UserError(f'{name} in {FORMAT_FILE} must give minimum, maximum and step, and may '
                        f'give signed and scale, but is {value}') from error


def _fields(template):
    if len(template) > LONGEST_TEMPLATE:
        raise UserError(f'a template in {FORMAT_FILE} has {len(template)} characters; '
                        f'{LONGEST_TEMPLATE} are allowed')
    try:
        parsed = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f'the template {template!r} in {FORMAT_FILE} cannot be read: '
                        f'{error}') from error
    # A width is a number of characters that will be made, however large.
    if any(layout or conversion for _, _, layout, conversion in parsed):
        raise UserError(f'a template in {FORMAT_FILE} may only name its fields, as in {{speed}}, '
                        f'not lay them out')
    return [name for _, name, _, _ in parsed]


def _check_fields(what, template, known):
    unknown = set(_fields(template)) - known
    if unknown:
        raise UserError(f'the {what} template in {FORMAT_FILE} has unknown fields '
                        f'{sorted(unknown)}; known are {sorted(known)}')


# -- tokens ------------------------------------------------------------------------------------

def prompt_inputs(processor, driving_format, frame, ego, command):
    """Return the model's inputs (a dict of tensors, batch 1) for one frame and ego state.

    frame: (height, width, 3) uint8 RGB.
    """
    text = whole_prompt(processor, driving_format, ego, command)
    return dict(processor(text=text, images=[frame], return_tensors='pt'))


def batched_prompts(processor, driving_format, questions):
    """Return the model's inputs (a dict of tensors) for several questions, padded on the left.

    questions: a list of (frame, EgoState, Command), frames (height, width, 3) uint8 RGB.
    """
    texts = [whole_prompt(processor, driving_format, ego, command)
             for _, ego, command in questions]
    return dict(processor(text=texts, images=[[frame] for frame, _, _ in questions],
                          padding=True, padding_side='left', return_tensors='pt'))


def whole_prompt(processor, driving_format, ego, command):
    """The prompt's text with the image's token, in the model's chat template if it has one."""
    return with_image(processor, driving_format.prompt_text(ego, command), driving_format.chat)


def with_image(processor, text, chat=True):
    """A question with the image's token, where {image} is or before it; in the chat template."""
    if chat and getattr(processor, 'chat_template', None):
        content = [{'type': 'image'}, {'type': 'text', 'text': text.replace('{image}', '')}]
        return processor.apply_chat_template([{'role': 'user', 'content': content}],
                                             add_generation_prompt=True, tokenize=False)
    token = image_token(processor)
    return text.replace('{image}', token) if '{image}' in text else token + text


def image_token(processor):
    """The text that stands for an image in a processor's prompts."""
    token = getattr(processor, 'image_token', None)
    if not isinstance(token, str):
        raise UserError(f'{type(processor).__name__} names no image token, so an image cannot be '
                        f'put into the prompt; use a vision-language model with a processor')
    return token


def tokenize(processor, text):
    """Token ids of a piece of an answer."""
    return processor.tokenizer(text, add_special_tokens=False)['input_ids'] if text else []


def answer_tokens(processor, driving_format, action, explanation):
    """Token ids of a whole answer, tokenized piece by piece as the decoder emits it."""
    tokens = []
    for literal, blank, name in driving_format.answer_parts():
        tokens += tokenize(processor, literal)
        if name == 'explanation':
            tokens += tokenize(processor, blank + explanation) if explanation else []
        elif name is not None:
            tokens += tokenize(processor, blank + driving_format.write_field(name, action))
    end = processor.tokenizer.eos_token_id
    return tokens + ([end] if explanation and end is not None else [])


def teacher_forced(processor, driving_format, frame, ego, command, action: Action, explanation):
    """Return inputs (batch 1) of a whole exchange: the prompt and the recorded answer.

    frame: (height, width, 3) uint8 RGB. An empty explanation leaves the answer at its action.
    `labels` marks the answer as what is to be predicted (-100 elsewhere), as transformers does.
    """
    inputs = prompt_inputs(processor, driving_format, frame, ego, command)
    return answered(inputs, answer_tokens(processor, driving_format, action, explanation))


def answered(inputs, tokens):
    """Append an answer (a list of tokens) to inputs, with `labels` that ask for it alone."""
    answer = torch.tensor([tokens])
    asked = torch.full_like(inputs['input_ids'], -100)
    return {**extend(inputs, answer), 'labels': torch.cat([asked, answer], 1)}


def extend(inputs, tokens):
    """Append text tokens (1, n) to a dict of inputs, whatever per-token tensors it has."""
    extended = dict(inputs)
    length = inputs['input_ids'].shape[1]
    extended['input_ids'] = torch.cat([inputs['input_ids'], tokens], 1)
    fills = {'attention_mask': 1, 'token_type_ids': answer_type(inputs), 'mm_token_type_ids': 0}
    for name, value in fills.items():
        if name in inputs and inputs[name].shape[1] == length:
            fill = torch.full_like(tokens, value)
            extended[name] = torch.cat([inputs[name], fill.to(inputs[name].dtype)], 1)
    return extended


def answer_type(inputs):
    """Return the token type of an answer to inputs.

    Gemma 3 tells images (1) from text (0); PaliGemma gives image and prompt alike a 0, reads
    those in both directions, and an answer, which is a 1, from left to right.
    """
    alike = 'token_type_ids' in inputs and not inputs['token_type_ids'].any()
    return 1 if alike and 'pixel_values' in inputs else 0
