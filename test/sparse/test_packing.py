import json

from owled_ros.errors import UserError
from owled_ros.sparse.packing import (
    FILE_FORMAT,
    find_fault,
    follows,
    in_huge_pages,
    load_packed,
    narrowest_type,
    pack,
    pack_int8,
    PackedWeight,
    save_packed,
)
import pytest
from safetensors.torch import load_file, save_file
import torch

TYPES = (torch.float16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_packing_loses_nothing(dtype, every_matrix):
    for weight in every_matrix(dtype):
        packed = pack(weight)
        assert find_fault(packed) == ''
        assert packed.values.dtype == narrowest_type(weight)
        assert torch.equal(packed.dense(dtype), weight)
        assert packed.count == int((weight != 0).sum())


def test_some_rows_alone(sparse_matrix):
    weight = sparse_matrix(9, 70, 0.4)
    packed = pack(weight)
    for rows in (slice(0, 3), slice(4, 9), slice(2, 2), slice(8, 9)):
        assert torch.equal(packed.dense(rows=rows), weight[rows])
    eight_bits = pack_int8(weight)
    assert torch.equal(eight_bits.dense(rows=slice(4, 6)), eight_bits.dense()[4:6])


def test_int8_is_the_dense_rounding(every_matrix):
    for weight in every_matrix():
        packed = pack_int8(weight)
        assert find_fault(packed) == ''
        largest = weight.abs().amax(1, keepdim=True)
        scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / 127
        assert torch.equal(packed.dense(), (weight / scale).round() * scale)
        assert bool(((packed.dense() - weight).abs() <= largest / 253).all())


def test_values_that_came_from_fewer_bits_take_no_more(sparse_matrix):
    weight = sparse_matrix(8, 64, 0.5)
    assert pack(weight).values.dtype == torch.float32
    assert pack(weight.half().float()).values.dtype == torch.float16
    assert pack(weight.bfloat16().float() * 2.0 ** -60).values.dtype == torch.bfloat16


@pytest.mark.parametrize('pattern', [(2, 4), (1, 4), (4, 8), (3, 10)], ids=str)
def test_a_pattern_is_filled_up_and_loses_nothing(pattern, draw):
    kept, of = pattern
    weight = torch.randn(6, of * 9, generator=draw)
    order = torch.rand(weight.reshape(-1, of).shape, generator=draw).argsort(1)
    weight = torch.where((order < kept).reshape(weight.shape), weight, 0.0)
    weight[2, :of] = 0                   # a group with none, which is filled with zeros
    assert follows(weight, pattern)
    packed = pack(weight, pattern)
    assert find_fault(packed) == ''
    assert torch.equal(packed.dense(), weight)
    per_row = weight.shape[1] // of * kept
    assert packed.starts.tolist() == [row * per_row for row in range(7)]


def test_what_is_not_of_the_pattern_is_refused():
    with pytest.raises(ValueError, match='2:4'):
        pack(torch.ones(2, 8), (2, 4))
    with pytest.raises(ValueError, match='groups of 4'):
        pack(torch.zeros(2, 6), (2, 4))
    assert not follows(torch.zeros(2, 6), (2, 4))


@pytest.mark.parametrize('density, bar', [(0.5, 0.58), (0.3, 0.38)])
@pytest.mark.parametrize('shape', [(256, 896), (256, 2048)], ids=str)
def test_the_share_of_the_dense_memory(density, bar, shape, draw):
    places = torch.rand(shape, generator=draw).argsort(1)
    weight = torch.where(places < density * shape[1], 1.0, 0.0).half()
    assert pack(weight).bytes / (weight.numel() * 2) <= bar


def test_one_block_of_huge_pages(every_matrix):
    packed = [pack(weight) for weight in every_matrix(torch.float16)]
    packed.append(pack_int8(torch.ones(3, 5)))
    for before, after in zip(packed, in_huge_pages(packed), strict=True):
        assert torch.equal(before.dense(), after.dense())
        assert find_fault(after) == '' and after.bytes == before.bytes
    assert in_huge_pages([]) == []


# -- files ---------------------------------------------------------------------------------------

@pytest.fixture
def saved(tmp_path, sparse_matrix):
    weights = {'a': pack(sparse_matrix(5, 70, 0.5).half()),
               'b.c': pack_int8(sparse_matrix(4, 64, 0.3)),
               'd': pack(torch.eye(4).repeat(2, 4), (1, 4))}
    save_packed(tmp_path / 'packed.safetensors', weights)
    return tmp_path / 'packed.safetensors', weights


def test_a_file_gives_back_what_was_written(saved):
    path, weights = saved
    read = load_packed(path)
    assert read.keys() == weights.keys()
    for name, weight in weights.items():
        assert read[name].pattern == weight.pattern
        assert torch.equal(read[name].dense(), weight.dense())
    assert not list(path.parent.glob('*.partial'))


def test_a_file_has_the_same_bytes_again(saved, tmp_path):
    path, weights = saved
    for _ in range(8):
        save_packed(tmp_path / 'again', weights)
        assert (tmp_path / 'again').read_bytes() == path.read_bytes()


def test_values_are_rounded_to_a_type_that_does_not_hold_them(sparse_matrix):
    weight = sparse_matrix(5, 70, 0.5)
    for values in (weight, weight.half(), weight.bfloat16()):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            held = pack(values).held_in(dtype)
            assert find_fault(held) == '' and torch.equal(held.dense(dtype), values.to(dtype))
    assert pack(weight.half()).held_in(torch.float32).values.dtype == torch.float16
    assert pack(weight).held_in(torch.bfloat16).values.dtype == torch.bfloat16
    assert pack_int8(weight).held_in(torch.float16).values.dtype == torch.int8


def test_files_that_are_not_packed_weights_are_refused(tmp_path, saved):
    path, _ = saved
    whole = path.read_bytes()
    for damage in (whole[:100], whole[:-1], b'', b'\xff' * 64):
        (tmp_path / 'damaged').write_bytes(damage)
        with pytest.raises(UserError, match='cannot be read'):
            load_packed(tmp_path / 'damaged')
    with pytest.raises(UserError, match='cannot be read'):
        load_packed(tmp_path / 'missing')
    save_file({'a': torch.zeros(2)}, tmp_path / 'other')
    with pytest.raises(UserError, match='holds no packed weights'):
        load_packed(tmp_path / 'other')
    for described in ('[]', '{"a": {}}', '{"a": {"columns": "x", "pattern": null}}', '{'):
        save_file({'a.mask': torch.zeros(2)}, tmp_path / 'other',
                  metadata={FILE_FORMAT: described})
        if described == '[]':
            with pytest.raises(UserError, match='does not describe'):
                load_packed(tmp_path / 'other')
        else:
            with pytest.raises(UserError, match='pack the model again'):
                load_packed(tmp_path / 'other')


def change_first(name, value):
    def change(tensors, described):
        tensors[name].view(-1)[0] = value
    return change


def clear_a_byte(tensors, described):
    tensors['a.mask'][1, 0] = 0     # of the row that is full


def set_padding_bit(tensors, described):
    tensors['a.mask'][0, -1] |= 0x80
    tensors['a.starts'][1:] += 1
    tensors['a.values'] = torch.cat([tensors['a.values'], torch.zeros(1).half()])


def move_a_value_to_the_next_group(tensors, described):
    tensors['d.mask'][0, 0] = 0b00000011


def replace(name, tensor):
    def change(tensors, described):
        tensors[name] = tensor
    return change


def describe(name, **entry):
    def change(tensors, described):
        described[name] |= entry
    return change


@pytest.mark.parametrize('change', [
    clear_a_byte, change_first('a.starts', 1), change_first('a.starts', -5),
    change_first('a.starts', 2 ** 31 - 1), change_first('a.values', float('nan')),
    change_first('b.c.scales', float('inf')), set_padding_bit, move_a_value_to_the_next_group,
    replace('a.starts', torch.zeros(6, dtype=torch.int32)),
    replace('a.starts', torch.zeros(2, dtype=torch.int32)),
    replace('a.starts', torch.zeros(6)),
    replace('a.mask', torch.zeros(5, 8, dtype=torch.uint8)),
    replace('a.mask', torch.zeros(0, 16, dtype=torch.uint8)),
    replace('a.values', torch.zeros(3).half()), replace('a.values', torch.zeros(200).double()),
    replace('a.scales', torch.ones(5)), replace('b.c.scales', torch.ones(3)),
    describe('a', columns=69), describe('a', columns=10 ** 30), describe('a', columns=-1),
    describe('a', pattern=[2, 4]), describe('a', pattern=[1]), describe('d', pattern=[0, 4]),
    describe('d', pattern=[1, 0])])
def test_a_file_that_contradicts_itself_is_refused(change, saved, tmp_path):
    path, _ = saved
    tensors = load_file(path)
    described = {'a': {'columns': 70, 'pattern': None}, 'b.c': {'columns': 64, 'pattern': None},
                 'd': {'columns': 16, 'pattern': [1, 4]}}
    change(tensors, described)
    save_file(tensors, tmp_path / 'changed',
              metadata={FILE_FORMAT: json.dumps(described)})
    with pytest.raises(UserError, match='is damaged|does not describe'):
        load_packed(tmp_path / 'changed')


def test_masks_do_not_change_with_the_file(saved):
    """What was checked must stay: the mask decides where values are read."""
    path, weights = saved
    read = load_packed(path)
    with open(path, 'r+b') as file:
        size = path.stat().st_size
        file.seek(size // 2)
        file.write(b'\xff' * (size - size // 2))
    for name, weight in weights.items():
        assert torch.equal(read[name].mask, weight.mask)
        assert torch.equal(read[name].starts, weight.starts)


def test_a_fault_is_named():
    assert 'types' in find_fault(PackedWeight(4, torch.zeros(1, 8), torch.zeros(32),
                                              torch.zeros(2, dtype=torch.int32)))
