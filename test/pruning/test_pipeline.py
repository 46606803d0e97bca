"""The whole of pruning on a tiny Llava, against a second implementation and plain transformers."""

from collections import Counter
import json
from pathlib import Path

from owled_ros.errors import UserError
from owled_ros.pruning import prune, PruningSettings
from owled_ros.pruning.inspection import inspect_model
from owled_ros.pruning.lane import Lane
from owled_ros.pruning.pipeline import interleave
import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import AutoModelForImageTextToText

OWL = {'method': 'wanda', 'allocation': 'owl', 'statistics': 'sequential'}
WANDA = {'method': 'wanda', 'allocation': 'uniform', 'sparsity': 0.5}


def quiet(_):
    pass


def run(model_dir, samples, output, **settings):
    return prune(model_dir, samples, PruningSettings(**settings), output, progress=quiet)


@pytest.fixture(scope='module')
def pruned(llava_dir, samples, tmp_path_factory):
    output = tmp_path_factory.mktemp('pruned') / 'out'
    return output, run(llava_dir, samples, output)


def load(directory):
    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model, sample):
    return model(**sample).logits


def linears(block):
    return {n: m for n, m in block.named_modules() if isinstance(m, torch.nn.Linear)}


@torch.no_grad()
def reference(model_dir, samples, sparsities, *, sequential=True):
    """
    Prune with Wanda by whole forwards of the whole model.

    This is slow, and has nothing in common with the package but the rule that a remainder is
    spread over rows.
    """
    model, source = load(model_dir), load(model_dir)
    blocks = [*model.model.vision_tower.encoder.layers, *model.model.language_model.layers]
    watched = [*source.model.vision_tower.encoder.layers, *source.model.language_model.layers]
    for block, dense, sparsity in zip(blocks, watched, sparsities):
        seen = block if sequential else dense
        squares, hooks = {}, []
        for name, linear in linears(seen).items():
            def hook(module, args, name=name):
                x = args[0].reshape(-1, module.in_features)
                squares[name] = squares.get(name, 0) + x.double().square().sum(0)
            hooks.append(linear.register_forward_pre_hook(hook))
        for sample in samples:
            (model if sequential else source)(**sample)
        for hook in hooks:
            hook.remove()
        for name, linear in linears(block).items():
            rows, columns = linear.weight.shape
            per_row = round(sparsity * columns)
            scores = linear.weight.abs() * squares[name].sqrt().float()
            for row in range(rows):
                gone = sorted(range(columns), key=lambda j: (float(scores[row, j]), j))[:per_row]
                linear.weight[row, gone] = 0
    return model


def masks(model):
    return {name: parameter == 0 for name, parameter in model.named_parameters()
            if any(part in name for part in ('.layers.', 'projector', 'lm_head'))
            and parameter.dim() == 2}


def agreement(one, other):
    same = sum(int((one[name] == other[name]).sum()) for name in one)
    return same / sum(mask.numel() for mask in one.values())


def test_sequential_wanda_equals_a_second_implementation(llava_dir, samples, tmp_path):
    run(llava_dir, samples, tmp_path / 'out', statistics='sequential', **WANDA)
    found = masks(load(tmp_path / 'out'))
    assert agreement(found, masks(reference(llava_dir, samples, [0.5] * 6))) == 1.0
    dense = masks(reference(llava_dir, samples, [0.5] * 6, sequential=False))
    assert 0.5 < agreement(found, dense) < 0.999


def test_dense_wanda_equals_a_second_implementation(llava_dir, samples, tmp_path):
    record = run(llava_dir, samples, tmp_path / 'out', statistics='dense', **WANDA)
    expected = masks(reference(llava_dir, samples, [0.5] * 6, sequential=False))
    assert agreement(masks(load(tmp_path / 'out')), expected) == 1.0
    assert record['sparsity']['outliers_measured_on'] == 'the dense model'


