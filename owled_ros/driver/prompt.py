"""The words between a vehicle and a model: ego state -> prompt, action -> answer.

A model directory may carry `driving_format.yaml`; a model without one is asked in plain English
through its own chat template. The format is data: field names are looked up in a fixed list and
nothing in it can select code.
"""

from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
import math
from string import Formatter

from owled_ros.driver.action import Action, Maneuver, Route
from owled_ros.driver.decoding import AmbiguousTexts, TokenTree
from owled_ros.driver.format_file import FORMAT_FILE, read_format_file, write_format_file
from owled_ros.errors import UserError
import torch

PROMPT_FIELDS = {'speed', 'yaw_rate', 'acceleration', 'speed_limit', 'route'}
STANDING = 0.05             # m/s, at most; odometry of a vehicle at rest is not quite 0
COARSEST = 1.0              # m/s of a step that a vehicle that rolls may be told to drive
LARGEST_NUMBER = 1e6        # in a number format; nothing on a road is larger
SMALLEST_STEP = 1e-6
MOST_DECIMALS = 6
MOST_NUMBERS = 10_000       # that one format writes
LONGEST_TEMPLATE = 10_000   # characters
LONGEST_WORDS = 100         # characters of a maneuver, a route, or `unknown`
MOST_EXPLANATION_TOKENS = 4096
ANSWER_FIELDS = ('acceleration', 'curvature', 'maneuver', 'explanation')
KINDS = {str: 'a text; put it in quotes', bool: 'true or false', int: 'a whole number',
         dict: 'a mapping of names to words'}


