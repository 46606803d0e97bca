"""driving_format.yaml: reading it without trusting it, and writing it with comments.

YAML can do more than a format needs, and some of that is dangerous: aliases make a small file a
huge document, tags name Python types, and of two entries of the same name the last one wins. All
of it is refused, with the line where it stands. What a value without quotes is, is as in YAML 1.2:
on, off, yes and no are texts, 1e-3 is a number.
"""

from dataclasses import dataclass
from pathlib import Path
import re
import textwrap

from owled_ros.errors import UserError
import yaml

FORMAT_FILE = 'driving_format.yaml'
FORMER_FILE = 'driving_format.json'
LARGEST_FILE = 1 << 16      # bytes
DEEPEST = 8                 # mappings and lists in each other; a format needs two
LONGEST_INTEGER = 64        # bits
WIDTH = 96                  # characters of a line that is written
PLAIN = {   # of YAML 1.2, without its octal and hexadecimal numbers
    'null': r'~|null|Null|NULL|', 'bool': r'true|True|TRUE|false|False|FALSE',
    'int': r'[-+]?(?:0|[1-9][0-9]*)',
    'float': r'[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?'
             r'|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)'}
FIRST = [*'~nNtTfF.-+0123456789', '']    # characters of those
IN_QUOTES = 'a text with a colon, a brace or a # in it stands in quotes, or after >-'

TEMPLATE = """\
# How this model is asked, and in which words it answers. Check it after every change:
#     owled format DIRECTORY
# A text with a colon, a brace or a # in it stands in quotes, or after >- as the prompt may.
# What is left out is as it is for a model that has no such file.

# Asked with every frame. It may name {{speed}}, {{yaw_rate}}, {{acceleration}}, {{speed_limit}} and
# {{route}}, and with {{image}} where the frame goes: without, the frame comes first.
prompt: {prompt}

# The answer: these four in this order, and nothing after the explanation. What stands between
# them is given to the model; of each of the first three it chooses one of the texts below.
answer: {answer}

# Whether the prompt goes through the model's chat template, if it has one; the frame is first then.
chat: {chat}

# Numbers are written from minimum to maximum in steps; signed: with a plus, too. scale converts
# from the unit told here, as 3.6 makes km/h of m/s.
acceleration: {acceleration}    # m/s^2
curvature: {curvature}    # 1/m, left positive
speed: {speed}    # m/s
yaw_rate: {yaw_rate}    # rad/s, left positive
speed_limit: {speed_limit}    # m/s

# What is said of a speed limit that is not known.
unknown: {unknown}

# The words for each maneuver, of which none may be the beginning of another, and for each route.
maneuvers:
{maneuvers}
routes:
{routes}

# The explanation ends after so many tokens at the latest.
explanation_tokens: {explanation_tokens}
"""


class _Refused(Exception):
    """What a format may not have, and the line, counted from 0, where it has it."""

    def __init__(self, complaint, mark):
        super().__init__(complaint)
        self.line = mark.line


# -- reading -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Document:
    """What a file says, and where."""

    path: Path
    values: object
    lines: dict     # of the path of an entry, as ('speed', 'step'), the line, from 1

    def place(self, key):
        """Say where an entry is, or should be."""
        while key not in self.lines:
            key = key[:-1]
        return f'{self.path}, line {self.lines[key]}'


def read_format_file(directory):
    """Read the format of a model directory; return a Document, or None where there is none.

    Raises UserError where it cannot be read, or says more than plain values.
    """
    path = Path(directory) / FORMAT_FILE
    if not path.exists() and not path.is_symlink():     # a link that leads nowhere is a mistake
        _refuse_former(path)
        return None
    text = _text_of(path)
    try:
        values, lines = _read(text)
    except _Refused as error:
        raise UserError(f'{path}, line {error.line + 1}: {error}') from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f'{path}, line {mark.line + 1} is not YAML ({_one_line(error.problem)}); '
                        f'{IN_QUOTES}') from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UserError(f'{path} is not YAML ({_one_line(error)}); correct or remove it') from None
    if values is None:
        raise UserError(f'{path} says nothing; fill or remove it, then `owled format` writes one')
    return Document(path, values, lines)


