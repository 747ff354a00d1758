"""Determinants and inverses of small matrices, by minors; triangular systems, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

#: Minors of larger matrices are too many, and lose too many digits.
LARGEST = 4
LARGEST_TRIANGLE = 64


def _minor(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """The determinant of some rows and columns, expanded along the first row."""
    if not rows:
        return torch.ones_like(x[..., 0, 0])
    if len(rows) == 1:
        return x[..., rows[0], columns[0]]
    total = torch.zeros_like(x[..., 0, 0])
    for place, column in enumerate(columns):
        rest = [*columns[:place], *columns[place + 1 :]]
        term = x[..., rows[0], column] * _minor(x, rows[1:], rest)
        total = total - term if place % 2 else total + term
    return total


def _size(x: Tensor, largest: int) -> int:
    size = x.shape[-1]
    if not isinstance(size, int) or size > largest:
        raise NotImplementedError
    return size


def determinant(x: Tensor) -> Tensor:
    every = list(range(_size(x, LARGEST)))
    return _minor(x, every, every)


def inverse(x: Tensor) -> Tensor:
    """The transposed cofactors over the determinant."""
    size = _size(x, LARGEST)
    cofactors = []
    for row, column in itertools.product(range(size), repeat=2):
        rows, columns = ([i for i in range(size) if i != out] for out in (column, row))
        minor = _minor(x, rows, columns)
        cofactors.append(-minor if (row + column) % 2 else minor)
    stacked: Tensor = torch.stack(cofactors, -1).unflatten(-1, (size, size))
    return stacked / determinant(x)[..., None, None]


def _pivots(x: Tensor) -> Tensor:
    """What stands for the pivots and error codes that nobody reads."""
    return torch.zeros(x.shape[:-1], dtype=torch.int32)


def linalg_det(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return determinant(x), x, _pivots(x)


def linalg_slogdet(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = determinant(x)
    return torch.sign(found), torch.log(found.abs()), x, _pivots(x)


def linalg_inv_ex(x: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    return inverse(x), torch.zeros(x.shape[:-2], dtype=torch.int32)


def linalg_solve_ex(
    x: Tensor, right: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vector = right.dim() == 1 or right.shape == x.shape[:-1]
    columns = right.unsqueeze(-1) if vector else right
    found = inverse(x) @ columns if left else columns @ inverse(x)
    found = found.squeeze(-1) if vector else found
    return found, x, _pivots(x), torch.zeros(x.shape[:-2], dtype=torch.int32)


def solve_triangular(
    x: Tensor, right: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Each row from those before it."""
    if not left:
        turned = solve_triangular(x.mT, right.mT, upper=not upper, unitriangular=unitriangular)
        return turned.mT
    size = _size(x, LARGEST_TRIANGLE)
    done: dict[int, Tensor] = {}
    for row in reversed(range(size)) if upper else range(size):
        value = right[..., row, :]
        for other, known in done.items():
            value = value - x[..., row, other, None] * known
        done[row] = value if unitriangular else value / x[..., row, row, None]
    return torch.stack([done[row] for row in range(size)], -2)
