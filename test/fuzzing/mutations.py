"""How bytes and JSON are spoilt."""

import json

from hypothesis import strategies as st


class Mutated(bytes):
    """Bytes that say what was done to them, instead of all that they are."""

    changes = ()

    def __repr__(self):
        return f'<{len(self)} bytes: {"; ".join(self.changes)}>'


@st.composite
def mutated(draw, content, most=8):
    """Draw a changed copy of bytes: a few replaced, removed, doubled or cut off."""
    data, changes = bytearray(content), []
    for _ in range(draw(st.integers(1, most))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(('flip', 'set', 'word', 'cut', 'remove', 'repeat')))
        size = draw(st.sampled_from((1, 4, 8, 64)))
        if kind == 'flip':
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'set':
            data[at] = draw(st.sampled_from((0, 1, 0x7f, 0x80, 0xff)))
        elif kind == 'word':  # lengths and offsets: what a parser believes
            word = draw(st.sampled_from((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)))
            data[at:at + size] = (word % 2**(8 * min(size, 8))).to_bytes(size, 'little')
        elif kind == 'cut':
            del data[at:]
        elif kind == 'remove':
            del data[at:at + size]
        else:
            data[at:at] = data[at:at + size]
        changes.append(f'{kind} {size} at {at}')
    result = Mutated(data)
    result.changes = changes
    return result


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(('', '../x', '/etc/passwd', '{}', '{0}', '{speed.__class__}', 10**30)),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)


@st.composite
def spoilt(draw, document):
    """Draw a changed copy of a JSON document: values replaced, keys removed or added."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(document))))
        kind = draw(st.sampled_from(('replace', 'replace', 'remove', 'add')))
        if kind == 'replace' or isinstance(holder, list):
            holder[key] = draw(ANYTHING)
        elif kind == 'remove':
            del holder[key]
        else:
            holder[draw(st.text(max_size=8))] = draw(ANYTHING)
        if not list(_places(document)):
            break
    return document


def _places(document):
    """Yield (container, key) of every value in a JSON document."""
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    else:
        return
    for key, value in items:
        yield document, key
        yield from _places(value)