@pytest.mark.parametrize('settings, steps_a_sample', [
    ({'statistics': 'sequential', 'allocation': 'uniform'}, 2),
    ({'statistics': 'sequential', 'allocation': 'owl'}, 3),
    ({'statistics': 'dense', 'allocation': 'uniform'}, 1),
    ({'statistics': 'dense', 'allocation': 'owl'}, 1),
    ({'statistics': 'dense', 'allocation': 'alphapruning'}, 1),
    ({}, 1),
])
def test_no_pass_that_is_not_needed(
        llava_dir, samples, tmp_path, monkeypatch, settings, steps_a_sample):
    steps, step = Counter(), Lane._run

    def counted(lane, *args):
        steps['held out' if lane.name in ('dense', 'pruned') else 'calibration'] += 1
        return step(lane, *args)

    monkeypatch.setattr(Lane, '_run', counted)
    run(llava_dir, samples, tmp_path / 'out', **settings)
    blocks = 6
    last = 1 if settings.get('statistics') == 'sequential' else 0   # nothing is behind it
    assert steps == {'calibration': (steps_a_sample * blocks - last) * len(samples),
                     'held out': 2 * blocks * 4}


def test_samples_without_an_image_skip_the_encoder(llava_dir, samples, tmp_path):
    text_only = {name: value[:, 16:] for name, value in samples[1].items() if value.dim() == 2}
    mixed = [samples[0], text_only, *samples[2:5]]
    run(llava_dir, mixed, tmp_path / 'out', statistics='sequential', **WANDA)
    expected = masks(reference(llava_dir, mixed, [0.5] * 6))
    assert agreement(masks(load(tmp_path / 'out')), expected) == 1.0


def test_outlier_shares_are_those_of_the_dense_model(llava_dir, samples, pruned):
    model = load(llava_dir)
    block = model.model.language_model.layers[1]
    inputs = {}
    for name, linear in linears(block).items():
        linear.register_forward_pre_hook(
            lambda module, args, name=name: inputs.setdefault(name, []).append(args[0][0]))
    for sample in samples:
        logits(model, sample)
    scores = torch.cat([
        (linear.weight.abs() * torch.cat(inputs[name]).norm(dim=0)).flatten()
        for name, linear in linears(block).items()])
    expected = float((scores > 5 * scores.mean()).float().mean())
    found = {b['name']: b['outlier_share'] for b in pruned[1]['blocks']}
    assert found['model.language_model.layers.1'] == pytest.approx(expected, abs=1e-4)


def test_plain_transformers_loads_it_with_the_same_logits(llava_dir, samples, tmp_path):
    output = tmp_path / 'out'
    record = run(llava_dir, samples, output, **OWL)
    dense, loaded = load(llava_dir), load(output)
    zeros = masks(loaded)
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            if name in zeros:
                parameter.masked_fill_(zeros[name], 0)
    assert sum(int(mask.sum()) for mask in zeros.values()) == record['sparsity']['pruned_weights']
    for sample in samples:
        assert torch.equal(logits(dense, sample), logits(loaded, sample))


def test_the_reported_losses_are_those_of_the_models(llava_dir, pruned, samples):
    for name, directory in (('dense', llava_dir), ('pruned', pruned[0])):
        model, total, tokens = load(directory), 0.0, 0
        for sample in interleave(samples)[:4]:
            answer = sample['input_ids'][0, 16:]
            predicted = logits(model, sample)[0, 15:-1]
            total += float(torch.nn.functional.cross_entropy(predicted, answer, reduction='sum'))
            tokens += len(answer)
        assert pruned[1]['loss'][name] == pytest.approx(total / tokens, rel=1e-5)
        assert pruned[1]['loss']['tokens'] == tokens


