"""Cases for sorting, the largest elements, and places among sorted ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from kernel_harness import (
    BFLOAT16,
    BOOL,
    DTYPES,
    F16,
    F32,
    F64,
    I32,
    I64,
    U8,
    Case,
    cases,
    values,
)

Rng = np.random.Generator


@cases("aten::topk.values")
def topk(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F16, BFLOAT16, I64, U8):
        for dim, size in ((0, 9), (-1, 11), (1, 10)):
            for largest in (True, False):
                for k in (0, 1, 3, size):
                    # All different: the order of equals is open.
                    count = 9 * 10 * 11
                    x = rng.permutation(count).reshape(9, 10, 11)
                    if dtype not in (F32, I64):
                        x = np.argsort(x, dim)
                    yield Case([x.astype(dtype), k, dim, largest, True])
    yield Case([values(rng, (), F32), 1, 0, True, True])
    yield Case([np.array([1, np.nan, 3, -np.inf], F32), 3, 0, True, True])
    yield Case([np.array([1, np.nan, 3, -np.inf], F32), 4, 0, False, True])


@cases("aten::sort.values")
def sort(rng: Rng) -> Iterator[Case]:
    return _sorting(rng, stable=False)


@cases("aten::sort.values_stable")
def sort_stable(rng: Rng) -> Iterator[Case]:
    return _sorting(rng, stable=True)


def _sorting(rng: Rng, stable: bool) -> Iterator[Case]:
    """Equal elements only where their order is said."""
    given = [True] if stable else []
    for dtype in DTYPES:
        for shape in ((7,), (3, 5), (2, 0), (), (2, 3, 10)):
            for dim in {0, -1}:
                for descending in (False, True):
                    x = rng.permutation(int(np.prod(shape))).reshape(shape)
                    if stable or dtype == BOOL:
                        x = x % 5 if stable else x.reshape(-1)[:1]
                    yield Case([x.astype(dtype), *given, dim, descending])
    odd = np.array([1, np.nan, 3, -np.inf, 0.0, *([np.nan, -0.0] if stable else [])], F32)
    for descending in (False, True):
        yield Case([odd, *given, 0, descending])


@cases("aten::bucketize.Tensor_out")
def bucketize(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, I64, I32):
        for shape in ((), (9,), (2, 3, 4), (0, 2)):
            for right in (False, True):
                boundaries = np.array([-2, -1, 0, 0, 1, 3], dtype)
                x = values(rng, shape, dtype, special=dtype in (F32, F64))
                yield Case([x, boundaries, False, right])
                yield Case([np.round(x).astype(dtype), boundaries, True, right])
                yield Case([x, boundaries[:0], False, right])
