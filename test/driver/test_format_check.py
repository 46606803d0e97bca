"""`owled format`: a format seen by a model's tokenizer."""

from dataclasses import replace
import json
import shutil

from owled_ros.cli import main
from owled_ros.driver import checkpoint
from owled_ros.driver.checkpoint import load_processor, locate
from owled_ros.driver.decoding import TokenTree
from owled_ros.driver.format_check import check_format, decisions, FieldCost, longest
from owled_ros.driver.format_file import FORMAT_FILE
from owled_ros.driver.prompt import DrivingFormat
from owled_ros.errors import UserError
import pytest


@pytest.fixture(scope='module')
def processor():
    return load_processor(locate('embedded'))


@pytest.fixture
def embedded_format():
    return DrivingFormat.of_model(locate('embedded'))


@pytest.fixture
def model(tmp_path):
    """Copy the embedded model, without its format."""
    copy = tmp_path / 'model'
    shutil.copytree(locate('embedded'), copy, ignore=shutil.ignore_patterns(FORMAT_FILE))
    return copy


def test_what_the_embedded_model_s_answer_takes(processor, embedded_format):
    found = check_format(processor, embedded_format, 160, 120)
    assert found.prompt == '<image> speed 8.5 limit 50 route follow action'
    assert found.answer == ' -2.5 +0.010 slow down.'
    assert found.image_tokens == 64 and found.prompt_tokens == 71
    assert found.fields == (FieldCost('acceleration', 111, 1, 1), FieldCost('curvature', 161, 1, 1),
                            FieldCost('maneuver', 9, 2, 1))
    assert (found.action_tokens, found.decisions, found.remarks) == (5, 3, ())


def test_decided_is_where_there_is_an_alternative():
    tree = TokenTree([([1, 2, 3], 'a'), ([1, 2, 4, 5, 6], 'b'), ([7, 8], 'c')])
    assert longest(tree) == 5 and decisions(tree) == 2
    assert decisions(TokenTree([([1, 2, 3], 'a')])) == 0


@pytest.mark.parametrize('change, remark', [
    ({'chat': True}, 'no chat template'),
    ({'chat': True, 'prompt': 'What {image} is this?'}, 'the frame comes first'),
    ({'prompt': 'altitude {speed}'}, 'words of the prompt'),
    ({'answer': ' {acceleration}§ {curvature} {maneuver}. {explanation}'}, "know all of '§'")])
def test_what_may_not_be_meant_is_remarked(processor, embedded_format, change, remark):
    remarks = check_format(processor, replace(embedded_format, **change), 160, 120).remarks
    assert any(remark in words for words in remarks), remarks


def test_a_prompt_that_the_processor_does_not_take_is_refused(processor, embedded_format):
    twice = replace(embedded_format, prompt='{image} and <image>')
    with pytest.raises(UserError, match='the processor cannot take the prompt') as refusal:
        check_format(processor, twice, 160, 120)
    assert '\n' not in str(refusal.value)


def test_an_explanation_without_an_end_is_remarked(embedded_format):
    processor = load_processor(locate('embedded'))
    processor.tokenizer.eos_token = None
    remark, = check_format(processor, embedded_format, 160, 120).remarks
    assert 'goes on for 48 tokens' in remark


def test_a_format_is_written_where_there_is_none(model, capsys):
    """The embedded tokenizer knows its own numbers only, and the sentence says so."""
    assert main(['format', str(model)]) == 2
    told = capsys.readouterr().err.strip()
    assert 'the tokens of acceleration' in told or 'the tokens of curvature' in told
    assert '\n' not in told
    assert DrivingFormat.of_model(model) == DrivingFormat() and (model / FORMAT_FILE).is_file()


def test_a_format_that_is_there_is_left_as_it_is(model, embedded_format, capsys):
    text = embedded_format.write(model).read_text() + '# mine\n'
    (model / FORMAT_FILE).write_text(text)
    assert main(['format', str(model), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['written'] is False and told['path'] == str(model / FORMAT_FILE)
    assert told['decisions'] == 3 and told['fields'][0]['texts'] == 111
    assert (model / FORMAT_FILE).read_text() == text
    assert main(['format', str(model)]) == 0
    assert 'an action takes at most 5 tokens' in capsys.readouterr().out


def test_nothing_is_written_into_the_cache_of_the_hub(model, capsys, monkeypatch):
    monkeypatch.setattr(checkpoint, '_from_hub', lambda name, directory: model)
    assert main(['format', 'somebody/a_model']) == 2
    assert 'download the model into one of your own' in capsys.readouterr().err
    assert not (model / FORMAT_FILE).exists()


def test_a_format_comes_from_the_hub_with_its_model(model, monkeypatch):
    huggingface_hub = pytest.importorskip('huggingface_hub')
    wanted = []
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda name, allow_patterns: (
        wanted.extend(allow_patterns), str(model))[1])
    assert locate('somebody/a_model') == model
    assert FORMAT_FILE in wanted