class WrongEntry(UserError):
    """An entry of a format that cannot be as it is; `key` is its path, as ('speed', 'step')."""

    def __init__(self, key, complaint):
        named = [part if part.isidentifier() and len(part) < 40 else _shown(part) for part in key]
        super().__init__(f'{".".join(named)} {complaint}'.strip())
        self.key, self.complaint = key, complaint


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
        for name in ('minimum', 'maximum', 'step', 'scale'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise WrongEntry((name,), f'is {_shown(value)}; it must be a number, as 0.5')
            if not abs(value) <= LARGEST_NUMBER:    # nor NaN
                raise WrongEntry((name,), f'is {value}; it must be a number within '
                                          f'{LARGEST_NUMBER:g}')
        if not isinstance(self.signed, bool):
            raise WrongEntry(('signed',), f'is {_shown(self.signed)}; it must be true or false')
        if not self.minimum < self.maximum:
            raise WrongEntry(('maximum',), f'is {self.maximum}; it must be above minimum, which '
                                           f'is {self.minimum}')
        if not self.step >= SMALLEST_STEP:
            raise WrongEntry(('step',), f'is {self.step}; it must be at least {SMALLEST_STEP:g}')
        if not self.scale > 0:
            raise WrongEntry(('scale',), f'is {self.scale}; it must be positive')
        if self._last_index() > MOST_NUMBERS:
            raise WrongEntry(('step',), f'is {self.step}, which makes {self._last_index()} '
                                        f'numbers; {MOST_NUMBERS} are allowed, use a larger step')

    def _last_index(self):
        # Down, so that none is above the maximum; 0.16 / 0.001 is a little less than 160.
        return math.floor((self.maximum - self.minimum) / self.step + 1e-6)

    @property
    def decimals(self):
        """As many as the step and the minimum have: fewer would write other numbers."""
        return min(max(_decimals(self.step), _decimals(self.minimum)), MOST_DECIMALS)

    def write(self, value):
        clipped = min(max(value * self.scale, self.minimum), self.maximum)
        index = round((clipped - self.minimum) / self.step)
        return self._write_index(min(index, self._last_index()))

    def _write_index(self, index):
        rounded = round(self.minimum + index * self.step, self.decimals) + 0.0  # no minus zero
        return f'{rounded:{"+" if self.signed else ""}.{self.decimals}f}'

    def choices(self):
        """All (text, value in SI units), in ascending order."""
        texts = [self._write_index(index) for index in range(self._last_index() + 1)]
        return [(text, float(text) / self.scale) for text in texts]


def _decimals(number):
    return max(0, -Decimal(str(number)).normalize().as_tuple().exponent)


def _shown(value):
    return repr(value[:60]) if isinstance(value, str) else str(value)[:60]


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
        _check_template('prompt', self.prompt)
        _check_template('answer', self.answer)
        unknown = set(_fields(self.prompt)) - PROMPT_FIELDS - {'image'}
        if unknown:
            raise WrongEntry(('prompt',), f'names {_shown(sorted(unknown)[0])}; it may name '
                                          f'{", ".join(sorted(PROMPT_FIELDS))} and image')
        if _fields(self.answer) != list(ANSWER_FIELDS):
            raise WrongEntry(('answer',), f'must name {", ".join(ANSWER_FIELDS)} in this order, '
                                          f'each once')
        if not self.answer.endswith('{explanation}'):
            raise WrongEntry(('answer',), 'must end with {explanation}; after > or | a line break '
                                          'follows, write >- or |-')
        _check_words(('unknown',), self.unknown)
        _check_names('maneuvers', self.maneuvers, (m for m in Maneuver if m))
        _check_names('routes', self.routes, Route)
        _check_distinct(self.maneuvers)
        if not 0 < self.explanation_tokens <= MOST_EXPLANATION_TOKENS:
            raise WrongEntry(('explanation_tokens',), f'is {self.explanation_tokens}; it must be '
                                                      f'1 to {MOST_EXPLANATION_TOKENS}')

    # -- reading and writing ---------------------------------------------------------------

    @classmethod
    def of_model(cls, directory):
        """Read a model directory's format; the default where it has none.

        Raises UserError with file, line and entry where it cannot be used.
        """
        document = read_format_file(directory)
        if document is None:
            return cls()
        try:
            return cls.from_dict(document.values)
        except WrongEntry as error:
            raise UserError(f'{document.place(error.key)}: {error}') from None

    @classmethod
    def from_dict(cls, values):
        """Make a format of plain values, those of a file; raises WrongEntry."""
        if not isinstance(values, dict):
            raise WrongEntry((), f'{_shown(values)} is no mapping of entries, as in chat: true')
        default = cls()
        known = [f.name for f in fields(cls)]
        read = {}
        for name, value in values.items():
            if name not in known:
                raise WrongEntry((name,), f'is no entry; those are {", ".join(known)}')
            expected = type(getattr(default, name))
            if expected is NumberFormat:
                read[name] = _read_number_format(name, value)
            elif type(value) is not expected:   # and True is no number
                raise WrongEntry((name,), f'is {_shown(value)}; it must be {KINDS[expected]}')
            else:
                read[name] = value
        return cls(**read)

    def write(self, directory):
        """Write the format into a model directory, with comments; return the file's path."""
        return write_format_file(directory, {
            f.name: _plain(getattr(self, f.name)) for f in fields(self)})

    # -- prompt and answer -----------------------------------------------------------------

    def prompt_text(self, ego, command):
        """Return the prompt for an EgoState and a Command, without the image's token."""
        limit = command.speed_limit
        return self.prompt.format(
            image='{image}',
            speed=self._speed_text(ego.speed), yaw_rate=self.yaw_rate.write(ego.yaw_rate),
            acceleration=self.acceleration.write(ego.acceleration),
            speed_limit=self.unknown if math.isnan(limit) else self.speed_limit.write(limit),
            route=self.routes[command.route.name.lower()])

    def _speed_text(self, speed):
        """
        Write a speed; one that is rounded to 0 only where the vehicle stands.

        Told that it stands while it rolls at 0.2 m/s, a model has no reason to brake, and lets it
        roll on, over the stop line of a red light.
        """
        text, step = self.speed.write(speed), self.speed.step / self.speed.scale
        if speed > STANDING and float(text) == 0 and step <= COARSEST:
            return self.speed.write(step)
        return text

    def answer_parts(self):
        """Return the answer as (literal, field) pairs; blanks before a field belong to the field.

        Byte-pair tokenizers write a blank together with what follows it, so the field's text is
        tokenized with its blank.
        """
        parts, before = [], ''
        for literal, name, _, _ in Formatter().parse(self.answer):
            before += literal
            if name is not None:    # {{, a brace that is meant, ends a literal too
                bare = before.rstrip(' ')
                parts.append((bare, before[len(bare):], name))
                before = ''
        return parts

    def choices(self, name, command):
        """Return the allowed (text, value) of an answer's field under a Command."""
        if name == 'maneuver':
            return [(self.maneuvers[m.name.lower()], m) for m in command.allowed_maneuvers()]
        return getattr(self, name).choices()

    def write_field(self, name, action):
        """How a field of an Action is written in the answer."""
        if name == 'maneuver':
            return self.maneuvers[action.maneuver.name.lower()]
        return getattr(self, name).write(getattr(action, name))


def _read_number_format(name, value):
    known = [f.name for f in fields(NumberFormat)]
    if not isinstance(value, dict):
        raise WrongEntry((name,), f'is {_shown(value)}; it must give minimum, maximum and step, as '
                                  f'{{minimum: 0, maximum: 1, step: 0.1}}')
    for key in value:
        if key not in known:
            raise WrongEntry((name, key), f'is no entry; those are {", ".join(known)}')
    missing = [key for key in known[:3] if key not in value]
    if missing:
        raise WrongEntry((name,), f'must give {missing[0]}')
    try:
        return NumberFormat(**value)
    except WrongEntry as error:
        raise WrongEntry((name, *error.key), error.complaint) from None


def _plain(value):
    """Return a value as a file has it, a NumberFormat without what is as by default."""
    if not isinstance(value, NumberFormat):
        return value
    return {name: number for name, number in asdict(value).items()
            if name in ('minimum', 'maximum', 'step') or number != getattr(NumberFormat, name)}


def _check_words(key, words):
    if not (isinstance(words, str) and 0 < len(words) <= LONGEST_WORDS):
        raise WrongEntry(key, f'is {_shown(words)}; it must be a text of 1 to {LONGEST_WORDS} '
                              f'characters, in quotes where it would be something else')


def _check_names(name, words, values):
    known = list(_words(values))
    for key in words:
        if key not in known:
            raise WrongEntry((name, key), f'is none of the {name}; those are {", ".join(known)}')
        _check_words((name, key), words[key])
    missing = [key for key in known if key not in words]
    if missing:
        raise WrongEntry((name,), f'must name {missing[0]} too; give all of {", ".join(known)}')


def _check_distinct(maneuvers):
    """Raise WrongEntry where one text begins another: which is meant could not be decoded."""
    for key, words in maneuvers.items():
        for other, longer in maneuvers.items():
            if key != other and longer.startswith(words):
                raise WrongEntry(('maneuvers', key), f'is {words!r}, with which {other}, '
                                                     f'{longer!r}, begins; use other words')


def _check_template(name, template):
    if len(template) > LONGEST_TEMPLATE:
        raise WrongEntry((name,), f'has {len(template)} characters; {LONGEST_TEMPLATE} are '
                                  f'allowed')
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise WrongEntry((name,), f'cannot be read ({error}); a field is written as {{speed}}, '
                                  f'and a brace as {{{{') from None
    # A width is a number of characters that will be made, however large.
    if any(layout or conversion for _, _, layout, conversion in parsed):
        raise WrongEntry((name,), 'may only name its fields, as in {speed}, not lay them out')


def _fields(template):
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


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
    """Return the prompt with the image's token, in the model's chat template if it has one."""
    return with_image(processor, driving_format.prompt_text(ego, command), driving_format.chat)


def with_image(processor, text, chat=True):
    """Return a question with the image's token, at {image} or before it, in the chat template."""
    if chat and getattr(processor, 'chat_template', None):
        content = [{'type': 'image'}, {'type': 'text', 'text': text.replace('{image}', '')}]
        return processor.apply_chat_template([{'role': 'user', 'content': content}],
                                             add_generation_prompt=True, tokenize=False)
    token = image_token(processor)
    return text.replace('{image}', token) if '{image}' in text else token + text


def image_token(processor):
    """Return the text that stands for an image in a processor's prompts."""
    token = getattr(processor, 'image_token', None)
    if not isinstance(token, str):
        raise UserError(f'{type(processor).__name__} names no image token, so an image cannot be '
                        f'put into the prompt; use a vision-language model with a processor')
    return token


def tokenize(processor, text):
    """Token ids of a piece of an answer."""
    return processor.tokenizer(text, add_special_tokens=False)['input_ids'] if text else []


def field_tree(processor, driving_format, name, blank, command):
    """Return the TokenTree of what a field of the answer may be under a Command.

    blank: what stands before it. Raises UserError where the tokenizer makes one text of two, or
    the beginning of another.
    """
    choices = driving_format.choices(name, command)
    try:
        return TokenTree([(tokenize(processor, blank + text), value) for text, value in choices])
    except AmbiguousTexts as error:
        texts = [text for wanted in error.values for text, value in choices if value == wanted]
        raise UserError(f'the tokens of {name} {texts[0]!r} {error.how} those of {texts[1]!r}, so '
                        f'that one of the two could never be answered; write them otherwise in '
                        f'{FORMAT_FILE}') from None


def answer_tokens(processor, driving_format, action, explanation):
    """Token ids of a whole answer, tokenized piece by piece as the decoder emits it."""
    tokens = []
    for literal, blank, name in driving_format.answer_parts():
        tokens += tokenize(processor, literal)
        if name == 'explanation':
            tokens += tokenize(processor, blank + explanation) if explanation else []
        else:
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
