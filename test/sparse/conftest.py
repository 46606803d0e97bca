"""Random matrices of every shape and density, of a seed that a failing test says."""

import random

import pytest
import torch

SHAPES = [(1, 1), (3, 7), (5, 64), (17, 65), (33, 129), (64, 200), (96, 1000)]
DENSITIES = [0.0, 0.02, 0.3, 0.5, 0.9, 1.0]


@pytest.fixture
def draw():
    """Give a generator with a seed of its own at every run; pytest shows it with a failure."""
    seed = random.SystemRandom().randrange(2 ** 31)
    print(f'seed {seed}')
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def sparse_matrix(draw):
    """Give the function that makes a matrix of a density, with an empty and a full row."""
    def make(rows, columns, density, dtype=torch.float32):
        weight = torch.randn(rows, columns, generator=draw)
        kept = torch.rand(rows, columns, generator=draw) < density
        if rows > 2:
            kept[0], kept[1] = False, True
        return (weight * kept).to(dtype)
    return make


@pytest.fixture
def every_matrix(sparse_matrix):
    """Give the function that makes one matrix of each shape and density."""
    def make(dtype=torch.float32):
        for rows, columns in SHAPES:
            for density in DENSITIES:
                yield sparse_matrix(rows, columns, density, dtype)
    return make
