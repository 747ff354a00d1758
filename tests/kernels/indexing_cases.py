"""Cases for reading and writing at positions that are data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from kernel_harness import (
    BFLOAT16,
    BOOL,
    DTYPES,
    F16,
    F32,
    FLOATS,
    I32,
    I64,
    U8,
    Case,
    cases,
    values,
)

Rng = np.random.Generator


def integers(
    rng: Rng, shape: tuple[int, ...], low: int, high: int, dtype: np.dtype = I64
) -> np.ndarray:
    """Integers in low..high-1."""
    return np.asarray(rng.integers(low, high, shape), dtype)


def index_lists(rng: Rng) -> Iterator[list[np.ndarray | None]]:
    """Indices for a tensor of shape (4, 5, 6)."""
    yield [integers(rng, (3,), -4, 4)]
    yield [integers(rng, (), 0, 4)]
    yield [integers(rng, (2, 3), 0, 4), integers(rng, (3,), -5, 5)]
    yield [None, integers(rng, (3,), 0, 5)]
    yield [integers(rng, (3,), 0, 4), None, integers(rng, (3,), 0, 6)]
    yield [None, integers(rng, (2, 1), 0, 5), integers(rng, (3,), 0, 6)]
    yield [integers(rng, (2,), 0, 4), integers(rng, (2,), 0, 5), integers(rng, (), 0, 6)]
    yield [values(rng, (4,), BOOL)]
    yield [values(rng, (4, 5), BOOL)]
    yield [None, values(rng, (5,), BOOL)]
    yield [integers(rng, (0,), 0, 4)]
    yield [integers(rng, (3,), 0, 4, I32)]


@cases("aten::index.Tensor_out")
def index(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for indices in index_lists(rng):
            yield Case([values(rng, (4, 5, 6), dtype), indices])


@cases("aten::index_put.out")
def index_put(rng: Rng) -> Iterator[Case]:
    for dtype in (*FLOATS, I64, U8, BOOL):
        for indices in index_lists(rng):
            for accumulate in (False, True):
                x = values(rng, (4, 5, 6), dtype, low=0)
                # One value, since which of several wins at one position is open.
                value = values(rng, (), dtype, low=0, high=2)
                rough = {F16: (1e-2, 1e-1), BFLOAT16: (8e-2, 1.0)}.get(dtype)
                yield Case([x, indices, value, accumulate], tolerance=rough)
    x = values(rng, (4, 5, 6), F32)
    where = [np.array([2, 0]), None, np.array([1, 5])]
    yield Case([x, where, values(rng, (2, 5), F32), False])
    yield Case([x, where, values(rng, (5,), F32), True], tolerance=(1e-5, 1e-5))
    for dtype in (I64, F16, BFLOAT16):  # a value of another type
        yield Case([x, where, values(rng, (), dtype), False])


@cases("aten::index_select.out")
def index_select(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for dim, size in ((0, 4), (-1, 6), (1, 5)):
            for kind in (I64, I32):
                x = values(rng, (4, 5, 6), dtype)
                yield Case([x, dim, integers(rng, (3,), 0, size, kind)])
                yield Case([x, dim, integers(rng, (), 0, size, kind)])
    yield Case([values(rng, (), F32), 0, np.array([0, 0])])


@cases("aten::embedding.out")
def embedding(rng: Rng) -> Iterator[Case]:
    for dtype in (*FLOATS, I64):
        for shape in ((), (3,), (2, 3), (0, 2)):
            for kind in (I64, I32):
                table = values(rng, (7, 4), dtype)
                yield Case([table, integers(rng, shape, 0, 7, kind), -1, False, False])


def positions(rng: Rng) -> Iterator[tuple[tuple[int, ...], int, np.ndarray]]:
    """(shape, dim, index) with an index smaller than the tensor in some dimensions."""
    shape = (4, 5, 6)
    for dim, index_shape in itertools.product((0, 1, -1), ((4, 5, 6), (2, 3, 4), (1, 1, 1))):
        yield shape, dim, integers(rng, index_shape, 0, shape[dim])
    yield shape, 1, integers(rng, (2, 9, 3), 0, 5)
    yield (5,), 0, integers(rng, (3,), 0, 5)
    yield (), 0, integers(rng, (), 0, 1)
    yield shape, 0, integers(rng, (0, 2, 2), 0, 4)


@cases("aten::gather.out")
def gather(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim, index in positions(rng):
            yield Case([values(rng, shape, dtype), dim, index, False])


@cases("aten::scatter.src_out")
def scatter(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim, index in positions(rng):
            source_shape = tuple(n + 1 for n in index.shape)
            # Of values at one position any may win: all are the same.
            source = np.full(source_shape, 3).astype(dtype)
            yield Case([values(rng, shape, dtype), dim, index, source])
    permutation = np.stack([rng.permutation(5) for _ in range(4)])
    yield Case([values(rng, (4, 5), F32), 1, permutation, values(rng, (4, 5), F32)])


@cases("aten::scatter.value_out")
def scatter_value(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim, index in positions(rng):
            for value in (2, 1.5):
                yield Case([values(rng, shape, dtype), dim, index, value])


@cases("aten::scatter_add.out")
def scatter_add(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim, index in positions(rng):
            rough = {F16: (1e-2, 5e-2), BFLOAT16: (8e-2, 0.5), F32: (1e-5, 1e-5)}.get(dtype)
            source = values(rng, index.shape, dtype, high=2)
            yield Case([values(rng, shape, dtype), dim, index, source], tolerance=rough)


@cases("aten::scatter_reduce.two_out")
def scatter_reduce(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim, index in positions(rng):
            rough = {F16: (1e-2, 5e-2), BFLOAT16: (8e-2, 0.5), F32: (1e-5, 1e-5)}.get(dtype)
            for reduce in ("sum", "prod", "mean", "amax", "amin"):
                for include_self in (True, False):
                    x = values(rng, shape, dtype, special=reduce.startswith("a"))
                    source = values(rng, index.shape, dtype, special=reduce.startswith("a"))
                    args = [x, dim, index, source, reduce, include_self]
                    yield Case(args, tolerance=rough)


@cases("aten::select_scatter.out")
def select_scatter(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, I64, BOOL):
        for dim, index, shape in ((0, 1, (5, 6)), (-1, -2, (4, 5)), (1, 0, (4, 6))):
            yield Case([values(rng, (4, 5, 6), dtype), values(rng, shape, dtype), dim, index])


@cases("aten::slice_scatter.out")
def slice_scatter(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, I64, BOOL):
        for dim, start, end, step, shape in (
            (0, 1, 3, 1, (2, 5, 6)),
            (-1, None, None, 2, (4, 5, 3)),
            (1, -2, 99, 1, (4, 2, 6)),
            (1, 3, 1, 1, (4, 0, 6)),
        ):
            x, source = values(rng, (4, 5, 6), dtype), values(rng, shape, dtype)
            yield Case([x, source, dim, start, end, step])


@cases("aten::masked_select.out")
def masked_select(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, mask in (
            ((3, 4), (3, 4)),
            ((3, 4), (4,)),
            ((4,), (3, 1)),
            ((), ()),
            ((0,), (0,)),
        ):
            yield Case([values(rng, shape, dtype), values(rng, mask, BOOL)])


@cases("aten::masked_scatter.out")
def masked_scatter(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, mask in (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 4), (3, 1))):
            yield Case(
                [values(rng, shape, dtype), values(rng, mask, BOOL), values(rng, (12,), dtype)]
            )


@cases("aten::nonzero.out")
def nonzero(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ((), (5,), (3, 4), (0, 2), (2, 3, 2)):
            yield Case([values(rng, shape, dtype, low=0, high=1)])


@cases("aten::repeat_interleave.Tensor_out")
def repeat_interleave(rng: Rng) -> Iterator[Case]:
    for dtype in (I64, I32):
        for repeats in ([2, 0, 3], [], [1]):
            yield Case([np.array(repeats, dtype), None])
            yield Case([np.array(repeats, dtype), sum(repeats)])
