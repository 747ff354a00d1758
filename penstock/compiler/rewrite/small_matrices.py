"""Determinants, inverses and systems of small matrices: the smallest by minors, others by
elimination, triangular and positive definite ones row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

#: Minors of larger matrices are too many, and lose too many digits.
LARGEST_BY_MINORS = 4
#: Each row takes a dozen operators.
LARGEST = 32
LARGEST_TRIANGLE = 64


class OtherSizeError(NotImplementedError):
    """What is composed of other operators is so only for smaller matrices; says for which."""


def _minor(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """The determinant of some rows and columns, expanded along the first row."""
    if not rows:
        return torch.ones(x.shape[:-2], dtype=x.dtype)
    total = x[..., rows[0], columns[0]]
    if len(rows) == 1:
        return total
    for place, column in enumerate(columns):
        rest = [*columns[:place], *columns[place + 1 :]]
        term = x[..., rows[0], column] * _minor(x, rows[1:], rest)
        total = term if place == 0 else total - term if place % 2 else total + term
    return total


def _size(x: Tensor, largest: int) -> int:
    size = x.shape[-1]
    if not isinstance(size, int) or size > largest:
        raise OtherSizeError(f"matrices of at most {largest} rows, a number that is fixed")
    return size


def determinant(x: Tensor) -> Tensor:
    size = _size(x, LARGEST)
    if size > LARGEST_BY_MINORS:
        return _eliminated(x, size)[1]
    return _minor(x, list(range(size)), list(range(size)))


def inverse(x: Tensor) -> Tensor:
    """The transposed cofactors over the determinant."""
    size = _size(x, LARGEST)
    if not size:
        return x.clone()
    if size == 1:
        return 1 / x
    if size > LARGEST_BY_MINORS:
        return solution(x, torch.eye(size, dtype=x.dtype).expand(x.shape))
    cofactors = []
    for row, column in itertools.product(range(size), repeat=2):
        rows, columns = ([i for i in range(size) if i != out] for out in (column, row))
        minor = _minor(x, rows, columns)
        cofactors.append(-minor if (row + column) % 2 else minor)
    stacked: Tensor = torch.stack(cofactors, -1).unflatten(-1, (size, size))
    return stacked / determinant(x)[..., None, None]


def solution(x: Tensor, right: Tensor) -> Tensor:
    """What ``x`` times that is ``right``, [..., n, columns]."""
    size = _size(x, LARGEST)
    if size <= LARGEST_BY_MINORS:
        return inverse(x) @ right
    lead = torch.broadcast_shapes(x.shape[:-2], right.shape[:-2])
    both = [one.expand(*lead, *one.shape[-2:]) for one in (x, right)]
    return _eliminated(torch.cat(both, -1), size)[0][..., size:]


def _eliminated(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(``x`` with the unit matrix in its first ``size`` columns, the determinant of what stood
    there), by Gauss and Jordan, with the largest entry of each column as its pivot."""
    places = torch.arange(size)
    determinant = torch.ones(x.shape[:-2], dtype=x.dtype)
    for step in range(size):
        largest = x[..., step:, step].abs().argmax(-1, keepdim=True) + step
        order = torch.where(places == largest, step, places)
        order = torch.where(places == step, largest, order)
        x = torch.gather(x, -2, order.unsqueeze(-1).expand(x.shape))
        pivot = x[..., step, step]
        swapped = largest.squeeze(-1) != step
        determinant = determinant * torch.where(swapped, -pivot, pivot)
        row = x[..., step : step + 1, :] / pivot[..., None, None]
        factors = x[..., step : step + 1] * (places != step).to(x.dtype)[:, None]
        rest = x - factors * row
        x = torch.where((places == step)[:, None], row, rest)
    return x, determinant


def _pivots(x: Tensor) -> Tensor:
    """What stands for the pivots, which nobody reads."""
    return torch.zeros(x.shape[:-1], dtype=torch.int32)


def _singular(x: Tensor) -> Tensor:
    """The error code of an inverse: zero, or the number of the last row where there is none."""
    return (determinant(x) == 0).to(torch.int32) * x.shape[-1]


