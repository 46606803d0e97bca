"""Tensors put aside: the same whether spilled or not, safe from changes, gone when dropped."""

from owled_ros.pruning.stash import Stash
import torch


def test_what_is_spilled_comes_back(tmp_path):
    stash = Stash(tmp_path / 'spilled', 100)
    trees = {key: ((torch.full((5, 4), float(key)).T, None), {'text': 'x'}) for key in range(4)}
    for key, tree in trees.items():
        stash.put(key, tree)
    assert len(list((tmp_path / 'spilled').iterdir())) == 3
    for key, tree in trees.items():
        found = stash.get(key)
        assert torch.equal(found[0][0], tree[0][0]) and found[0][1] is None
        assert found[1] == {'text': 'x'}
    stash.close()
    assert not (tmp_path / 'spilled').exists()


def test_changes_in_place_do_not_reach_it(tmp_path):
    stash = Stash(tmp_path / 'spilled', 1000)
    tensor = torch.zeros(3)
    stash.put('a', tensor)
    tensor += 1
    stash.get('a').add_(1)
    assert stash.get('a').tolist() == [0, 0, 0]


def test_memory_is_free_again_after_a_drop(tmp_path):
    stash = Stash(tmp_path / 'spilled', 20)
    for _ in range(3):
        stash.put('a', torch.zeros(5))
    assert not (tmp_path / 'spilled').exists()
    stash.put('b', torch.zeros(5))
    stash.drop('b')
    assert not list((tmp_path / 'spilled').iterdir())