@pytest.mark.parametrize('settings', [
    {'sparsity': 0.0}, {'sparsity': 0.123, 'joint': True}, {'sparsity': 0.97},
    {**OWL, 'sparsity': 0.5, 'outlier_width': 0.5}, {'sparsity': 0.6, 'method': 'magnitude'},
    {'sparsity': 0.6, 'components': 'vision'}, {'sparsity': 0.4, 'components': 'all'},
    {'sparsity': 0.4, 'components': 'projector, language', 'joint': True},
    {'sparsity': 0.4, 'exclude': (r'vision_tower.*layers\.0\.',)},
    {'sparsity': 0.7, 'method': 'sparsegpt'},
    {'sparsity': 0.7, 'method': 'admm', 'allocation': 'owl-projection'},
    {'sparsity': 0.5, 'method': 'sparsegpt', 'pattern': '2:4', 'allocation': 'uniform'},
    {'sparsity': 0.31, 'exclude': ('down_proj',)}, {**OWL, 'sparsity': 0.6},
    {'sparsity': 0.7, 'components': 'all', 'component_sparsity': {'projector': 0.2}},
    {'sparsity': 0.6, 'method': 'sparsegpt', 'allocation': 'ablation', 'statistics': 'dense'},
    {'sparsity': 0.6, 'components': 'all', 'joint': True, 'allocation': 'fisher'},
    {'sparsity': 0.4, 'components': 'head'},
    {'sparsity': 0.6, 'components': 'all,head', 'joint': True, 'allocation': 'fisher'},
    {**OWL, 'sparsity': 0.6, 'components': 'both,head', 'component_sparsity': {'head': 0.2}},
    {'sparsity': 0.5, 'components': 'both,head', 'allocation': 'ablation'},
])
def test_the_budget_is_exact(llava_dir, samples, tmp_path, settings):
    record = run(llava_dir, samples, tmp_path / 'out', **settings)
    sparsity = record['sparsity']
    groups = {}
    for block in record['blocks']:
        key = None if settings.get('joint') else block['component']
        groups.setdefault(key, []).append(block)
    for blocks in groups.values():
        weights = sum(block['weights'] for block in blocks)
        asked = settings.get('component_sparsity', {}).get(
            blocks[0]['component'], settings['sparsity'])
        assert sum(block['pruned'] for block in blocks) == round(asked * weights)
        assert all(block['sparsity'] <= 0.9905 for block in blocks)
    zeros = masks(load(tmp_path / 'out'))
    assert sum(int(mask.sum()) for mask in zeros.values()) == sparsity['pruned_weights']


def test_a_pruned_projector_is_inspected_too(llava_dir, samples, tmp_path):
    record = run(llava_dir, samples, tmp_path / 'out', components='projector', sparsity=0.4)
    found = {b['component']: b for b in inspect_model(tmp_path / 'out')['blocks']}
    assert found['projector']['zeros'] == record['sparsity']['pruned_weights']
    assert found['projector']['weights'] == record['sparsity']['prunable_weights']
    assert found['language']['zeros'] == found['vision']['zeros'] == 0
    assert 'projector' not in {b['component'] for b in inspect_model(llava_dir)['blocks']}


@pytest.mark.parametrize('statistics', ['dense', 'sequential'])
@torch.no_grad()
def test_the_head_is_pruned_when_asked(llava_dir, samples, tmp_path, statistics):
    record = run(llava_dir, samples, tmp_path / 'out', components='both,head',
                 statistics=statistics, **WANDA)
    pruned, dense = load(tmp_path / 'out'), load(llava_dir)
    behind = pruned if statistics == 'sequential' else dense
    squares = 0
    for sample in samples:      # its inputs at the places that predict a token
        hidden = behind.model(**sample).last_hidden_state[0, :-1]
        predicts = sample['input_ids'][0, 1:] != 99
        squares = squares + hidden[predicts].double().square().sum(0)
    scores = dense.lm_head.weight.abs() * squares.sqrt().float()
    half = scores.shape[1] // 2
    gone = torch.zeros_like(scores, dtype=torch.bool).scatter_(
        1, scores.argsort(dim=1, stable=True)[:, :half], True)
    assert agreement({'': pruned.lm_head.weight == 0}, {'': gone}) == 1.0
    losses = [sum(loss(model, sample) for sample in interleave(samples)[:4])
              for model in (dense, pruned)]
    tokens = record['loss']['tokens']
    assert record['loss']['dense'] == pytest.approx(losses[0].item() / tokens, rel=1e-4)
    assert record['loss']['pruned'] == pytest.approx(losses[1].item() / tokens, rel=1e-4)
    assert record['blocks'][-1]['component'] == 'head'
    found = {b['component']: b for b in inspect_model(tmp_path / 'out')['blocks']}
    assert found['head']['zeros'] == record['blocks'][-1]['pruned'] == 100 * 24


