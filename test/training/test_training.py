"""The training scripts: what they render, in which order it is learned, and going on."""

import importlib
from pathlib import Path
import shutil
import sys
from types import SimpleNamespace

import numpy as np
from owled_ros.driver.checkpoint import locate
from owled_ros.driver.driver import Driver
from owled_ros.evaluation.cases import scene_cases
from owled_ros.evaluation.open_loop import ask
from owled_ros.scenes.mixture import Mixture
from owled_ros.scenes.render import OBJECTS
import pytest
import torch

SHARD = 40


@pytest.fixture(scope='module')
def scripts():
    """Import the modules of training/, with shards of one group of scenes."""
    folder = str(Path(__file__).parents[2] / 'training')
    sys.path.insert(0, folder)
    try:
        modules = {name: importlib.import_module(name)
                   for name in ('embedded_model', 'render_dataset', 'train', 'write_card')}
    finally:
        sys.path.remove(folder)
    modules['render_dataset'].SHARD = modules['train'].SHARD = SHARD
    modules['train'].speed_up = lambda model: None  # compiling takes longer than this test
    return SimpleNamespace(**modules)


@pytest.fixture(scope='module')
def data(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    for number in range(2):
        scripts.render_dataset.render_shard(
            (scripts.render_dataset.shard_path(folder, number), number, Mixture()))
    return folder


def arguments(data, output, **changes):
    output.mkdir(exist_ok=True)
    return SimpleNamespace(**{
        'data': data, 'output': output, 'scenes': 2 * SHARD, 'steps': 4, 'dense_steps': 1,
        'decay': 2, 'batch': 8, 'learning_rate': 1e-3, 'dense_weight': 1.0, 'share': 0.2,
        'save_every': 2, 'threads': 1, 'seed': 0, **changes})


def test_a_shard_holds_what_the_model_sees_and_should_answer(scripts, data):
    shard = dict(np.load(scripts.render_dataset.shard_path(data, 0)))
    grid = scripts.embedded_model.GRID
    assert shard['objects'].shape == (SHARD, grid, grid)
    assert shard['objects'].max() < len(OBJECTS) and shard['ends'][-1] == len(shard['jpeg'])
    tokenizer = scripts.embedded_model.build_tokenizer()
    text = tokenizer.decode(shard['tokens'][0], skip_special_tokens=True)
    assert 'speed' in text and ' because ' in text and text.endswith('.')
    assert tokenizer.unk_token_id not in shard['tokens']


def test_the_order_depends_on_seed_and_step_alone(scripts, data):
    one, other = (scripts.train.Batches(data, 2 * SHARD, 8, seed, threads=1) for seed in (0, 1))
    per_sweep = 2 * SHARD // 8
    seen = [one.place(step) for step in range(per_sweep)]
    assert sorted((number, int(row)) for number, rows in seen for row in rows) == [
        (number, row) for number in range(2) for row in range(SHARD)]
    assert [number for number, _ in seen] == [0] * 5 + [1] * 5  # as they are rendered
    assert any(not np.array_equal(one.place(step)[1], other.place(step)[1]) for step in range(5))
    late, early = next(one.from_step(3)), one.from_step(0)
    for _ in range(3):
        next(early)
    again = next(early)
    assert all(torch.equal(late[name], again[name]) for name in late)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(scripts, data, tmp_path):
    whole, _ = scripts.train.train(arguments(data, tmp_path / 'whole'))
    stopped = arguments(data, tmp_path / 'stopped')
    batches = scripts.train.Batches.from_step

    def stop_after_two(self, step):
        for index, batch in enumerate(batches(self, step)):
            if index == 2:
                raise KeyboardInterrupt
            yield batch

    scripts.train.Batches.from_step = stop_after_two
    try:
        with pytest.raises(KeyboardInterrupt):
            scripts.train.train(stopped)
    finally:
        scripts.train.Batches.from_step = batches
    resumed, processor = scripts.train.train(stopped)
    for name, weight in whole.state_dict().items():
        assert torch.allclose(weight, resumed.state_dict()[name], atol=1e-6), name
    check_that_it_drives(scripts, resumed, processor, tmp_path / 'model')


def check_that_it_drives(scripts, model, processor, directory):
    scripts.train.write_model(model, processor, directory)
    driver = Driver.load(directory)
    case, = scene_cases(1, width=320, height=240)
    answer, = ask(driver, [case])
    assert np.isfinite(answer.token_loss) and -8 <= answer.action.acceleration <= 3
    pixels = driver.processor.image_processor(case.frame, return_tensors='pt')['pixel_values']
    assert tuple(pixels.shape[2:]) == (scripts.embedded_model.IMAGE_SIZE,) * 2


def test_the_model_as_it_will_be_trained_fits_the_contract(scripts):
    processor = scripts.embedded_model.build_processor()
    weights = [sum(p.numel() for p in scripts.embedded_model.build_model(processor, share)
                   .parameters()) for share in (1.0, 0.5)]
    assert 2 * weights[0] < 25e6  # bytes in fp16
    assert weights[1] < 0.6 * weights[0]


def test_the_card_says_what_was_measured(scripts, tmp_path, monkeypatch):
    model = tmp_path / 'model'
    shutil.copytree(locate('embedded'), model)
    (model / 'README.md').unlink()
    scripts.write_card.SECONDS = 0.4
    monkeypatch.setattr(sys, 'argv', ['write_card.py', str(model), '--scenes', '2',
                                      '--drives', '1'])
    scripts.write_card.main()
    card = (model / 'README.md').read_text()
    assert 'A tiny InternVL: ' in card and 'On 2 held-out scenes' in card
    assert all(row in card for row in ('| E_lon: ', '| success | ', '| red lights run | '))
    assert '{' not in card