def _refuse_former(path):
    former = path.with_name(FORMER_FILE)
    if former.exists():
        raise UserError(f'{former} is not read any more; rename it to {path.name}, what it says '
                        f'is YAML too')


def _text_of(path):
    try:
        with open(path, 'rb') as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}); correct or remove it') \
            from None
    if len(content) > LARGEST_FILE:
        raise UserError(f'{path} is larger than {LARGEST_FILE} bytes; shorten it')
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not UTF-8 at byte {error.start}; save it as UTF-8') from None


def _read(text):
    loader = _Loader(text)
    try:
        node, lines = loader.get_single_node(), {}
        return (None, lines) if node is None else (_value(loader, node, (), lines), lines)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Composes plain values only, and no deeper than a format is."""

    yaml_implicit_resolvers = {}
    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refused(f'anchors (&) and aliases (*) are refused; write out what is meant, '
                           f'and {IN_QUOTES}', event.start_mark)
        if event.tag is not None:
            raise _Refused(f'tags (!) are refused; leave it out, and {IN_QUOTES}',
                           event.start_mark)
        if self.depth == DEEPEST:
            raise _Refused(f'more than {DEEPEST} levels in each other; a format has two',
                           event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what would be no text in YAML 1.1, or in 1.2."""


for kind, pattern in PLAIN.items():
    for reader_or_writer in (_Loader, _Dumper):
        reader_or_writer.add_implicit_resolver(
            f'tag:yaml.org,2002:{kind}', re.compile(f'(?:{pattern})$'), FIRST)


def _value(loader, node, key, lines):
    """Return the value of a node, and write into `lines` where it and all in it stand."""
    lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        values = {}
        for name_node, value_node in node.value:
            name = _name(loader, name_node, values)
            place = (*key, name)
            values[name] = _value(loader, value_node, place, lines)
            lines[place] = name_node.start_mark.line + 1
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*key, index), lines)
                for index, item in enumerate(node.value)]
    return _scalar(loader, node)


def _name(loader, node, values):
    name = _scalar(loader, node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(name, str):
        raise _Refused('the name of an entry is no text; put it in quotes', node.start_mark)
    if name in values:
        raise _Refused(f'{name[:40]!r} is there twice; remove one of them', node.start_mark)
    return name


def _scalar(loader, node):
    shown = repr(node.value[:40])
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        raise _Refused(f'{shown} is no value that YAML knows; put a text in quotes',
                       node.start_mark) from None
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        raise _Refused(f'{shown} is too large', node.start_mark)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused(f'{shown} has half of a surrogate pair, which is no character',
                           node.start_mark) from None
    return value


def _one_line(words):
    return ' '.join(str(words).split())[:200]


# -- writing -----------------------------------------------------------------------------------

def write_format_file(directory, values):
    """Write the values of a DrivingFormat, as plain dicts, with comments; return the path."""
    path = Path(directory) / FORMAT_FILE
    path.write_text(commented(values), encoding='utf-8')
    return path


def commented(values):
    """Return the text of a format file."""
    return TEMPLATE.format(**{name: _written(name, value) for name, value in values.items()})


def _written(name, value):
    if name in ('maneuvers', 'routes'):
        return '\n'.join(f'  {_inline(key)}: {_inline(words)}' for key, words in value.items())
    if name in ('prompt', 'answer') and (folded := _folded(value)):
        return folded
    return _inline(value)


def _folded(text):
    """Return a text as lines after >-, None where that would change it."""
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    if not text.isprintable() or ' '.join(lines) != text or len(lines) < 2:
        return None
    return '>-\n' + '\n'.join('  ' + line for line in lines)


def _inline(value):
    # In double quotes what cannot be seen, so that the text is one line.
    hidden = isinstance(value, str) and not value.isprintable()
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False,
                     allow_unicode=True, width=float('inf'), default_style='"' if hidden else None)
    # A text alone is followed by a line that says that the document ends.
    return text.removesuffix('...\n').rstrip('\n')