def loss(model, sample):
    labels = sample['input_ids'][0].clone()
    labels[labels == 99] = -100
    return torch.nn.functional.cross_entropy(
        model(**sample).logits[0, :-1], labels[1:], ignore_index=-100, reduction='sum')


def test_a_head_that_is_tied_is_refused(samples, tmp_path, save_llava):
    save_llava(tmp_path / 'model', tie_word_embeddings=True)
    for components in ('both,head', 'head'):
        refused('output head of .* tied to the embeddings', tmp_path / 'model', samples,
                tmp_path / 'out', components=components)


def test_what_is_left_out_stays_as_it_was(llava_dir, samples, tmp_path):
    run(llava_dir, samples, tmp_path / 'out', components='language', exclude=(r'layers\.1\.',))
    dense = load_file(llava_dir / 'model.safetensors')
    found = load_file(tmp_path / 'out' / 'model.safetensors')
    changed = {name for name in dense if not torch.equal(dense[name], found[name])}
    assert changed and all('layers.0.' in name or 'layers.2.' in name for name in changed)
    assert not any('vision' in name for name in changed)


def test_only_what_is_included_is_pruned(llava_dir, samples, tmp_path):
    record = run(llava_dir, samples, tmp_path / 'out', include=('down_proj$', r'\.0\..*fc1$'))
    projections = [p['name'] for block in record['blocks'] for p in block['projections']]
    assert sorted(name.rpartition('.')[2] for name in projections) == ['down_proj'] * 3 + ['fc1']
    dense = load_file(llava_dir / 'model.safetensors')
    found = load_file(tmp_path / 'out' / 'model.safetensors')
    assert sum(not torch.equal(dense[name], found[name]) for name in dense) == 4


def test_a_budget_for_what_is_not_there_is_refused(llava_dir, samples, tmp_path):
    refused('vision of .* nothing to prune', llava_dir, samples, tmp_path / 'out',
            component_sparsity={'vision': 0.3}, exclude=('vision_tower',))


def test_samples_that_predict_nothing_are_refused(llava_dir, samples, tmp_path):
    blank = [{**sample, 'labels': torch.full_like(sample['input_ids'], -100)}
             for sample in samples]
    refused('No sample has a token to predict', llava_dir, blank, tmp_path / 'out')


def test_what_is_requested_counts_every_component(llava_dir, samples, tmp_path):
    record = run(llava_dir, samples, tmp_path / 'out', sparsity=0.6,
                 component_sparsity={'vision': 0.2})
    assert record['sparsity']['requested'] == pytest.approx(
        record['sparsity']['measured'], abs=1e-4)
    assert 0.2 < record['sparsity']['requested'] < 0.6


def test_the_first_samples_are_of_every_source():
    for count in (2, 3, 8, 64, 127):
        order = interleave(range(count))
        assert sorted(order) == list(range(count))
        for first in (2, 4, 8):
            if first <= count:
                found = [0, *sorted(order[:first]), count]
                assert max(b - a for a, b in zip(found, found[1:])) <= 2.7 * count / first + 1


def test_same_inputs_same_bytes(llava_dir, samples, pruned, tmp_path):
    run(llava_dir, samples, tmp_path / 'again', activation_bytes=20000)
    files = sorted(path.name for path in pruned[0].iterdir())
    assert files == sorted(path.name for path in (tmp_path / 'again').iterdir())
    assert {'owled.json', 'report.html', 'blocks.png', 'config.json'} <= set(files)
    for name in files:
        assert (pruned[0] / name).read_bytes() == (tmp_path / 'again' / name).read_bytes(), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_types_on_disk_are_kept(samples, tmp_path, dtype, save_llava):
    source = save_llava(tmp_path / 'model', dtype=dtype)
    record = run(source, samples, tmp_path / 'out', **OWL)
    dense = load_file(source / 'model.safetensors')
    found = load_file(tmp_path / 'out' / 'model.safetensors')
    for name, values in found.items():
        assert values.dtype == dense[name].dtype == dtype
        kept = values != 0
        assert torch.equal(values[kept], dense[name][kept])
    assert record['sparsity']['measured'] == pytest.approx(0.5, abs=1e-4)


