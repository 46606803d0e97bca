"""The sizes of known language models, and random weights of them."""

from dataclasses import dataclass

from owled_ros.errors import UserError
import torch

SPARSITIES = (0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Shape:
    """The sizes of a language model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    head_size: int = 128

    def projections(self) -> dict[str, tuple[int, int]]:
        """Return (rows, columns) of a layer's different projections."""
        inner = self.heads * self.head_size
        return {'attention.q': (inner, self.hidden), 'mlp.up': (self.intermediate, self.hidden),
                'mlp.down': (self.hidden, self.intermediate)}

    def layer_weights(self) -> int:
        """Return how many weights the projections of one layer have."""
        attention = 2 * (self.heads + self.key_heads) * self.head_size
        return self.hidden * (attention + 3 * self.intermediate)


SHAPES = {
    'smolvlm-256m': Shape(576, 1536, 30, 9, 3, 49280, 64),
    'qwen-0.5b': Shape(896, 4864, 24, 14, 2, 151936, 64),
    'smolvlm-2.2b': Shape(2048, 8192, 24, 32, 32, 49280, 64),
    'qwen2.5-vl-3b': Shape(2048, 11008, 36, 16, 2, 151936),
    '7b': Shape(3584, 18944, 28, 28, 4, 152064),
}


def shape_named(name: str) -> Shape:
    """Return one of SHAPES. Raises UserError for another name."""
    if name not in SHAPES:
        raise UserError(f'there is no shape {name!r}; use one of {", ".join(SHAPES)}')
    return SHAPES[name]


def pruned_weight(rows: int, columns: int, sparsity: float, dtype=torch.float16) -> torch.Tensor:
    """Make a random weight, each of its places zero with the same probability."""
    weight = torch.randn(rows, columns).to(dtype)
    return weight.mul_(torch.rand(rows, columns) >= sparsity)


def two_four_weight(rows: int, columns: int, dtype=torch.bfloat16) -> torch.Tensor:
    """Make a random weight of which every four neighbours in a row keep the larger two."""
    groups = torch.randn(rows * columns // 4, 4)
    kept = torch.zeros_like(groups).scatter_(1, groups.abs().topk(2, 1).indices, 1.0)
    return groups.mul_(kept).to(dtype).reshape(rows, columns)
