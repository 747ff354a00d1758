"""Chains of movements and arithmetic in random order: where lazy layouts go wrong, if anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from operator_harness import check
from torch import Tensor, nn

MAX_ELEMENTS = 4096


class RandomProgram(nn.Module):
    """``length`` random steps on a growing list of tensors; the last few are returned. Which steps,
    with which arguments, depends on ``seed`` and the input's shape alone."""

    def __init__(self, seed: int, length: int) -> None:
        super().__init__()
        self.seed = seed
        self.length = length

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rng = random.Random(self.seed)
        values = [x]
        while len(values) <= self.length:
            source = values[rng.randrange(max(0, len(values) - 3), len(values))]
            result = rng.choice(STEPS)(rng, source, values)
            if result is not None and 0 < result.numel() <= MAX_ELEMENTS and result.dim() <= 5:
                values.append(result)
        return (values[-1] * 1.5, values[len(values) // 2].relu())


def numbers(*shape: int) -> Tensor:
    """A constant, once exported; all different."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) * 0.7 + 1).sin().reshape(shape)


def permute(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor:
    return x.permute(rng.sample(range(x.dim()), x.dim()))


def split_dimension(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    candidates = [d for d, size in enumerate(x.shape) if size > 3 and size % 2 == 0]
    if not candidates or x.dim() == 5:
        return None
    dim = rng.choice(candidates)
    factor = rng.choice([f for f in (2, 3, 4) if x.shape[dim] % f == 0])
    shape = [*x.shape[:dim], factor, x.shape[dim] // factor, *x.shape[dim + 1 :]]
    return x.reshape(shape)


def merge_dimensions(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() < 2:
        return None
    start = rng.randrange(x.dim() - 1)
    return x.flatten(start, rng.randrange(start + 1, x.dim()))


def refactor(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor:
    """Any other shape of as many elements."""
    shape, rest = [], x.numel()
    for factor in (2, 3, 5, 4, 2):
        if rest % factor == 0 and rng.random() < 0.6 and len(shape) < 4:
            shape.append(factor)
            rest //= factor
    shape.append(rest)
    rng.shuffle(shape)
    return x.reshape(shape)


def one_more(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    return x.unsqueeze(rng.randrange(x.dim() + 1)) if x.dim() < 5 else None


def fewer_ones(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor:
    return x.squeeze()


def cut(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    dim = rng.randrange(x.dim())
    start = rng.randrange(x.shape[dim])
    return x.narrow(dim, start, rng.randrange(1, x.shape[dim] - start + 1))


def strided(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    dim = rng.randrange(x.dim())
    index = [slice(None)] * x.dim()
    index[dim] = slice(rng.randrange(x.shape[dim]), None, rng.choice((2, 3)))
    return x[tuple(index)]


def pick(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() < 2:
        return None
    dim = rng.randrange(x.dim())
    return x.select(dim, rng.randrange(x.shape[dim]))


def expand(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    ones = [d for d, size in enumerate(x.shape) if size == 1]
    if not ones:
        return None
    shape = list(x.shape)
    shape[rng.choice(ones)] = rng.choice((2, 3))
    return x.expand(shape)


def join(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    dim = rng.randrange(x.dim())
    order = rng.sample(range(x.dim()), x.dim())
    back = sorted(range(x.dim()), key=lambda d: order[d])
    other = x.permute(order).contiguous().abs().permute(back)
    return torch.cat([x, other, x.narrow(dim, 0, 1)][: rng.randrange(2, 4)], dim)


def piece(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    return rng.choice(x.split(2, rng.randrange(x.dim())))


def turn(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    return x.roll(1, rng.randrange(x.dim())) if x.dim() else None


def add_broadcast(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor:
    shape = [size if rng.random() < 0.5 else 1 for size in x.shape][rng.randrange(x.dim() + 1) :]
    return x + numbers(*shape)


def combine(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    """With an earlier value that broadcasts."""
    for other in rng.sample(values, len(values)):
        try:
            shape = torch.broadcast_shapes(x.shape, other.shape)
        except RuntimeError:
            continue
        if shape.numel() <= MAX_ELEMENTS:
            return rng.choice((torch.add, torch.mul, torch.sub, torch.maximum))(x, other) * 0.5
    return None


def by_itself_moved(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    """Two dimensions of one size: the tensor plus its own transpose."""
    for first in range(x.dim()):
        for second in range(first + 1, x.dim()):
            if x.shape[first] == x.shape[second]:
                return x + x.transpose(first, second)
    return None


def linear(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    width = x.shape[-1]
    return nn.functional.linear(x, numbers(rng.choice((2, 3)), width) / width**0.5)


def product(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    return x @ x.transpose(-1, -2) / x.shape[-1] if x.dim() > 1 else None


def convolve(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() != 4:
        return None
    weight = numbers(3, x.shape[1], 1, 3) / x.shape[1] ** 0.5
    return nn.functional.conv2d(x, weight, padding=(0, 1))


def reduce(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    if x.dim() == 0:
        return None
    dims = rng.sample(range(x.dim()), rng.randrange(1, x.dim() + 1))
    keep = rng.random() < 0.5
    return rng.choice((torch.mean, torch.amax, torch.sum))(x, dims, keep) * 0.5


def softmax(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    return x.softmax(rng.randrange(x.dim())) if x.dim() else None


def pad(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor | None:
    return nn.functional.pad(x, [rng.randrange(3) for _ in range(2 * x.dim())]) if x.dim() else None


def apply(rng: random.Random, x: Tensor, values: list[Tensor]) -> Tensor:
    return rng.choice((torch.relu, torch.neg, torch.abs, torch.tanh))(x)


Step = Callable[[random.Random, Tensor, list[Tensor]], "Tensor | None"]
STEPS: list[Step] = [
    permute, permute, split_dimension, merge_dimensions, merge_dimensions, refactor, one_more,
    fewer_ones, cut, strided, pick, expand, expand, join, piece, turn, add_broadcast, combine,
    combine, by_itself_moved, linear, product, convolve, reduce, softmax, pad, apply,
]  # fmt: skip
SHAPES = [(2, 3, 4, 6), (4, 6), (1, 4, 1, 6), (2, 2, 3, 2, 4), (12,), (3, 1, 8)]


@pytest.mark.parametrize("seed", range(120))
def test_random_program(seed: int) -> None:
    shape = SHAPES[seed % len(SHAPES)]
    torch.manual_seed(seed)
    check(RandomProgram(seed, 4 + seed % 9), torch.randn(shape))