def test_the_default_keeps_types_too(samples, tmp_path, save_llava):
    source = save_llava(tmp_path / 'model', dtype=torch.float16)
    run(source, samples, tmp_path / 'out')
    for values in load_file(tmp_path / 'out' / 'model.safetensors').values():
        assert values.dtype == torch.float16 and values.isfinite().all()


def test_weights_that_do_not_fit_their_type_are_refused(samples, tmp_path, save_llava, monkeypatch):
    from owled_ros.pruning import methods
    source = save_llava(tmp_path / 'model', dtype=torch.float16)
    monkeypatch.setitem(methods.METHODS, 'magnitude', methods.Method(
        lambda weight, statistic, cut: (weight + 1e6, weight == weight)))
    refused('are too large for float16', source, samples, tmp_path / 'out', method='magnitude')


def test_a_pattern_may_be_given_a_rounded_sparsity(llava_dir, samples, tmp_path):
    record = run(llava_dir, samples, tmp_path / 'out', pattern='1:3', sparsity=0.667,
                 method='wanda', allocation='uniform', include=('language_model',))
    assert record['sparsity']['measured'] == pytest.approx(2 / 3, abs=1e-9)


def test_the_buffers_go_where_the_weights_go(llava_dir):
    from owled_ros.pruning.streaming import StreamedModel
    model = StreamedModel(llava_dir, torch.device('meta'))  # a GPU's part
    names = {name for name, _ in model.module.named_buffers()}
    assert any('position_ids' in name for name in names)
    assert all(buffer.is_meta for _, buffer in model.module.named_buffers())


def test_the_working_directory_may_be_the_output(llava_dir, samples, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    run(llava_dir, samples, '.', method='wanda', allocation='uniform')
    assert (tmp_path / 'here' / 'owled.json').is_file()
    assert not (tmp_path / '.here.partial').exists()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'empty')
    run(llava_dir, samples, tmp_path / 'link', method='wanda', allocation='uniform')
    assert (tmp_path / 'empty' / 'owled.json').is_file()


def test_a_mount_point_is_refused_at_once(llava_dir, samples, tmp_path, monkeypatch):
    (tmp_path / 'mounted').mkdir()
    monkeypatch.setattr(Path, 'is_mount', lambda path: path.name == 'mounted')
    refused('is a mount point', llava_dir, samples, tmp_path / 'mounted')


def test_shards_keep_their_names(samples, tmp_path, save_llava):
    source = save_llava(tmp_path / 'model')
    load(source).save_pretrained(tmp_path / 'sharded', max_shard_size='100KB')
    assert len(list((tmp_path / 'sharded').glob('*.safetensors'))) > 2
    run(tmp_path / 'sharded', samples, tmp_path / 'out')
    run(source, samples, tmp_path / 'single')
    for path in (tmp_path / 'sharded').glob('model*'):
        assert (tmp_path / 'out' / path.name).exists()
    assert torch.equal(logits(load(tmp_path / 'out'), samples[0]),
                       logits(load(tmp_path / 'single'), samples[0]))


def test_the_record_says_what_was_done(llava_dir, samples, pruned, tmp_path, make_samples):
    output, record = pruned
    assert json.loads((output / 'owled.json').read_text()) == record
    assert record['settings']['allocation'] == 'fisher'
    assert record['model']['sha256'] != record['model']['dense_sha256']
    assert [block['component'] for block in record['blocks']] == ['vision'] * 3 + ['language'] * 3
    assert all(block['output_error'] > 0 for block in record['blocks'])
    assert len(record['blocks'][3]['projections']) == 7
    page = (output / 'report.html').read_text()
    assert page.count('data:image/png;base64,') == 2 and 'http' not in page
    described = prune(llava_dir, samples, PruningSettings(), tmp_path / 'out', progress=quiet,
                      held_out=make_samples(3, seed=9), describe={'bags': ['drive']})
    assert described['data']['bags'] == ['drive']
    assert described['loss']['measured_on'] == 'held-out samples'