def linalg_det(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return determinant(x), x, _pivots(x)


def linalg_slogdet(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = determinant(x)
    return torch.sign(found), torch.log(found.abs()), x, _pivots(x)


def linalg_inv_ex(x: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    return inverse(x), _singular(x)


def linalg_solve_ex(
    x: Tensor, right: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vector = right.dim() == 1 or right.shape == x.shape[:-1]
    columns = right.unsqueeze(-1) if vector else right
    found = solution(x, columns) if left else solution(x.mT, columns.mT).mT
    found = found.squeeze(-1) if vector else found
    return found, x, _pivots(x), _singular(x)


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
    return torch.stack([done[row] for row in range(size)], -2) if done else right.clone()


def triangular_solve(
    right: Tensor, x: Tensor, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    turned, upwards = (x.mT, not upper) if transpose else (x, upper)
    lead = torch.broadcast_shapes(turned.shape[:-2], right.shape[:-2])
    columns = right.expand(*lead, *right.shape[-2:])
    return solve_triangular(turned, columns, upper=upwards, unitriangular=unitriangular), x.clone()


def cholesky(x: Tensor, upper: bool = False) -> Tensor:
    """Column by column. Of what is not positive definite, not a number; of ``x``, the triangle that
    is asked for is read."""
    size = _size(x, LARGEST)
    lower = x.mT if upper else x
    columns: list[Tensor] = []
    for step in range(size):
        column = lower[..., step:, step]
        if columns:
            before = torch.stack([one[..., step:] for one in columns], -1)
            column = column - (before * before[..., :1, :]).sum(-1)
        column = column / torch.sqrt(column[..., :1])
        columns.append(torch.nn.functional.pad(column, [step, 0]))
    if not columns:
        return x.clone()
    return torch.stack(columns, -2 if upper else -1)


def linalg_cholesky_ex(
    x: Tensor, *, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    """The error code is the number of the first column that comes out as not a number."""
    found = cholesky(x, upper)
    pivots = found.diagonal(dim1=-2, dim2=-1)
    numbers = torch.arange(1, x.shape[-1] + 1, dtype=torch.int32)
    wrong = torch.where(pivots > 0, x.shape[-1] + 1, numbers)
    if not x.shape[-1]:
        return found, torch.zeros(x.shape[:-2], dtype=torch.int32)
    first = wrong.amin(-1)
    return found, torch.where(first > x.shape[-1], 0, first).to(torch.int32)


def cholesky_solve(right: Tensor, x: Tensor, upper: bool = False) -> Tensor:
    lower = x.mT if upper else x
    lead = torch.broadcast_shapes(x.shape[:-2], right.shape[:-2])
    half = solve_triangular(lower, right.expand(*lead, *right.shape[-2:]), upper=False)
    return solve_triangular(lower.mT, half, upper=True)


def cholesky_inverse(x: Tensor, upper: bool = False) -> Tensor:
    return cholesky_solve(torch.eye(x.shape[-1], dtype=x.dtype).expand(x.shape), x, upper)


def linalg_qr(x: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """By Householder's reflections, with LAPACK's signs: a column that is zero below its diagonal
    is left as it is, any other ends in a diagonal entry of the other sign."""
    rows, columns = x.shape[-2:]
    if not all(isinstance(size, int) and size <= LARGEST for size in (rows, columns)):
        raise OtherSizeError(
            f"matrices of at most {LARGEST} rows and columns, numbers that are fixed"
        )
    steps = min(rows, columns)
    q = torch.eye(rows, dtype=x.dtype).expand(*x.shape[:-2], rows, rows)
    r = x
    for step in range(min(steps, rows - 1)):
        column = r[..., step:, step]
        head, tail = column[..., :1], column[..., 1:]
        # Squares of entries as they are might be too large or too small.
        size = column.abs().amax(-1, keepdim=True)
        unit = column / torch.where(size > 0, size, 1)
        length = size * unit.square().sum(-1, keepdim=True).sqrt()
        turned = (tail != 0).any(-1, keepdim=True)
        end = torch.where(head < 0, length, -length)
        pivot = torch.where(turned, head - end, 1)
        factor = torch.where(turned, -pivot / torch.where(turned, end, 1), 0)
        rest = torch.where(turned, tail / pivot, 0)
        vector = torch.nn.functional.pad(torch.cat([torch.ones_like(head), rest], -1), [step, 0])
        along, scaled = vector.unsqueeze(-1), (factor * vector).unsqueeze(-1)
        r = r - scaled * (along * r).sum(-2, keepdim=True)
        q = q - (q * vector.unsqueeze(-2)).sum(-1, keepdim=True) * scaled.mT
    kept = rows if mode == "complete" else steps
    upper = r[..., :kept, :].triu()
    return (torch.zeros(0, dtype=x.dtype) if mode == "r" else q[..., :kept]), upper


#: Powers in the series of an exponential; with its argument's norm below 1/2 the next is 2e-11.
POWERS = 9
#: Squarings of an exponential: norms of up to 512, whose exponential float32 does not hold.
SQUARINGS = 10


def matrix_exp(x: Tensor) -> Tensor:
    """By its series for a small part of ``x``, squared as often as that part fits in."""
    size = _size(x, LARGEST_TRIANGLE)
    if not size:
        return x.clone()
    unit = torch.eye(size, dtype=x.dtype)
    part, norm = x, x.abs().sum(-2).amax(-1)[..., None, None]
    needed = []
    for _ in range(SQUARINGS):
        large = norm > 0.5
        part, norm = (torch.where(large, one * 0.5, one) for one in (part, norm))
        needed.append(large)
    result = unit + part / POWERS
    for power in range(POWERS - 1, 0, -1):
        result = unit + part @ result / power
    for large in needed:
        result = torch.where(large, result @ result, result)
    return result
