import dataclasses

import numpy as np
from owled_ros.driver.action import EgoState
from owled_ros.driver.backend import BACKENDS, choose_backend
from owled_ros.driver.checkpoint import load_model, load_processor, locate
from owled_ros.driver.driver import Driver
from owled_ros.driver.prompt import DrivingFormat
from owled_ros.errors import UserError
from owled_ros.ros import parameters
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds, random_scene
from owled_ros.sparse import linear
from owled_ros.sparse.linear import pruned_linears, SparseLinear
import pytest
import torch


def pruned_model():
    """Return the embedded model without the smaller half of its projections' weights."""
    model = load_model(locate('embedded'), 'cpu')
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != 'lm_head':
                middle = module.weight.abs().median(1, keepdim=True).values
                module.weight *= module.weight.abs() > middle
    return model


def driver_of(backend):
    model = pruned_model()
    directory = locate('embedded')
    return Driver(model, load_processor(directory), DrivingFormat.of_model(directory),
                  backend=choose_backend(model, backend))


def answer(driver, seed):
    decision = driver.decide(render(random_scene(seed)), EgoState(8.0))
    stream = driver.explain(decision)
    stream.advance(48)
    return (decision.action.acceleration, decision.action.curvature, decision.action.maneuver,
            stream.text)


def test_every_backend_gives_the_same_answers():
    seeds = held_out_seeds(3)
    drivers = {backend: driver_of(backend) for backend in BACKENDS}
    for seed in seeds:
        answers = {name: answer(driver, seed) for name, driver in drivers.items()}
        assert len(set(answers.values())) == 1, answers
    sparse = drivers['sparse']
    assert sparse.backend == 'sparse' and 'projections packed' in sparse.backend_reason
    assert not pruned_linears(sparse.model)
    assert drivers['dense'].backend == 'dense'
    auto = drivers['auto']
    packed = any(isinstance(module, SparseLinear) for module in auto.model.modules())
    assert auto.backend == ('sparse' if packed else 'dense')
    assert 'measured, packed against dense' in auto.backend_reason


def test_the_text_before_the_image_is_computed_once():
    words = 'speed limit route action ' * 3
    directory = locate('embedded')
    driving_format = dataclasses.replace(DrivingFormat.of_model(directory), prompt=(
        words + '{image} speed {speed} limit {speed_limit} route {route} action'))
    model, processor = load_model(directory, 'cpu'), load_processor(directory)
    whole, once = (Driver(model, processor, driving_format, backend=choose_backend(model, backend))
                   for backend in ('transformers', 'dense'))
    once.prepare()
    assert 'the first 13 tokens of a prompt are computed once' in once.backend_reason
    for seed in held_out_seeds(3):
        assert answer(once, seed) == answer(whole, seed)


def test_an_explanation_goes_on_while_others_are_decided():
    driver = driver_of('sparse')
    first, second = (render(random_scene(seed)) for seed in held_out_seeds(2))
    whole = driver.explain(driver.decide(first, EgoState(8.0)))
    whole.advance(48)
    sliced = driver.explain(driver.decide(first, EgoState(8.0)))
    while not sliced.advance(3):
        driver.decide(second, EgoState(2.0))
    assert sliced.text == whole.text


def test_what_is_not_pruned_stays_dense():
    driver = Driver.load('embedded')
    assert driver.backend == 'dense' and 'nothing in the model is pruned' in driver.backend_reason
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    other = Driver.load('embedded', backend='transformers')
    assert other.backend == 'transformers'
    mine, theirs = driver.decide(frame, EgoState(5.0)), other.decide(frame, EgoState(5.0))
    assert mine.action.maneuver == theirs.action.maneuver
    assert mine.action.confidence == pytest.approx(theirs.action.confidence, rel=1e-3)


def test_kernels_that_fail_leave_the_model_dense(monkeypatch):
    def fail(*arguments):
        raise RuntimeError('no such instruction')
    monkeypatch.setattr(linear, '_measure', fail)
    driver = driver_of('auto')
    assert driver.backend == 'dense' and 'no such instruction' in driver.backend_reason
    assert answer(driver, held_out_seeds(1)[0])


def test_wishes_that_cannot_be_met():
    with pytest.raises(UserError, match='unknown'):
        Driver.load('embedded', backend='abacus')
    with pytest.raises(UserError, match='no projection of the model is pruned'):
        Driver.load('embedded', backend='sparse')


def test_the_parameter_has_these_choices():
    assert set(parameters.BY_NAME['backend'].choices) == set(BACKENDS)


def test_warming_up_makes_the_caches_of_an_action_and_of_an_explanation():
    driver = driver_of('dense')
    driver.warm_up()
    made = len(driver._caches._free)
    assert made == 2
    explained = driver.explain(driver.decide(render(random_scene(3)), EgoState(8.0)))
    driver.decide(render(random_scene(4)), EgoState(8.0))
    del explained
    assert len(driver._caches._free) == made