def refused(match, model_dir, samples, output, **settings):
    before = sorted(output.parent.iterdir())
    with pytest.raises(UserError, match=match):
        run(model_dir, samples, output, **settings)
    assert sorted(output.parent.iterdir()) == before


@pytest.mark.parametrize('settings, match', [
    ({'sparsity': 1.0}, 'sparsity is 1.0'), ({'sparsity': -0.1}, 'sparsity is -0.1'),
    ({'sparsity': float('nan')}, 'sparsity is nan'), ({'sparsity': 0.995}, 'sparsity is 0.995'),
    ({'minimum_samples': 0}, 'number of samples is 0'),
    ({'method': 'guess'}, "no method 'guess'.*wanda"), ({'allocation': 'x'}, 'no allocation'),
    ({'components': 'vision,wheels'}, "no component 'wheels'"),
    ({'statistics': 'some'}, 'no kind of statistics'),
    ({'exclude': ('(',)}, 'regular expression'),
    ({'exclude': ('.',)}, 'nothing to prune'), ({'device': 'abacus'}, 'no device'),
    ({'pattern': '4:2'}, "pattern '4:2'"), ({'pattern': '2:4'}, 'choose the allocation uniform'),
    ({'pattern': '1:4', 'allocation': 'uniform'}, 'share of 0.75'),
    ({'pattern': '1:5', 'sparsity': 0.8, 'allocation': 'uniform'}, 'not a multiple'),
    ({'outlier_threshold': 0}, 'outlier threshold'), ({'outlier_width': 2}, 'outlier width'),
])
def test_bad_settings_are_refused(llava_dir, samples, tmp_path, settings, match):
    refused(match, llava_dir, samples, tmp_path / 'out', **settings)


def test_too_few_samples_are_refused(llava_dir, samples, tmp_path):
    refused('samples are too few', llava_dir, samples[:3], tmp_path / 'out')


def test_an_output_that_holds_something_is_refused(llava_dir, samples, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.txt').write_text('mine')
    refused('already holds', llava_dir, samples, tmp_path / 'out')
    assert (tmp_path / 'out' / 'thesis.txt').read_text() == 'mine'


def test_a_result_is_not_made_twice(llava_dir, samples, pruned, monkeypatch):
    monkeypatch.setattr('owled_ros.pruning.pipeline.Progress', None)
    assert run(llava_dir, samples, pruned[0]) == pruned[1]
    with pytest.raises(UserError, match='already holds'):
        run(llava_dir, samples, pruned[0], sparsity=0.4)


def test_a_directory_without_a_model_is_refused(samples, tmp_path):
    (tmp_path / 'model').mkdir()
    refused('no model directory', tmp_path / 'nothing', samples, tmp_path / 'out')
    refused('has no weights', tmp_path / 'model', samples, tmp_path / 'out')


def test_a_model_without_weights_is_refused(llava_dir, samples, tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'config.json').write_bytes((llava_dir / 'config.json').read_bytes())
    refused('has no weights', tmp_path / 'model', samples, tmp_path / 'out')


def test_a_model_without_blocks_is_refused(samples, tmp_path, save_llava):
    source = save_llava(tmp_path / 'model', vision_layers=1, language_layers=1)
    refused('no prunable block', source, samples, tmp_path / 'out')


def change_weight(directory, ending, change):
    path = directory / 'model.safetensors'
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(ending))
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={'format': 'pt'})


def test_nan_weights_are_refused(samples, tmp_path, save_llava):
    source = save_llava(tmp_path / 'model')
    change_weight(source, 'layers.1.mlp.fc1.weight', lambda w: w.index_fill(
        1, torch.tensor([0]), torch.nan))
    refused('holds NaN', source, samples, tmp_path / 'out')


def test_a_truncated_file_is_refused(samples, tmp_path, save_llava):
    source = save_llava(tmp_path / 'model')
    weights = source / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    refused('cannot be read', source, samples, tmp_path / 'out')


def test_nan_activations_are_refused(llava_dir, samples, tmp_path):
    bad = dict(samples[2], pixel_values=torch.full_like(samples[2]['pixel_values'], torch.nan))
    refused('inputs of .* hold NaN', llava_dir, [*samples[:2], bad, *samples[3:]],
            tmp_path / 'out')
