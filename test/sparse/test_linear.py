from owled_ros.sparse import linear
from owled_ros.sparse.linear import (
    make_sparse,
    Measured,
    packed_bytes,
    prunable_linears,
    SparseLinear,
    TorchKernels,
)
from owled_ros.sparse.packing import pack, pack_int8
import pytest
import torch
from torch import nn


@pytest.fixture(params=['fastest', 'torch'])
def kernel(request, monkeypatch):
    if request.param == 'torch':
        monkeypatch.setattr(linear, 'kernels_for', lambda device: TorchKernels())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('shape', [(1,), (2, 3), (1, 1), (2, 17), (40,), (0,)], ids=str)
def test_it_computes_what_the_dense_layer_does(dtype, shape, kernel, monkeypatch, sparse_matrix,
                                               draw):
    monkeypatch.setattr(linear, 'TILE_WEIGHTS', 1000)
    monkeypatch.setattr(linear, 'TILE_ROWS', 1)
    monkeypatch.setattr(linear, 'ROW_BLOCK', 2)
    weight = sparse_matrix(33, 129, 0.4, dtype)
    bias = torch.randn(33, generator=draw).to(dtype)
    x = torch.randn(*shape, 129, generator=draw).to(dtype)
    for packed, b in ((pack(weight), bias), (pack(weight), None), (pack_int8(weight), bias)):
        layer = SparseLinear(packed, b)
        expected = x.double() @ packed.dense().double().T + (0 if b is None else b.double())
        y = layer(x)
        assert y.dtype == dtype and y.shape == (*shape, 33)
        size = x.double().abs() @ packed.dense().double().abs().T + 2
        # int8 times its scale is rounded to the type when it is unpacked.
        tolerance = 4 * torch.finfo(dtype).eps
        assert ((y.double() - expected).abs() <= tolerance * size).all()


@pytest.mark.parametrize('rows, columns, tiles', [
    (2048, 2048, 2), (11008, 2048, 11), (2048, 11008, 11), (896, 4864, 3), (64, 64, 1), (1, 9, 1)])
def test_tiles_are_even(rows, columns, tiles):
    step = linear.tile_rows(rows, columns)
    assert step % 64 == 0 and -(-rows // step) == tiles
    assert step * columns <= max(linear.TILE_WEIGHTS, 128 * columns) + 64 * columns


def test_inputs_need_not_be_contiguous(kernel, sparse_matrix, draw):
    weight = sparse_matrix(5, 70, 0.5)
    x = torch.randn(70, 4, generator=draw).T
    assert torch.allclose(SparseLinear(pack(weight))(x), x @ weight.T, atol=1e-4)


class Model(nn.Module):

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.layers = nn.ModuleList(nn.Linear(32, 32, bias=index == 0) for index in range(3))
        self.full = nn.Linear(32, 32)
        self.attention = nn.MultiheadAttention(32, 2)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        x = self.attention(x, x, x)[0] + self.full(x)
        return self.head(x)


@pytest.fixture
def model(draw):
    model = Model()
    with torch.no_grad():
        for module in (*model.layers, model.embedding, model.attention.out_proj):
            module.weight *= torch.rand(module.weight.shape, generator=draw) < 0.4
    return model.eval()


def test_a_model_computes_the_same_with_its_pruned_layers_packed(model):
    ids = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        dense = model(ids)
        dense_weight = model.layers[1].weight
        held = model.layers[1]
        assert make_sparse(model) == []
        assert torch.allclose(model(ids), dense, atol=1e-5)
    assert all(isinstance(layer, SparseLinear) for layer in model.layers)
    # The head's weight is the embedding's, the attention reads its layer's, and one is not pruned.
    assert type(model.head) is nn.Linear and not isinstance(model.attention.out_proj, SparseLinear)
    assert type(model.full) is nn.Linear
    assert held.weight is None and torch.equal(model.layers[1].packed.dense(), dense_weight)
    assert packed_bytes(model) == sum(layer.packed.bytes for layer in model.layers)


def test_only_linears_that_nobody_else_reads():
    assert set(prunable_linears(Model())) == {'layers.0', 'layers.1', 'layers.2', 'full'}


@pytest.mark.parametrize('wins', [True, False])
def test_a_measurement_decides(wins, model, monkeypatch):
    times = (2.0, 1.0) if wins else (1.0, 2.0)
    monkeypatch.setattr(linear, '_seconds', lambda layers, x: times[
        isinstance(layers[0], SparseLinear)])
    measured = make_sparse(model, measure=True)
    assert [group.count for group in measured] == [3]
    assert isinstance(model.layers[0], SparseLinear) == wins
    assert type(model.full) is nn.Linear


def test_the_time_to_an_action_decides():
    measured = Measured(64, 32, 0.3, 4, decode=(0.2, 0.1), prefill=(1.0, 1.2))
    assert measured.packed_wins and measured.words() == '64x32 at 70%: 2.00x'
    assert not Measured(64, 32, 0.3, 4, decode=(0.2, 0.1), prefill=(1.0, 1.9)).packed_wins
    encoder = Measured(64, 32, 0.3, 4, decode=(0.2, 0.1), prefill=(1.0, 1.2), steps=0)
    assert not encoder.packed_wins and encoder.words() == '64x32 at 70%: 0.83x'


def test_int8_rounds(model):
    weight = model.layers[0].weight.clone()
    make_sparse(model, int8=True)
    rounded = model.layers[0].packed.dense()
    assert not torch.equal(rounded, weight)
    assert torch.allclose(rounded, weight, atol=float(weight.detach().abs().max()) / 200)
