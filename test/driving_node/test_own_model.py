"""One's own model, as docs/own_model.md goes: format, calibration, and the node as users start it.

Of the families of SmolVLM and Qwen2.5-VL, with random weights: what is shown is that the ways fit
together, not how well such a model drives.
"""

import json
from pathlib import Path

from owled_ros.cli import main
from owled_ros.driver.prompt import DrivingFormat
from owled_ros.msg import DrivingAction
from own_models import save_qwen, save_smolvlm
import pytest

NODE = Path(__file__).parents[2] / 'owled_ros' / 'driving_node.py'
OWN_WORDS = """\
# For a camera behind the windscreen.
prompt: >-
  Camera at 1.3 m.
  {speed} km/h, limit {speed_limit}, next: {route}. What now?
answer: 'I do {acceleration} and {curvature}, {maneuver}. {explanation}'
acceleration: {minimum: -6, maximum: 2, step: 0.25, signed: true}     # finer than by default
speed: {minimum: 0, maximum: 200, step: 1, scale: 3.6}
routes: {follow: on, left: left, right: right, straight: straight, change_left: left lane,
         change_right: right lane}
explanation_tokens: 8
"""


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'drive'
    assert main(['demo-bag', str(path), '--seconds', '4', '--size', '160x120']) == 0
    return path


def told(capsys, *arguments):
    """Run a command of owled; return what it prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, arguments), '--json']) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize('save, own_words', [(save_smolvlm, ''), (save_qwen, OWN_WORDS)],
                         ids=['smolvlm', 'qwen2_5_vl'])
def test_from_a_model_of_the_hub_to_a_driver(save, own_words, bag, tmp_path, capsys, start):
    model, pruned = tmp_path / 'model', tmp_path / 'pruned'
    save(model)
    if own_words:
        (model / 'driving_format.yaml').write_text(own_words)
    checked = told(capsys, 'format', model, '--size', '160x120')
    assert checked['written'] is not bool(own_words) and checked['remarks'] == []
    assert checked['prompt'].startswith('<start>user:<') and 0 < checked['image_tokens']
    assert 0 < checked['decisions'] < checked['action_tokens']
    report = told(capsys, 'calibrate', bag, '--model', model, '--output', pruned,
                  '--samples', 4, '--held-out', 2)
    assert report['sparsity']['measured'] == pytest.approx(0.5, abs=2e-3)
    driving_format = DrivingFormat.of_model(pruned)
    assert driving_format == DrivingFormat.of_model(model)
    approved = told(capsys, 'inspect', pruned)['hash']
    rig = start(str(pruned), program=NODE, model_hash=f'"{approved}"')
    rig.wait_until_heard()
    rig.drive(lambda: rig.statuses().count(DrivingAction.OK) >= 3 and rig.explanations,
              'three actions and an explanation', period=0.2)
    assert set(rig.statuses()) <= {DrivingAction.OK, DrivingAction.NO_INPUT}
    assert rig.infos[0].hash == approved and rig.model_process() is not None
    assert rig.infos[0].measured_sparsity == pytest.approx(0.5, abs=2e-3)
    for action in rig.actions:
        if action.status == DrivingAction.OK:
            assert action.maneuver != DrivingAction.NONE
