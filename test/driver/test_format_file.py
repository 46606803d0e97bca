"""driving_format.yaml: what a person writes is read, and what is wrong is told with its line."""

from dataclasses import replace
import json

from hypothesis import example, given, HealthCheck, settings
from hypothesis import strategies as st
from owled_ros.driver.action import Command, EgoState
from owled_ros.driver.checkpoint import locate
from owled_ros.driver.format_file import FORMAT_FILE, FORMER_FILE, LARGEST_FILE
from owled_ros.driver.prompt import DrivingFormat, NumberFormat
from owled_ros.errors import UserError
import pytest

BY_HAND = """\
# A camera behind the windscreen.
prompt: >-      # two lines make one
  Now {speed} km/h,
  then {route}?
answer: '{acceleration}, {curvature}, {maneuver}: {explanation}'
chat: false
acceleration: {minimum: -6, maximum: 2, step: 0.25, signed: true}
speed:
  minimum: 0
  maximum: 200
  step: 1
  scale: 3.6    # km/h
unknown: no     # as it stands, and not false
routes: {follow: on, left: left, right: right, straight: straight, change_left: left lane,
         change_right: right lane}
"""


def read(folder, text):
    (folder / FORMAT_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    return DrivingFormat.of_model(folder)


def test_what_a_person_writes(tmp_path):
    form = read(tmp_path, BY_HAND)
    assert form.prompt_text(EgoState(10.0), Command()) == 'Now 36 km/h, then on?'
    assert form.answer == '{acceleration}, {curvature}, {maneuver}: {explanation}'
    assert form.chat is False and form.unknown == 'no'
    assert form.acceleration == NumberFormat(-6, 2, 0.25, signed=True)
    assert form.curvature == DrivingFormat().curvature       # left out


@pytest.mark.parametrize('minimum, maximum, step, texts', [
    (-1, 1, 0.25, '-1.00 -0.75 -0.50 -0.25 0.00 0.25 0.50 0.75 1.00'),
    (0.05, 0.3, 0.1, '0.05 0.15 0.25'),     # none above the maximum
    (0, 30, 10, '0 10 20 30'), (0, 3, 1.0, '0 1 2 3')])
def test_numbers_are_written_as_finely_as_their_step(minimum, maximum, step, texts):
    numbers = NumberFormat(minimum, maximum, step)
    assert ' '.join(text for text, _ in numbers.choices()) == texts
    assert numbers.write(1e9) == texts.split()[-1] and numbers.write(-1e9) == texts.split()[0]


@pytest.mark.parametrize('text, line, complaint', [
    ('prompt: at {altitude}', 1, 'prompt names'),
    ('chat: true\nprompt: {speed} km/h', 2, 'stands in quotes'),
    ('chat: true\nprompt: now: {speed}', 2, 'stands in quotes'),
    ('chat: true\n\tprompt: a', 2, 'not YAML'),
    ('chat: yes', 1, "chat is 'yes'; it must be true or false"),
    ('chat: true\nchat: false', 2, "'chat' is there twice"),
    ('speed: {minimum: 0, minimum: 1}', 1, "'minimum' is there twice"),
    ('speed:\n  minimum: 0\n  maximum: 9\n  step: 0', 4, 'speed.step is 0; it must be at least'),
    ('speed:\n  minimum: 5\n  maximum: 5\n  step: 1', 3, 'speed.maximum is 5; it must be above'),
    ('speed:\n  minimum: 0\n  maximum: 9', 1, 'speed must give step'),
    ('speed: {minimum: 0, maximum: 9, step: 1, unit: m/s}', 1, 'speed.unit is no entry'),
    ('speed: {minimum: 0, maximum: 0x10, step: 1}', 1, "speed.maximum is '0x10'; it must be a num"),
    ('speed: {minimum: 0, maximum: true, step: 1}', 1, 'speed.maximum is True; it must be a num'),
    ('speed: {minimum: 0, maximum: .nan, step: 1}', 1, 'speed.maximum is nan'),
    ('speed: {minimum: 0, maximum: 1, step: 1e-9}', 1, 'speed.step is 1e-09'),
    ('speed: {minimum: 0, maximum: 9, step: 1e-5}', 1, 'use a larger step'),
    ('speed: {minimum: 0, maximum: 9, step: 1, signed: 1}', 1, 'speed.signed is 1'),
    ('speed: 3', 1, 'speed is 3; it must give minimum'),
    ('# a\nnonsense: 1', 2, 'nonsense is no entry; those are prompt, answer'),
    ('unknown: 7', 1, 'unknown is 7; it must be a text; put it in quotes'),
    ('unknown:', 1, 'unknown is None'),
    ("unknown: ''", 1, 'of 1 to 100 characters'),
    ('1: 2', 1, 'the name of an entry is no text'),
    ('? [a]\n: 1', 1, 'the name of an entry is no text'),
    ('explanation_tokens: 0', 1, 'it must be 1 to'),
    ('explanation_tokens: 1.5', 1, 'a whole number'),
    ('explanation_tokens: true', 1, 'a whole number'),
    (f'explanation_tokens: {"9" * 5000}', 1, 'no value|too large'),
    ('answer: >\n  {acceleration} {curvature} {maneuver} {explanation}\n', 1, 'write >- or |-'),
    ('routes:\n  follow: on\n  u_turn: back', 3, 'routes.u_turn is none of the routes'),
    ('routes:\n  follow: on', 1, 'routes must name left too'),
    ('chat: true\nmaneuvers: stop', 2, 'a mapping of names to words'),
    ('- chat', 1, 'is no mapping'),
    ('a: &x [1]\nb: *x', 1, 'aliases .* are refused'),
    ('a: 1\nb: *x', 2, 'aliases .* are refused'),
    ('<<: {chat: true}', 1, "'<<' is no entry"),
    ('a: !!python/object/apply:os.system ["x"]', 1, 'tags .* are refused'),
    ('a: !!binary AAAA', 1, 'tags .* are refused'),
    ('[' * 1000, 1, 'more than 8 levels'), ('- ' * 1000, 1, 'more than 8 levels'),
    ('chat: true\n---\nchat: true', 2, 'not YAML'),
    ('prompt: "\\ud800"', 1, 'surrogate'),
])
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, line, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        read(tmp_path, text)
    told = str(refusal.value)
    assert told.startswith(f'{tmp_path / FORMAT_FILE}, line {line}') and '\n' not in told


def test_maneuvers_of_which_one_begins_another_are_refused(tmp_path):
    words = {**DrivingFormat().maneuvers, 'stop': 'brake', 'emergency_stop': 'brake hard'}
    with pytest.raises(UserError, match="line 6: maneuvers.stop is 'brake', with which emerg"):
        read(tmp_path, 'chat: true\nmaneuvers:\n' + '\n'.join(
            f'  {name}: {text}' for name, text in words.items()))


@pytest.mark.parametrize('content, complaint', [
    (b'', 'says nothing'), (b'# only this\n', 'says nothing'),
    (b'prompt: \xff\xfe', 'is not UTF-8 at byte 8'), (b'a: \0', 'is not YAML'),
    (b'#' * (LARGEST_FILE + 1), 'is larger than')])
def test_files_that_are_no_text_are_refused(tmp_path, content, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        read(tmp_path, content)
    assert str(refusal.value).startswith(str(tmp_path / FORMAT_FILE))


@pytest.mark.parametrize('make', [lambda path: path.mkdir(),
                                  lambda path: path.symlink_to('nowhere')],
                         ids=['directory', 'link'])
def test_what_is_there_but_no_file_is_refused(tmp_path, make):
    """It must not pass for a model without a format, which is asked otherwise."""
    make(tmp_path / FORMAT_FILE)
    with pytest.raises(UserError, match='cannot be read'):
        DrivingFormat.of_model(tmp_path)


def test_the_former_json_is_not_passed_over(tmp_path):
    (tmp_path / FORMER_FILE).write_text(json.dumps({'chat': False, 'speed': {
        'minimum': 0, 'maximum': 1, 'step': 1e-03}}, indent=2))
    with pytest.raises(UserError, match='rename it to driving_format.yaml'):
        DrivingFormat.of_model(tmp_path)
    (tmp_path / FORMER_FILE).rename(tmp_path / FORMAT_FILE)
    assert DrivingFormat.of_model(tmp_path).speed == NumberFormat(0, 1, 0.001)


# What a format is written as ------------------------------------------------------------------

TRAPS = st.sampled_from(('no', 'on', '1e3', '0x10', '1_0', '1:30', '~', '=', '<<', '- a', '# a',
                         'a: b', '"', "'", '{a}', '&a', '*a', '2001-09-09', 'null', ' a ', 'a\n',
                         '\t', '\x85', '\u2028', '\ufeff', '...', '---', '%', '|', 'é', '🚗'))
TEXTS = TRAPS | st.text(st.characters(exclude_categories=('Cs',)), min_size=1, max_size=30)
LONG = st.lists(TEXTS, max_size=30).map(' '.join)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('model')


@settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(prompt=LONG, unknown=TEXTS, words=st.lists(TEXTS, min_size=6, max_size=6),
       chat=st.booleans(), step=st.sampled_from((1e-3, 0.25, 1, 0.3)),
       scale=st.sampled_from((1.0, 3.6, 1e-05)))
@example('a b ' * 60, 'x', ['x'] * 6, True, 1, 1.0)
def test_every_format_survives_its_file(folder, prompt, unknown, words, chat, step, scale):
    prompt = prompt.replace('{', '{{').replace('}', '}}')
    form = replace(
        DrivingFormat(), prompt=prompt, unknown=unknown, chat=chat,
        answer=prompt + DrivingFormat().answer, routes=dict(zip(DrivingFormat().routes, words)),
        speed=NumberFormat(0, 3, step, scale=scale))
    form.write(folder)
    assert DrivingFormat.of_model(folder) == form


def test_the_embedded_format_is_as_it_is_written(tmp_path):
    """Comments included: it is the example that the pages name."""
    directory = locate('embedded')
    path = DrivingFormat.of_model(directory).write(tmp_path)
    assert path.read_text() == (directory / FORMAT_FILE).read_text()
