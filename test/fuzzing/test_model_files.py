"""Files of a model directory: damaged or hostile ones are refused in one sentence."""

import json
import os
from pathlib import Path
import shutil
import sys
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from mutations import ANYTHING, mutated, spoilt  # noqa: E402, I100
from owled_ros.driver.action import Command, EgoState  # noqa: E402
from owled_ros.driver.checkpoint import load_model, load_processor, recorded_sparsity  # noqa: E402
from owled_ros.driver.driver import Driver  # noqa: E402
from owled_ros.driver.format_file import FORMAT_FILE  # noqa: E402
from owled_ros.driver.prompt import DrivingFormat  # noqa: E402
from owled_ros.errors import UserError  # noqa: E402
from owled_ros.pack import pack_model  # noqa: E402
from owled_ros.pruning.shards import hash_weights, Shards  # noqa: E402
from owled_ros.sparse.packing import FILE_FORMAT  # noqa: E402

LONGEST_PROMPT = 20_000  # characters
SLOW = settings(max_examples=max(settings().max_examples // 4, 1))


def attempt(work, *arguments):
    """Return what the work gives, or None when it refuses in one sentence."""
    try:
        return work(*arguments)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        return None


def text_of(document):
    return json.dumps(document, ensure_ascii=False)


# driving_format.yaml -----------------------------------------------------------------------------

def check_format(driving_format):
    """Check that a format that was taken works for every motion and command."""
    for ego in (EgoState(0.0), EgoState(12.3, -0.4, 1.0), EgoState(1e9, 1e9, -1e9)):
        for command in (Command(), Command(speed_limit=13.9)):
            assert len(driving_format.prompt_text(ego, command)) < LONGEST_PROMPT
    for _, _, name in driving_format.answer_parts():
        if name != 'explanation':
            choices = driving_format.choices(name, Command())
            assert 0 < len(choices) <= 10_001
            assert all(isinstance(text, str) and len(text) < 400 for text, _ in choices)


def read_format(folder, content):
    """Read a format of bytes as a model directory's; return it where it was taken."""
    Path(folder, FORMAT_FILE).write_bytes(content)
    driving_format = attempt(DrivingFormat.of_model, folder)
    if driving_format is not None:
        check_format(driving_format)
    return driving_format


@given(data=st.data(), style=st.sampled_from((True, False, None)))
def test_driving_formats(bounded, embedded, data, style):
    """The entries are changed, and written in every style that YAML has."""
    document = data.draw(spoilt(yaml.safe_load((embedded / FORMAT_FILE).read_text())))
    text = yaml.safe_dump(document, default_flow_style=style, allow_unicode=True)
    with bounded(), tempfile.TemporaryDirectory() as folder:
        read_format(folder, text.encode(errors='surrogatepass'))


@given(data=st.data())
def test_damaged_formats(bounded, embedded, data):
    content = data.draw(mutated((embedded / FORMAT_FILE).read_bytes()))
    with bounded(), tempfile.TemporaryDirectory() as folder:
        read_format(folder, content)


@given(words=st.lists(st.sampled_from((
    'prompt', 'speed', 'unknown', 'chat', 'maneuvers', 'step', ': ', ':', '\n', '\n  ', '- ', '? ',
    '[', ']', '{', '}', ', ', '&a ', '*a', '*a ', '!!binary ', '!!python/name:os.system ', '!<x> ',
    '<<', '=', '|\n', '>-\n', '"', "'", '\\', '\\U0011FFFF', '#', '%TAG ! x\n', '---\n', '...\n',
    '\t', '\0', '\ufeff', '\x85', '1e9999', '.inf', '-.nan', '0o7', '9' * 5000, '1:' * 50, '~',
    '2001-99-99', 'true')), max_size=40))
def test_formats_of_pieces_of_yaml(bounded, words):
    with bounded(), tempfile.TemporaryDirectory() as folder:
        read_format(folder, ''.join(words).encode())


@given(template=st.text(max_size=60) | st.sampled_from((
    '{speed:999999999}', '{speed:>{route}}', '{speed!r:99999999}', '{speed[0]}', '{0}', '{}',
    '{speed.__class__.__mro__}', '{route:%9999999d}', '{', '}', '{speed' * 9)))
def test_prompt_templates(bounded, template):
    with bounded():
        driving_format = attempt(DrivingFormat.from_dict, {'prompt': template})
        if driving_format is not None:
            check_format(driving_format)


BILLION_LAUGHS = 'a: &a [x, x]\n' + ''.join(
    f'{chr(letter + 1)}: &{chr(letter + 1)} [{f"*{chr(letter)}, " * 9}]\n'
    for letter in range(ord('a'), ord('z')))
FULL = 60_000   # bytes, within what is read


@pytest.mark.parametrize('content', [
    BILLION_LAUGHS, '&a [*a]', '[' * FULL, '{' * FULL, '- ' * (FULL // 2), '? ' * (FULL // 2),
    'a: {' * (FULL // 4), ':' * FULL, '-' * FULL, '"' * FULL, "'" * FULL, '!' * FULL, '\n' * FULL,
    '#' * FULL, 'a: ' + ' ' * FULL, 'unknown: ' + 'a ' * (FULL // 2), 'unknown: ' + '9' * FULL,
    'unknown: ' + '1:' * (FULL // 2), 'unknown: ' + '9' * FULL + 'e' + '9' * 10,
    'a: 1\n' * (FULL // 5),
    'a: [' + 'a,' * (FULL // 2) + ']', 'prompt: "' + '\\n' * (FULL // 2) + '"',
    'prompt: |\n' + ' a\n' * (FULL // 3), ''.join(f'k{number}: 1\n' for number in range(7000)),
    'x' * 10**8], ids=lambda content: f'{content[:8]!r}')
def test_formats_that_are_bombs(bounded, content):
    with bounded(), tempfile.TemporaryDirectory() as folder:
        assert read_format(folder, content.encode()) is None


@given(content=st.binary(max_size=60))
def test_formats_that_are_not_even_text(bounded, content):
    with bounded(), tempfile.TemporaryDirectory() as folder:
        read_format(folder, content)


# owled.json --------------------------------------------------------------------------------------

@given(content=ANYTHING.map(text_of)
       | spoilt({'sparsity': {'requested': 0.5, 'measured': 0.5}, 'run': 'x'}).map(text_of)
       | st.text(max_size=40) | st.just('[' * 100_000))
def test_pruning_records(bounded, content):
    with bounded(), tempfile.TemporaryDirectory() as folder:
        Path(folder, 'owled.json').write_text(content, encoding='utf-8', errors='replace')
        sparsity = attempt(recorded_sparsity, Path(folder))
        if sparsity is not None:
            assert all(isinstance(share, float) and 0 <= share <= 1 for share in sparsity)


# Weights -----------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def small_weights(tmp_path_factory):
    """Return the bytes of a small safetensors file."""
    path = tmp_path_factory.mktemp('weights') / 'model.safetensors'
    save_file({f'layer.{n}.weight': torch.ones(4, 8) for n in range(3)}, path)
    return path.read_bytes()


def read_all(folder):
    shards = Shards(Path(folder))
    hash_weights(Path(folder))
    return [shards.read(name) for name in shards.names()]


@given(data=st.data())
def test_damaged_weights(bounded, small_weights, data):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'model.safetensors').write_bytes(data.draw(mutated(small_weights)))
        with bounded():
            attempt(read_all, folder)


INDEX = {'metadata': {'total_size': 384},
         'weight_map': {'layer.0.weight': 'model.safetensors',
                        'layer.1.weight': 'model.safetensors'}}


@given(document=spoilt(INDEX) | ANYTHING)
def test_damaged_indices(bounded, small_weights, document):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'model.safetensors').write_bytes(small_weights)
        Path(folder, 'model.safetensors.index.json').write_text(text_of(document))
        with bounded():
            attempt(read_all, folder)


@pytest.mark.parametrize('name', [
    '../secret.safetensors', '/etc/passwd', 'sub/../../secret.safetensors', '..', '.', ''])
def test_an_index_cannot_lead_out_of_its_directory(small_weights, tmp_path, name):
    model = tmp_path / 'model'
    model.mkdir()
    (tmp_path / 'secret.safetensors').write_bytes(small_weights)
    (model / 'model.safetensors.index.json').write_text(text_of({'weight_map': {'a': name}}))
    with pytest.raises(UserError) as refusal:
        read_all(model)
    assert 'outside' in str(refusal.value) or 'missing' in str(refusal.value)


@pytest.fixture(scope='session')
def packed(tmp_path_factory, embedded):
    """Return the packed directory of the embedded model, of which half is zero."""
    folder = tmp_path_factory.mktemp('packed')
    shutil.copytree(embedded, folder / 'pruned')
    tensors = load_file(folder / 'pruned' / 'model.safetensors')
    for name, weight in tensors.items():
        if 'proj' in name and weight.dim() == 2:
            tensors[name] = weight * (weight.abs() > weight.abs().median(1, keepdim=True).values)
    save_file(tensors, folder / 'pruned' / 'model.safetensors', {'format': 'pt'})
    pack_model(folder / 'pruned', folder / 'packed', progress=lambda line: None)
    return folder / 'packed'


@SLOW
@given(data=st.data())
def test_damaged_packed_weights(bounded, packed, data):
    """A model that is loaded all the same has the damage in its numbers alone."""
    content = (packed / 'packed.safetensors').read_bytes()
    end = 8 + int.from_bytes(content[:8], 'little')     # of what says where the numbers are
    damaged = data.draw(mutated(content[:end])) + content[end:] if data.draw(st.booleans()) \
        else data.draw(mutated(content))
    with tempfile.TemporaryDirectory() as folder:
        model = copy_with(packed, folder, 'packed.safetensors', damaged)
        with bounded():
            loaded = attempt(load_model, model, 'cpu')
            if loaded is not None:
                assert all(torch.isfinite(weight).all() for weight in loaded.parameters())


@SLOW
@given(data=st.data())
def test_damaged_descriptions_of_packed_weights(bounded, packed, data):
    """What is written of columns and patterns is changed, or is something else altogether."""
    tensors = load_file(packed / 'packed.safetensors')
    with safe_open(packed / 'packed.safetensors', framework='pt') as file:
        described = json.loads(file.metadata()[FILE_FORMAT])
    document = data.draw(spoilt(described) | ANYTHING)
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder, 'spoilt'),
                  {FILE_FORMAT: text_of(document).encode(errors='replace').decode()})
        model = copy_with(packed, folder, 'packed.safetensors',
                          Path(folder, 'spoilt').read_bytes())
        with bounded():
            attempt(load_model, model, 'cpu')


# What transformers reads -------------------------------------------------------------------------

def copy_with(embedded, folder, name, content):
    """Make a copy of the embedded model in which one file is another."""
    copy = Path(folder, 'model')
    shutil.copytree(embedded, copy, copy_function=os.link if _same_disk(embedded, folder)
                    else shutil.copyfile)
    (copy / name).unlink()
    (copy / name).write_bytes(content)
    return copy


def _same_disk(one, other):
    return os.stat(one).st_dev == os.stat(other).st_dev


@SLOW
@given(data=st.data())
def test_damaged_configurations(bounded, embedded, data):
    document = data.draw(spoilt(json.loads((embedded / 'config.json').read_text())))
    with tempfile.TemporaryDirectory() as folder:
        model = copy_with(embedded, folder, 'config.json', text_of(document).encode())
        with bounded():
            attempt(load_model, model, 'cpu')


@SLOW
@given(data=st.data(), name=st.sampled_from(
    ('tokenizer.json', 'tokenizer_config.json', 'processor_config.json')))
def test_damaged_processors(bounded, embedded, data, name):
    content = (embedded / name).read_bytes()
    spoil = spoilt(json.loads(content)).map(lambda document: text_of(document).encode()) \
        if data.draw(st.booleans()) else mutated(content, most=2)
    with tempfile.TemporaryDirectory() as folder:
        model = copy_with(embedded, folder, name, data.draw(spoil))
        with bounded():
            attempt(load_processor, model)


@pytest.mark.parametrize('name, key, load', [
    ('config.json', 'AutoModelForImageTextToText', load_model),
    ('processor_config.json', 'AutoProcessor', load_processor),
    ('tokenizer_config.json', 'AutoTokenizer', load_processor)])
def test_code_in_a_model_directory_is_never_run(model, monkeypatch, capfd, name, key, load):
    """`trust_remote_code` is refused, not asked for: nobody may answer yes by mistake."""
    ran = model.parent / 'ran'
    (model / 'evil.py').write_text(f'open({str(ran)!r}, "w").close()\nclass Evil: pass\n')
    path = model / name
    document = json.loads(path.read_text())
    document['auto_map'] = {key: 'evil.Evil', 'AutoConfig': 'evil.Evil'}
    document['model_type'] = 'evil'
    document['processor_class'] = document['tokenizer_class'] = 'Evil'
    path.write_text(text_of(document))
    monkeypatch.setattr('builtins.input', lambda *words: pytest.fail('a question was asked'))
    attempt(load, model)
    assert not ran.exists() and 'wish to run' not in capfd.readouterr().out


def test_pickled_weights_are_never_read(model):
    (model / 'model.safetensors').unlink()
    (model / 'pytorch_model.bin').write_bytes(b'\x80\x04c__builtin__\neval\n.')
    for work in (load_model, Driver.load):
        with pytest.raises(UserError):
            work(model)
