"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter."""

import pytest
import torch

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

pytest.importorskip('triton')

from owled_ros.sparse.kernels.triton_kernels import TritonKernels  # noqa: E402, I100
from owled_ros.sparse.packing import pack, pack_int8  # noqa: E402

SHAPES = [(1, 1), (3, 7), (5, 64), (9, 300)]
PACKERS = {'fp16': lambda w: pack(w.half()), 'bf16': lambda w: pack(w.bfloat16()),
           'fp32': pack, 'int8': pack_int8}


@pytest.mark.parametrize('kind', PACKERS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_products_are_those_of_float64(kind, shape, sparse_matrix, draw):
    for index, density in enumerate((0.0, 0.3, 0.6, 1.0)):
        packed = PACKERS[kind](sparse_matrix(*shape, density)).to(DEVICE)
        dense = packed.dense().double()
        batch = (1, 2, 5, 8)[index]
        x = torch.randn(batch, packed.columns, generator=draw).to(DEVICE)
        bias = torch.randn(packed.rows, generator=draw).to(DEVICE) if index % 2 else None
        y = TritonKernels().multiply(packed, x, bias)
        expected = x.double() @ dense.T + (0 if bias is None else bias)
        size = x.double().abs() @ dense.abs().T + 1
        assert ((y - expected).abs() / size).max() < 1e-5


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('kind', PACKERS)
def test_unpacking_is_exact(kind, dtype, sparse_matrix):
    for shape in SHAPES:
        packed = PACKERS[kind](sparse_matrix(*shape, 0.4)).to(DEVICE)
        first = packed.rows // 3
        out = torch.full((packed.rows - first, packed.columns), 7.0, dtype=dtype, device=DEVICE)
        TritonKernels().unpack(packed, first, packed.rows, out)
        expected = packed.dense()[first:].to(dtype)
        # The interpreter cuts off where a GPU rounds to bf16: the last place may differ.
        exact = dtype == torch.float32 or dtype == packed.values.dtype or DEVICE == 'cuda'
        assert torch.allclose(out, expected, atol=0, rtol=0 if exact else 2 ** -7)
        assert torch.equal(out == 0, expected == 0)


def test_inputs_of_half_precision_give_outputs_of_it(sparse_matrix, draw):
    packed = pack(sparse_matrix(9, 70, 0.5).bfloat16()).to(DEVICE)
    x = torch.randn(3, 70, generator=draw).bfloat16().to(DEVICE)
    y = TritonKernels().multiply(packed, x)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), x.float() @ packed.dense().float().T, atol=0.1, rtol=0.02)


def test_values_past_the_last_are_never_used(sparse_matrix):
    packed = pack(sparse_matrix(5, 70, 0.3).half()).to(DEVICE)
    packed.values[packed.count:] = torch.nan
    y = TritonKernels().multiply(packed, torch.ones(1, 70, device=DEVICE))
    assert torch.isfinite(y).all()
