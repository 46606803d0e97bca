"""docs/pruning.md says what is there, and its Python runs."""

from dataclasses import fields, MISSING
from pathlib import Path
import re
import sys

from owled_ros.cli import main
from owled_ros.pruning import PruningSettings
from owled_ros.pruning.allocation import ALLOCATIONS
from owled_ros.pruning.methods import METHODS
from owled_ros.pruning.settings import COMPONENTS
import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'pruning.md').read_text()


def table(head):
    """Return the cells of the table whose first column is called `head`, by the first of them."""
    _, _, below = PAGE.partition(f'\n| {head} |')
    lines = below.split('\n\n')[0].splitlines()[2:]
    rows = [re.split(r'(?<!\\)\|', line)[1:-1] for line in lines]
    return {cells[0].strip().strip('`'): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.mark.parametrize('head, known', [
    ('method', METHODS), ('allocation', ALLOCATIONS), ('component', COMPONENTS)])
def test_what_can_be_chosen_is_documented(head, known):
    assert list(table(head)) == list(known)


@pytest.mark.parametrize('option, known', [
    ('--method', METHODS), ('--allocation', ALLOCATIONS), ('--components', COMPONENTS)])
def test_the_readme_and_the_help_name_them_all(monkeypatch, capsys, option, known):
    monkeypatch.setenv('COLUMNS', '200')    # no name is broken at its hyphen
    row, = [line for line in (ROOT / 'README.md').read_text().splitlines()
            if line.startswith(f'| `{option}`')]
    with pytest.raises(SystemExit):
        main(['calibrate', '--help'])
    told = ' '.join(capsys.readouterr().out.partition(f'  {option} ')[2].split())
    told = told.partition(' --')[0]
    for name in known:
        assert f'`{name}`' in row
        assert re.search(rf'\b{name}\b(?!-)', told), (name, told)


def test_every_setting_is_documented_with_its_default():
    defaults = {f.name: f.default if f.default is not MISSING else f.default_factory()
                for f in fields(PruningSettings)}
    written = {name: cells[0].strip('`') for name, cells in table('setting').items()}
    assert written == {name: repr(default) for name, default in defaults.items()}


@pytest.fixture
def my_model(tmp_path):
    """Save a tiny Llama whose tokens are letters."""
    from tokenizers import models, pre_tokenizers, Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(letters), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )).save_pretrained(tmp_path / 'my_model')
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / 'my_model')


def test_the_python_runs_without_ros(tmp_path, monkeypatch, capsys, my_model):
    code, = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    (tmp_path / 'book.txt').write_text(''.join(f'Mile {number}. ' for number in range(800)))
    monkeypatch.chdir(tmp_path)
    for name in ('rclpy', 'rosbag2_py'):
        monkeypatch.setitem(sys.modules, name, None)    # an import of it fails
    names = {}
    exec(compile(code, 'docs/pruning.md', 'exec'), names)   # noqa: S102
    assert '0.500 {' in capsys.readouterr().out
    assert set(names['record']) == set(table('key'))
    zeros = sum(int((p == 0).sum()) for n, p in names['model'].named_parameters() if 'proj' in n)
    assert zeros == names['record']['sparsity']['pruned_weights']
