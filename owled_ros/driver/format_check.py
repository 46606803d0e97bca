"""A driving format seen by a model's tokenizer: what is asked, and what an action costs."""

from dataclasses import dataclass

import numpy as np
from owled_ros.driver.action import Action, Command, EgoState, Maneuver, Route
from owled_ros.driver.format_file import FORMAT_FILE
from owled_ros.driver.prompt import answer_tokens, field_tree, prompt_inputs, tokenize, whole_prompt
from owled_ros.errors import UserError

EGO = EgoState(8.3, 0.05)
COMMAND = Command(speed_limit=50 / 3.6)
ACTION = Action(-2.5, 0.01, Maneuver.SLOW_DOWN)
GREY = 128


@dataclass(frozen=True)
class FieldCost:
    """What a field of the answer takes: among how many texts it is chosen, of how many tokens.

    decisions: how often, at most, the model decides; tokens without an alternative are given.
    """

    name: str
    texts: int
    tokens: int
    decisions: int


@dataclass(frozen=True)
class FormatCheck:
    """An example of a prompt and of an answer, and what they take in tokens.

    image_tokens: of the prompt's tokens those of the frame, None where the processor does not
    tell; action_tokens: the most of an answer up to its explanation; remarks: what is no error,
    but may not be meant.
    """

    prompt: str
    prompt_tokens: int
    image_tokens: int | None
    answer: str
    fields: tuple[FieldCost, ...]
    action_tokens: int
    decisions: int
    remarks: tuple[str, ...]


def check_format(processor, driving_format, width=640, height=480):
    """Return the FormatCheck of a DrivingFormat for frames of a size [pixels].

    Raises UserError where the processor cannot take the prompt, or the answer's texts cannot be
    told apart by their tokens.
    """
    ids = prompt_tokens(processor, driving_format, np.full((height, width, 3), GREY, np.uint8))
    image = getattr(processor, 'image_token_id', None)
    costs = [field_cost(processor, driving_format, name, blank)
             for _, blank, name in driving_format.answer_parts() if name != 'explanation']
    given = sum(len(tokenize(processor, literal))
                for literal, _, _ in driving_format.answer_parts())
    answer = answer_tokens(processor, driving_format, ACTION, '')
    return FormatCheck(
        prompt=whole_prompt(processor, driving_format, EGO, COMMAND), prompt_tokens=len(ids),
        image_tokens=None if image is None else int((ids == image).sum()),
        answer=processor.tokenizer.decode(answer), fields=tuple(costs),
        action_tokens=given + sum(cost.tokens for cost in costs),
        decisions=sum(cost.decisions for cost in costs),
        remarks=tuple(remarks(processor, driving_format, ids)))


def prompt_tokens(processor, driving_format, frame):
    """Token ids (length,) of the prompt with a frame."""
    try:
        return prompt_inputs(processor, driving_format, frame, EGO, COMMAND)['input_ids'][0]
    except UserError:
        raise
    except Exception as error:      # whatever a processor or a chat template may raise
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'the processor cannot take the prompt ({type(error).__name__}: {reason}); '
                        f'correct prompt or chat in {FORMAT_FILE}') from error


def field_cost(processor, driving_format, name, blank):
    """Return the FieldCost of a field, whatever the route is."""
    commands = [Command(route) for route in Route] if name == 'maneuver' else [Command()]
    trees = [field_tree(processor, driving_format, name, blank, command) for command in commands]
    texts = {text for command in commands for text, _ in driving_format.choices(name, command)}
    return FieldCost(name, len(texts), max(map(longest, trees)), max(map(decisions, trees)))


def longest(tree):
    """Return the most tokens of a text in a TokenTree."""
    return max((1 + longest(child) for child in tree.children.values()), default=0)


def decisions(tree):
    """Return the most tokens of a text in a TokenTree at which there is an alternative."""
    return (len(tree.children) > 1) + max(map(decisions, tree.children.values()), default=0)


def remarks(processor, driving_format, prompt_ids):
    """Yield in a sentence each what is no error, but may not be meant."""
    if driving_format.chat and not getattr(processor, 'chat_template', None):
        yield 'chat is true, but the processor has no chat template: the prompt goes as it is'
    if driving_format.chat and '{image}' in driving_format.prompt.removeprefix('{image}'):
        yield 'chat is true, so the frame comes first and not where {image} stands'
    if processor.tokenizer.eos_token_id is None:
        yield (f'the tokenizer names no end: every explanation goes on for '
               f'{driving_format.explanation_tokens} tokens')
    unknown = processor.tokenizer.unk_token_id
    if unknown is None:
        return
    if unknown in prompt_ids:
        yield 'the tokenizer does not know all characters or words of the prompt; use others'
    for literal, blank, name in driving_format.answer_parts():
        texts = [literal] if name == 'explanation' else [
            literal, *(blank + text for text, _ in driving_format.choices(name, Command()))]
        gaps = [text for text in texts if unknown in tokenize(processor, text)]
        if gaps:
            yield f'the tokenizer does not know all of {gaps[0]!r} in the answer; use other words'
