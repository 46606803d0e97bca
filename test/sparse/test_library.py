from owled_ros.sparse.kernels.library import Kernels, kernels, MAX_BATCH
from owled_ros.sparse.packing import in_huge_pages, pack, pack_int8
import pytest
import torch

if kernels() is None:
    pytest.skip('the kernels are not built', allow_module_level=True)

PACKERS = {'fp16': lambda w: pack(w.half()), 'bf16': lambda w: pack(w.bfloat16()),
           'fp32': pack, 'int8': pack_int8}


@pytest.fixture(params=kernels().paths())
def compiled(request):
    library = kernels()
    before = library.path
    library.use(request.param)
    yield library
    library.use(before)


@pytest.mark.parametrize('kind', PACKERS)
def test_products_are_those_of_float64(kind, compiled, every_matrix, draw):
    for index, weight in enumerate(every_matrix()):
        packed = PACKERS[kind](weight)
        dense = packed.dense().double()
        batch = index % MAX_BATCH + 1
        x = torch.randn(batch, packed.columns, generator=draw)
        bias = torch.randn(packed.rows, generator=draw) if index % 2 else None
        y = compiled.multiply(compiled.bind(packed), x, bias)
        expected = x.double() @ dense.T + (0 if bias is None else bias)
        size = x.double().abs() @ dense.abs().T + 1
        assert ((y - expected).abs() / size).max() < 1e-6


@pytest.mark.parametrize('kind', PACKERS)
def test_unpacking_is_exact(kind, compiled, every_matrix):
    for weight in every_matrix():
        packed = PACKERS[kind](weight)
        matrix = compiled.bind(packed)
        first = packed.rows // 3
        for dtype in {torch.float32, packed.values.dtype} - {torch.int8}:
            out = torch.full((packed.rows - first, packed.columns), 7.0).to(dtype)
            compiled.unpack(matrix, first, packed.rows, out)
            assert torch.equal(out, packed.dense(dtype)[first:])


def test_values_past_the_last_are_never_used(compiled, sparse_matrix):
    packed = pack(sparse_matrix(5, 70, 0.3).half())
    packed.values[packed.count:] = torch.nan
    y = compiled.multiply(compiled.bind(packed), torch.ones(1, 70))
    assert torch.isfinite(y).all()


def test_threads_give_the_same_numbers(sparse_matrix, draw):
    packed = in_huge_pages([pack(sparse_matrix(2000, 300, 0.5))])[0]
    matrix, x = kernels().bind(packed), torch.randn(3, 300, generator=draw)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(kernels().multiply(matrix, x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_what_does_not_fit_is_refused(sparse_matrix):
    matrix = kernels().bind(pack(sparse_matrix(4, 6, 0.5)))
    with pytest.raises(ValueError, match='does not take'):
        kernels().multiply(matrix, torch.ones(MAX_BATCH + 1, 6))
    with pytest.raises(ValueError, match='do not fit'):
        kernels().unpack(matrix, 0, 4, torch.ones(2, 6))
    with pytest.raises(ValueError, match='cannot be unpacked'):
        kernels().unpack(matrix, 0, 5, torch.ones(9, 6))
    with pytest.raises(ValueError, match='no kernel'):
        kernels().use('abacus')


def test_a_library_that_is_not_ours_is_not_taken(tmp_path):
    (tmp_path / 'library.so').write_bytes(b'not a library')
    with pytest.raises(OSError):
        Kernels(tmp_path / 'library.so')
