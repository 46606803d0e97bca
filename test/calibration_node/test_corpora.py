"""Text files and folders of images become calibration samples, and prune a model."""

import json

import numpy as np
from owled_ros.calibration import calibrate, Request
from owled_ros.corpora import choose, PROMPT, read_images, read_texts
from owled_ros.errors import UserError
from owled_ros.pruning import PruningSettings
from PIL import Image
import pytest


@pytest.fixture
def texts(tmp_path):
    """Write a text of 1000 letters that count, and a short one."""
    long, short = tmp_path / 'long.txt', tmp_path / 'short.txt'
    long.write_text(''.join(f'{number:04d}' for number in range(250)))
    short.write_text('Keep left.')
    return long, short


@pytest.fixture
def photos(tmp_path):
    """Ten pictures in two folders, each of one grey of its own."""
    for number in range(10):
        path = tmp_path / 'photos' / f'{number % 2}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60), 20 * number, np.uint8)).save(path)
    return tmp_path / 'photos'


def test_pieces_of_text_are_the_files_and_no_piece_is_used_twice(text_model, texts):
    from transformers import AutoTokenizer
    read = AutoTokenizer.from_pretrained(text_model).decode
    found = read_texts(text_model, texts, samples=12, held_out=3, tokens=20, seed=1)
    pieces = [read(sample['input_ids'][0]) for sample in found.inputs + found.held_out]
    assert len(found.inputs) == 12 and len(found.held_out) == 3
    assert len(set(pieces)) == 15
    long = texts[0].read_text()
    starts = [long.index(piece) for piece in pieces if piece != 'Keep left.']
    assert all(start % 20 == 0 for start in starts)
    assert {start // 200 for start in starts} == set(range(5))     # all of the text is seen
    assert all((sample['attention_mask'] == 1).all() for sample in found.inputs)
    assert found.source['usable'] == 51
    assert found.source['files']['long.txt']['usable'] == 50
    assert found.source['files']['short.txt']['usable'] == 1
    again = read_texts(text_model, texts, samples=12, held_out=3, tokens=20, seed=1)
    other = read_texts(text_model, texts, samples=12, held_out=3, tokens=20, seed=2)
    assert [s['input_ids'].tolist() for s in again.inputs] == [
        s['input_ids'].tolist() for s in found.inputs]
    assert [s['input_ids'].tolist() for s in other.inputs] != [
        s['input_ids'].tolist() for s in found.inputs]


def test_held_out_items_are_apart_from_the_others():
    ours, unseen = choose(list(range(1000)), 1000, 1000, seed=0)
    assert ours == [i for i in range(1000) if i // 50 % 5 != 4]
    assert unseen == [i for i in range(1000) if i // 50 % 5 == 4]
    assert choose(list(range(7)), 10, 0, seed=0) == (list(range(7)), [])
    assert choose(list(range(7)), 10, 10, seed=0) == ([0, 1, 2, 3, 5, 6], [4])


def test_images_are_asked_about(model, photos):
    found = read_images(model, photos, samples=4, held_out=2)
    assert len(found.inputs) == 4 and len(found.held_out) == 2
    greys = {round(float(sample['pixel_values'].mean()), 3)
             for sample in found.inputs + found.held_out}
    assert len(greys) == 6
    from transformers import AutoProcessor
    decode = AutoProcessor.from_pretrained(model).tokenizer.decode
    sample = found.inputs[0]
    assert decode(sample['input_ids'][0]) == '<image>' * 16 + PROMPT
    assert 'labels' not in sample and found.source['labels'] == 'the prompt'


def test_captions_are_the_answer(model, photos):
    from transformers import AutoProcessor
    decode = AutoProcessor.from_pretrained(model).tokenizer.decode
    (photos / 'metadata.jsonl').write_text('\n'.join(
        json.dumps({'file_name': f'{number % 2}/{number}.png', 'text': f'Shade {number}'})
        for number in range(8)) + '\n')
    found = read_images(model, photos, samples=8, prompt='What?')
    assert len(found.inputs) == 8 and found.source['labels'] == 'captions'
    for number, sample in zip((0, 2, 4, 6, 1, 3, 5, 7), found.inputs):
        labels = sample['labels'][0]
        assert decode(labels[labels != -100]) == f' Shade {number}</s>'
        assert decode(sample['input_ids'][0]) == (
            '<image>' * 16 + f'What? Shade {number}</s>')


def test_texts_prune_a_text_model(tmp_path, text_model, texts):
    report = calibrate(Request(
        model=str(text_model), output=tmp_path / 'pruned', texts=texts, tokens=32, samples=8,
        held_out=2, pruning=PruningSettings(sparsity=0.4)), lambda line: None)
    assert report['sparsity']['measured'] == pytest.approx(0.4, abs=0.001)
    source, = report['data']['sources']
    assert (source['kind'], source['calibration'], source['held_out']) == ('text', 8, 2)
    assert report['data']['command'] == (
        f'owled calibrate --model {text_model} --text {texts[0]} {texts[1]} --tokens 32 '
        '--sparsity 0.4 --samples 8 --held-out 2 --output OUTPUT')
    from transformers import AutoModelForCausalLM, AutoTokenizer
    AutoModelForCausalLM.from_pretrained(tmp_path / 'pruned')
    AutoTokenizer.from_pretrained(tmp_path / 'pruned')


def test_a_drive_texts_and_images_share_the_samples(tmp_path, model, drive, texts, photos):
    report = calibrate(Request(
        model=str(model), output=tmp_path / 'pruned', bags=(drive,), texts=texts, tokens=16,
        images=photos, samples=8, held_out=3, pruning=PruningSettings()), lambda line: None)
    kinds = [(source['kind'], source['calibration'], source['held_out'])
             for source in report['data']['sources']]
    assert kinds == [('bags', 3, 1), ('text', 3, 1), ('images', 2, 1)]
    assert report['data']['samples'] == 8


@pytest.mark.parametrize('bad, says', [
    ({}, 'there is nothing to calibrate on'),
    ({'texts': ('/no/such.txt',)}, 'there is no text file /no/such.txt'),
    ({'texts': ('latin.txt',)}, r'latin.txt is not text in UTF-8 \(byte 3\)'),
    ({'texts': ('empty.txt',)}, 'there is no text in'),
    ({'texts': ('short.txt',), 'tokens': 2000}, 'tokens is 2000; .* reads 2 to 1024'),
    ({'texts': ('short.txt',)}, '1 calibration samples are too few'),
    ({'texts': ('short.txt',), 'pruning': PruningSettings(components='all')},
     'texts do not reach the projector and the vision of the model'),
    ({'images': '/no/such'}, 'there is no folder of images /no/such'),
    ({'images': 'nothing'}, 'there are no images'),
    ({'images': 'torn'}, 'the image .*torn.png cannot be read'),
    ({'images': 'captioned'}, 'line 2 of .*metadata.jsonl is not JSON with a file_name'),
])
def test_what_a_user_can_get_wrong(tmp_path, monkeypatch, model, texts, bad, says):
    (tmp_path / 'latin.txt').write_bytes(b'caf\xe9')
    (tmp_path / 'empty.txt').write_text('')
    for name in ('nothing', 'torn', 'captioned'):
        (tmp_path / name).mkdir()
    (tmp_path / 'torn' / 'torn.png').write_bytes(b'\x89PNG\r\n\x1a\n and no more')
    (tmp_path / 'captioned' / 'metadata.jsonl').write_text(
        '{"file_name": "a.png", "text": "a"}\n{"file": "b.png"}\n')
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=says):
        calibrate(Request(model=str(model), output=tmp_path / 'pruned', **{
            'pruning': PruningSettings(components='language'), **bad}))
    assert sorted(tmp_path.iterdir()) == before


def test_a_text_model_cannot_be_asked_about_images(tmp_path, text_model, photos):
    with pytest.raises(UserError, match='reads no images'):
        calibrate(Request(model=str(text_model), output=tmp_path / 'pruned', images=photos))
