"""Cases for views, parts, orders, joins, and for tensors made of sizes and scalars."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from kernel_harness import (
    BFLOAT16,
    BOOL,
    C64,
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
SOME = (F32, F16, BFLOAT16, I64, U8, BOOL)


@cases(
    "aten::alias_copy.out",
    "aten::detach_copy.out",
    "aten::lift_fresh_copy.out",
)
def identity(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ((), (0,), (3, 4)):
            yield Case([values(rng, shape, dtype, special=True)])


@cases("aten::clone.out")
def clone(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case([values(rng, (3, 4), dtype), None])
        yield Case([values(rng, (), dtype), None])


@cases("aten::_to_copy.out")
def to_copy(rng: Rng) -> Iterator[Case]:
    for source in DTYPES:
        for target in DTYPES:
            x = values(rng, (3, 4), source, low=0, high=9)
            yield Case([x, False, None], out=[target])


@cases("aten::copy.out")
def copy(rng: Rng) -> Iterator[Case]:
    for source in DTYPES:
        x = values(rng, (2, 3, 4), F32)
        for shape in ((2, 3, 4), (4,), (), (3, 1)):
            yield Case([x, values(rng, shape, source), False])


@cases("aten::view_copy.out")
def view(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        x = values(rng, (2, 3, 4), dtype)
        for shape in ([24], [4, 6], [-1, 3], [2, 3, 2, -1], [1, 24, 1]):
            yield Case([x, shape])
    yield Case([values(rng, (0, 3), F32), [0, 6]])
    yield Case([values(rng, (), F32), [1, 1]])
    yield Case([values(rng, (1,), F32), []])


@cases("aten::expand_copy.out")
def expand(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        yield Case([values(rng, (3, 1), dtype), [3, 4], False])
        yield Case([values(rng, (3, 1), dtype), [2, -1, 4], False])
        yield Case([values(rng, (), dtype), [2, 2], False])
        yield Case([values(rng, (1, 2), dtype), [0, 2], False])


@cases("aten::squeeze_copy.dim_out")
def squeeze(rng: Rng) -> Iterator[Case]:
    for dim in range(-4, 4):
        yield Case([values(rng, (1, 2, 1, 3), F32), dim])
    yield Case([values(rng, (), F32), 0])


@cases("aten::squeeze_copy.dims_out")
def squeeze_dims(rng: Rng) -> Iterator[Case]:
    for dims in ([0], [0, 2], [-2, 1], [], [1, 3]):
        yield Case([values(rng, (1, 2, 1, 3), F32), dims])


@cases("aten::unsqueeze_copy.out")
def unsqueeze(rng: Rng) -> Iterator[Case]:
    for dim in range(-3, 3):
        yield Case([values(rng, (2, 3), F32), dim])
    yield Case([values(rng, (), F32), -1])


@cases("aten::pixel_shuffle.out")
def pixel_shuffle(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        yield Case([values(rng, (2, 12, 3, 5), dtype), 2])
    yield Case([values(rng, (9, 2, 2), F32), 3])
    yield Case([values(rng, (2, 1, 4, 2, 2), F32), 2])


@cases("aten::pixel_unshuffle.out")
def pixel_unshuffle(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        yield Case([values(rng, (2, 3, 6, 10), dtype), 2])
    yield Case([values(rng, (1, 6, 3), F32), 3])


@cases("aten::permute_copy.out")
def permute(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        for dims in ([0, 1, 2], [2, 0, 1], [-1, 0, -2]):
            yield Case([values(rng, (2, 3, 4), dtype), dims])
            # Large enough for the copy in strips, with a rest.
            yield Case([values(rng, (5, 77, 90), dtype), dims])
    yield Case([values(rng, (), F32), []])


@cases("aten::transpose_copy.int_out")
def transpose(rng: Rng) -> Iterator[Case]:
    for first, second in ((0, 1), (-1, 0), (1, 1), (2, -2)):
        yield Case([values(rng, (2, 3, 4), F32), first, second])
    yield Case([values(rng, (), F32), 0, -1])


@cases("aten::t_copy.out")
def t(rng: Rng) -> Iterator[Case]:
    for shape in ((2, 3), (4,), ()):
        yield Case([values(rng, shape, F32)])


@cases("aten::flip.out")
def flip(rng: Rng) -> Iterator[Case]:
    for dims in ([0], [1, -1], [], [0, 1, 2]):
        yield Case([values(rng, (2, 3, 4), F32), dims])


@cases("aten::roll.out")
def roll(rng: Rng) -> Iterator[Case]:
    for shifts, dims in (([1], [0]), ([-2, 5], [1, -1]), ([7], []), ([0], [2]), ([1, 1], [0, 0])):
        yield Case([values(rng, (2, 3, 4), F32), shifts, dims])
    yield Case([values(rng, (0, 3), F32), [1], [0]])


@cases("aten::select_copy.int_out")
def select(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        for dim, index in ((0, 1), (-1, -1), (1, 2), (2, 0)):
            yield Case([values(rng, (2, 3, 4), dtype), dim, index])
    yield Case([values(rng, (3,), F32), 0, 1])


@cases("aten::slice_copy.Tensor_out")
def slice_copy(rng: Rng) -> Iterator[Case]:
    bounds = (
        (None, None, 1),
        (1, 3, 1),
        (-3, -1, 1),
        (0, 9, 2),
        (3, 1, 1),
        (-99, 99, 3),
        (7, 9, 1),
        (1, (1 << 63) - 1, 1),
    )
    for dim in (0, 1, -1):
        for start, end, step in bounds:
            yield Case([values(rng, (5, 4, 6), F32), dim, start, end, step])


@cases("aten::narrow_copy.out")
def narrow(rng: Rng) -> Iterator[Case]:
    for dim, start, length in ((0, 1, 2), (-1, 0, 6), (1, -2, 1), (1, 4, 0)):
        yield Case([values(rng, (5, 4, 6), F32), dim, start, length])


@cases("aten::split_copy.Tensor_out")
def split(rng: Rng) -> Iterator[Case]:
    for size, dim in ((2, 0), (3, -1), (9, 1), (1, 1)):
        x = values(rng, (5, 4, 6), F32)
        yield Case([x, size, dim])


@cases("aten::split_with_sizes_copy.out")
def split_with_sizes(rng: Rng) -> Iterator[Case]:
    for sizes, dim in (([1, 4], 0), ([2, 0, 4], -1), ([4], 1)):
        yield Case([values(rng, (5, 4, 6), F32), sizes, dim])


@cases("aten::unbind_copy.int_out")
def unbind(rng: Rng) -> Iterator[Case]:
    for dim in (0, -1, 1):
        yield Case([values(rng, (3, 2, 4), F32), dim])
    yield Case([values(rng, (2,), F32), 0])


@cases("aten::diagonal_copy.out")
def diagonal(rng: Rng) -> Iterator[Case]:
    for offset in (-5, -1, 0, 2, 5):
        yield Case([values(rng, (3, 4), F32), offset, 0, 1])
        yield Case([values(rng, (3, 4, 5), F32), offset, -1, 0])


@cases("aten::tril.out")
def tril(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        for offset in (-9, -1, 0, 1, 9):
            yield Case([values(rng, (2, 3, 4), dtype), offset])


@cases("aten::unfold_copy.out")
def unfold(rng: Rng) -> Iterator[Case]:
    for dim, size, step in ((0, 2, 1), (1, 3, 2), (-1, 4, 3), (2, 1, 1), (0, 0, 2)):
        yield Case([values(rng, (3, 5, 4), F32), dim, size, step])
    yield Case([values(rng, (), F32), 0, 1, 1])


@cases("aten::as_strided_copy.out")
def as_strided(rng: Rng) -> Iterator[Case]:
    # One dimension, whose memory order no layout changes.
    x = values(rng, (24,), F32)
    for size, stride, offset in (
        ([3, 4], [4, 1], None),
        ([3, 4], [1, 3], 5),
        ([5], [0], 2),
        ([], [], 3),
        ([0, 2], [1, 1], 0),
    ):
        yield Case([x, size, stride, offset])


@cases("aten::view_as_real_copy.out")
def view_as_real(rng: Rng) -> Iterator[Case]:
    for shape in ((), (3,), (2, 3)):
        yield Case([values(rng, shape, C64)])


@cases("aten::cat.out")
def cat(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for dim in (0, -1):
            yield Case([[values(rng, (2, 3), dtype), values(rng, (2, 3), dtype)], dim])
        yield Case([[values(rng, (2, 3), dtype), values(rng, (0,), dtype)], 1])
        # Types are promoted.
        yield Case([[values(rng, (2, 1), dtype), values(rng, (2, 3), F32)], 1])
    yield Case([[values(rng, (1, 3), F32), values(rng, (0, 3), F32), values(rng, (4, 3), F32)], 0])
    yield Case([[values(rng, (0,), F32)], 0])


@cases("aten::stack.out")
def stack(rng: Rng) -> Iterator[Case]:
    for dtype in SOME:
        for dim in (0, 1, -1):
            yield Case([[values(rng, (2, 3), dtype), values(rng, (2, 3), dtype)], dim])
    yield Case([[values(rng, (), F32), values(rng, (), F32)], 0])


@cases("aten::repeat.out")
def repeat(rng: Rng) -> Iterator[Case]:
    for repeats in ([2, 3], [4, 1, 2], [0, 1], [1, 1]):
        yield Case([values(rng, (2, 3), F32), repeats])
    yield Case([values(rng, (), F32), []])
    yield Case([values(rng, (), F32), [3]])


# -- made of sizes and scalars ---------------------------------------------------------------------


@cases("aten::full.out")
def full(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for value in (3, 2.5, True):
            yield Case([[2, 3], value], out=[dtype])
        yield Case([[], 1], out=[dtype])


@cases("aten::zeros.out", "aten::ones.out")
def zeros(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ([2, 3], [], [0, 2]):
            yield Case([shape], out=[dtype])


@cases("aten::full_like.out")
def full_like(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case([values(rng, (2, 3), dtype), 2, None], out=[dtype])


@cases("aten::scalar_tensor.out")
def scalar_tensor(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for value in (3, 2.5, False):
            yield Case([value], out=[dtype])


@cases("aten::fill.Scalar_out")
def fill(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for value in (3, 2.5, True):
            yield Case([values(rng, (2, 3), dtype), value])


@cases("aten::fill.Tensor_out")
def fill_tensor(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case([values(rng, (2, 3), dtype), values(rng, (), F32, low=1)])
        yield Case([values(rng, (), dtype), values(rng, (), dtype)])


@cases("aten::arange.out")
def arange(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, F16, I64, I32):
        for end in (5, 0, 4.5, 1):
            yield Case([end], out=[dtype])


@cases("aten::arange.start_out")
def arange_start(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, I64, I32):
        for start, end, step in ((1, 9, 2), (5, -4, -3), (0, 0, 1), (-2, 7, 4)):
            yield Case([start, end, step], out=[dtype])
    for start, end, step in ((0.5, 2.25, 0.5), (1.0, 0.0, -0.3), (0, 1, 0.1)):
        yield Case([start, end, step], out=[F32])
