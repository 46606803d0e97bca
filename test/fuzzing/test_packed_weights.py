"""Files of packed weights: a damaged one is refused, or holds matrices that lead nowhere else."""

from pathlib import Path
import sys
import tempfile

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutated  # noqa: E402, I100
from owled_ros.errors import UserError  # noqa: E402
from owled_ros.sparse.packing import load_packed, pack, pack_int8, save_packed  # noqa: E402


@pytest.fixture(scope='session')
def packed_bytes(tmp_path_factory):
    """Return the bytes of a file of packed weights: floats, int8, and a pattern."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 70, generator=random)
    sparse = torch.where(torch.rand(6, 70, generator=random) < 0.5, weight, 0.0)
    halves = weight[:, :64].clone()
    halves[:, ::2] = 0.0
    path = tmp_path_factory.mktemp('packed') / 'packed.safetensors'
    save_packed(path, {'floats': pack(sparse), 'bytes': pack_int8(sparse),
                       'halves': pack(halves, (2, 4))})
    return path.read_bytes()


@given(data=st.data())
def test_damaged_files(bounded, packed_bytes, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'packed.safetensors')
        path.write_bytes(data.draw(mutated(packed_bytes)))
        with bounded():
            try:
                weights = load_packed(path)
            except UserError as error:
                assert len(str(error).splitlines()) == 1, error
                return
            for weight in weights.values():
                assert weight.dense().shape == (weight.rows, weight.columns)
