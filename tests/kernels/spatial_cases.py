"""Cases for matrix products, convolution, pooling, padding, resampling and transforms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from kernel_harness import (
    BFLOAT16,
    BOOL,
    C64,
    F16,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    U8,
    Case,
    cases,
    values,
)

Rng = np.random.Generator
ROUGH = {F16: (4e-3, 2e-2), BFLOAT16: (3e-2, 0.2), F32: (1e-5, 2e-5), F64: (1e-12, 1e-12)}
NUMBERS = (*FLOATS, I64, I32, U8)


def product(dtype: np.dtype) -> tuple[float, float] | None:
    return ROUGH.get(dtype)


@cases("aten::mm.out")
def mm(rng: Rng) -> Iterator[Case]:
    for dtype in NUMBERS:
        for n, k, m in ((3, 4, 5), (1, 7, 1), (0, 3, 2), (3, 0, 2), (20, 30, 40)):
            a, b = values(rng, (n, k), dtype), values(rng, (k, m), dtype)
            yield Case([a, b], tolerance=product(dtype))
            yield Case([a, values(rng, (m, k), dtype).T], tolerance=product(dtype))


@cases("aten::bmm.out")
def bmm(rng: Rng) -> Iterator[Case]:
    for dtype in NUMBERS:
        for batch, n, k, m in ((2, 3, 4, 5), (0, 1, 2, 3), (1, 2, 0, 3), (3, 1, 8, 2)):
            a, b = values(rng, (batch, n, k), dtype), values(rng, (batch, k, m), dtype)
            yield Case([a, b], tolerance=product(dtype))


@cases("aten::addmm.out")
def addmm(rng: Rng) -> Iterator[Case]:
    for dtype in NUMBERS:
        for shape in ((5,), (3, 5), (3, 1), ()):
            for beta, alpha in ((1, 1), (2, 3), (0, 1), (0.5, -1.5)):
                a, b = values(rng, (3, 4), dtype), values(rng, (4, 5), dtype)
                bias = values(rng, shape, dtype, special=beta == 0)
                yield Case([bias, a, b, beta, alpha], tolerance=product(dtype))


@cases("aten::linear.out")
def linear(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((4,), (3, 4), (2, 3, 4), (0, 4)):
            weight = values(rng, (5, 4), dtype)
            for bias in (None, values(rng, (5,), dtype)):
                x = values(rng, shape, dtype)
                yield Case([x, weight, bias], tolerance=product(dtype))


@cases("aten::_cdist_forward.out")
def cdist(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for p in (0.0, 1.0, 2.0, 3.5, float("inf"), 0.5):
            for a, b in (
                ((3, 4), (5, 4)),
                ((2, 3, 4), (1, 5, 4)),
                ((0, 3), (2, 3)),
                ((2, 0), (3, 0)),
            ):
                tolerance = (1e-5, 1e-5)
                yield Case(
                    [values(rng, a, dtype), values(rng, b, dtype), p, None], tolerance=tolerance
                )
                a_special, b_special = (values(rng, s, dtype, special=True) for s in (a, b))
                if p in (0, float("inf")):
                    yield Case([a_special, b_special, p, None])


@cases("aten::_pdist_forward.out")
def pdist(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for p in (0.0, 1.0, 2.0, 3.5, float("inf")):
            for shape in ((5, 3), (1, 4), (0, 2), (2, 6)):
                yield Case([values(rng, shape, dtype), p], tolerance=(1e-5, 1e-5))
                if p in (0, float("inf")):
                    yield Case([values(rng, shape, dtype, special=True), p])


# -- convolution -----------------------------------------------------------------------------------


def convolutions(rng: Rng, dtype: np.dtype) -> Iterator[list[Any]]:
    """Arguments of plain and transposed convolutions in one to three dimensions."""
    shapes = (
        # batch, channels, outputs, groups, sizes, window
        (2, 3, 4, 1, (9, 8), (3, 3)),
        (1, 4, 6, 2, (7, 9), (2, 3)),
        (2, 5, 5, 5, (9, 10), (3, 3)),
        (1, 3, 6, 3, (8, 7), (3, 2)),
        (1, 6, 4, 1, (5, 6), (1, 1)),
        (2, 6, 4, 2, (5, 6), (1, 1)),
        (2, 3, 4, 1, (11,), (4,)),
        (1, 4, 4, 4, (11,), (3,)),
        (1, 2, 3, 1, (5, 6, 4), (2, 3, 2)),
        (0, 2, 3, 1, (5, 6), (3, 3)),
    )
    options = ((1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 2), (2, 3, 1))
    for (n, c, o, groups, sizes, window), (stride, padding, dilation) in itertools.product(
        shapes, options
    ):
        rank = len(sizes)
        x = values(rng, (n, c, *sizes), dtype)
        for transposed in (False, True):
            extra = stride - 1 if transposed and stride > 1 else 0
            shape = (c, o // groups, *window) if transposed else (o, c // groups, *window)
            weight = values(rng, shape, dtype, low=-1, high=1)
            bias = values(rng, (o,), dtype) if stride % 2 else None
            rest = [
                [stride] * rank,
                [padding] * rank,
                [dilation] * rank,
                transposed,
                [extra] * rank,
            ]
            yield [x, weight, bias, *rest, groups]


@cases("aten::convolution.out")
def convolution(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for args in convolutions(rng, dtype):
            yield Case(args, tolerance=product(dtype))
    # Strides and paddings that differ, also by a single value for all.
    x, weight = values(rng, (1, 3, 10, 13), F32), values(rng, (4, 3, 3, 5), F32)
    for stride, padding, dilation in (
        ([2, 1], [0, 3], [1, 2]),
        ([3], [1], [1]),
        ([1, 4], [2, 0], [3, 1]),
    ):
        yield Case(
            [x, weight, None, stride, padding, dilation, False, [0, 0], 1], tolerance=product(F32)
        )
    # Several blocks of channels, and several chunks of rows.
    x, weight = values(rng, (1, 64, 60, 60), F32), values(rng, (64, 1, 3, 3), F32)
    yield Case([x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 64], tolerance=product(F32))
    yield Case([x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 64], tolerance=product(F32))
    x, weight = values(rng, (1, 32, 130, 130), F32), values(rng, (4, 32, 3, 3), F32)
    rough = (1e-4, 1e-3)
    yield Case([x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1], tolerance=rough)
    x, weight = values(rng, (1, 8, 90, 90), F32), values(rng, (8, 16, 5, 5), F32)
    yield Case([x, weight, None, [1, 1], [1, 1], [1, 1], True, [0, 0], 1], tolerance=rough)


@cases("aten::convolution_backward.out")
def convolution_backward(rng: Rng) -> Iterator[Case]:
    import torch

    for args in convolutions(rng, F64):
        x, weight, _, stride, padding, dilation, transposed, extra, groups = args
        if x.shape[0] == 0:
            continue
        shape = torch.ops.aten.convolution(
            torch.from_numpy(x),
            torch.from_numpy(weight),
            None,
            stride,
            padding,
            dilation,
            transposed,
            extra,
            groups,
        ).shape
        sizes = [shape[1]]
        rest = [sizes, stride, padding, dilation, transposed, extra, groups]
        mask = [True, True, True]
        yield Case([values(rng, shape, F64), x, weight, *rest, mask], tolerance=(1e-9, 1e-9))


# -- pooling ---------------------------------------------------------------------------------------

WINDOWS = (
    ([3, 3], [2, 2], [1, 1]),
    ([2, 3], [1, 2], [0, 1]),
    ([2], [], [0]),
    ([3, 2], [3, 1], [1, 0]),
    ([9, 8], [1, 1], [0, 0]),
)


@cases("aten::avg_pool2d.out")
def avg_pool2d(rng: Rng) -> Iterator[Case]:
    for dtype in (*FLOATS, I64):
        for shape in ((2, 3, 9, 8), (3, 9, 11), (0, 2, 9, 9)):
            for window, stride, padding in WINDOWS:
                for ceil, counted, divisor in itertools.product(
                    (False, True), (False, True), (None, 5)
                ):
                    args = [window, stride, padding, ceil, counted, divisor]
                    yield Case([values(rng, shape, dtype), *args], tolerance=product(dtype))


@cases("aten::max_pool2d_with_indices.out")
def max_pool2d(rng: Rng) -> Iterator[Case]:
    for dtype in NUMBERS:
        for shape in ((2, 3, 9, 8), (3, 9, 11), (0, 2, 9, 9)):
            for window, stride, padding in WINDOWS:
                for ceil, dilation in itertools.product((False, True), ([1, 1], [2, 1])):
                    # Few different values, so that there are ties; and NaN.
                    x = np.rint(values(rng, shape, dtype, low=-2, high=2).astype(F32)).astype(dtype)
                    if dtype in FLOATS:
                        x[rng.random(shape) < 0.05] = np.nan
                    yield Case([x, window, stride, padding, dilation, ceil])


@cases("aten::max_pool2d_with_indices_backward.grad_input")
def max_pool2d_backward(rng: Rng) -> Iterator[Case]:
    import torch

    for shape in ((2, 3, 9, 8), (3, 9, 11)):
        for window, stride, padding in WINDOWS:
            x = values(rng, shape, F32)
            y, index = torch.ops.aten.max_pool2d_with_indices(
                torch.from_numpy(x), window, stride, padding, [1, 1], False
            )
            grad = values(rng, tuple(y.shape), F32)
            yield Case(
                [grad, x, window, stride, padding, [1, 1], False, index.numpy()],
                tolerance=(1e-5, 1e-5),
            )


@cases("aten::_adaptive_avg_pool2d.out")
def adaptive_avg_pool2d(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((2, 3, 9, 8), (3, 7, 5), (0, 3, 4, 4)):
            for size in ([1, 1], [3, 4], [5, 2], [9, 8], [12, 3]):
                yield Case([values(rng, shape, dtype), size], tolerance=product(dtype))


VOLUMES = ((2, 3, 5, 6, 4), (3, 4, 5, 6), (0, 2, 4, 5, 5))
VOLUME_WINDOWS = (
    ([3, 2, 2], [2, 1, 2], [1, 0, 1]),
    ([2], [], [0]),
    ([1, 3, 2], [1, 2, 3], [0, 1, 0]),
)


@cases("aten::avg_pool3d.out")
def avg_pool3d(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape in VOLUMES:
            for window, stride, padding in VOLUME_WINDOWS:
                for ceil, counted, divisor in itertools.product(
                    (False, True), (False, True), (None, 5)
                ):
                    args = [window, stride, padding, ceil, counted, divisor]
                    yield Case([values(rng, shape, dtype), *args], tolerance=product(dtype))


@cases("aten::max_pool3d_with_indices.out")
def max_pool3d(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape in VOLUMES:
            for window, stride, padding in VOLUME_WINDOWS:
                for ceil, dilation in itertools.product((False, True), ([1, 1, 1], [2, 1, 1])):
                    x = np.rint(values(rng, shape, dtype, low=-2, high=2))
                    x[rng.random(shape) < 0.05] = np.nan
                    yield Case([x, window, stride, padding, dilation, ceil])


@cases("aten::_adaptive_avg_pool3d.out")
def adaptive_avg_pool3d(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape in VOLUMES:
            for size in ([1, 1, 1], [3, 4, 2], [7, 2, 5]):
                yield Case([values(rng, shape, dtype), size], tolerance=product(dtype))


# -- padding ---------------------------------------------------------------------------------------


@cases("aten::constant_pad_nd.out")
def constant_pad(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F16, BFLOAT16, I64, U8, BOOL):
        for pad in ([1, 2], [0, 0, 3, 1], [-1, 2], [-1, -1, 2, 0, 1, 1], [], [-3, 4]):
            for value in (0, 1.5):
                yield Case([values(rng, (2, 3, 4), dtype), pad, value])
    for pad in ([-1, -1], [-2, -2], [-4, 0], [0, -4], [1, -3, -1, -1], [-2, 3, 2, -2, -2, 1]):
        yield Case([values(rng, (2, 3, 4), F32, special=True), pad, float("nan")])
    for shape in ((0,), (0, 3), (2, 0)):
        for pad in ([1, 2], [0, 0], [], [-1, 1]):
            yield Case([values(rng, shape, F32), pad, 1.0])


@cases(
    *(
        f"aten::{name}_pad{rank}d.out"
        for name in ("reflection", "replication")
        for rank in (1, 2, 3)
    )
)
def pad(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, F16):
        for shape in ((3, 4), (2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)):
            for rank in (1, 2, 3):
                yield Case([values(rng, shape, dtype), [1, 2] * rank])
                yield Case([values(rng, shape, dtype), [2, 0, 1, 1, 0, 2][: 2 * rank]])
                yield Case([values(rng, shape, dtype), [-1, 1] * rank])


# -- resampling ------------------------------------------------------------------------------------


@cases("aten::upsample_nearest2d.vec_out")
def upsample_nearest2d(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, F16, U8):
        for size, factors in (
            ([8, 10], None),
            ([3, 3], None),
            (None, [2.0, 2.0]),
            (None, [1.5, 0.7]),
        ):
            x = values(rng, (2, 3, 4, 5), dtype)
            yield Case([x, size, factors], out=[dtype])


@cases("aten::upsample_bilinear2d.vec_out")
def upsample_bilinear2d(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64, BFLOAT16):
        for corners in (False, True):
            for size, factors in (
                ([8, 10], None),
                ([3, 1], None),
                (None, [2.0, 2.0]),
                (None, [1.5, 0.7]),
            ):
                x = values(rng, (2, 3, 4, 5), dtype)
                rough = (3e-2, 5e-2) if dtype == BFLOAT16 else (1e-5, 1e-5)
                yield Case([x, size, corners, factors], out=[dtype], tolerance=rough)


@cases("aten::_upsample_bilinear2d_aa.out")
def upsample_bilinear2d_aa(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for corners in (False, True):
            for size in ([8, 10], [3, 2], [1, 1], [7, 25], [20, 4]):
                for factors in ((None, None), (size[0] / 7, size[1] / 9)):
                    x = values(rng, (2, 3, 7, 9), dtype)
                    yield Case([x, size, corners, *factors], tolerance=(1e-5, 1e-5))


@cases("aten::grid_sampler_2d.out")
def grid_sampler(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for mode, padding, corners in itertools.product((0, 1, 2), (0, 1, 2), (False, True)):
            x = values(rng, (2, 3, 5, 6), dtype)
            grid = values(rng, (2, 4, 7, 2), dtype, low=-1.7, high=1.7)
            yield Case([x, grid, mode, padding, corners], tolerance=(2e-4, 2e-4))
            one = values(rng, (1, 1, 1, 1), dtype)
            grid = values(rng, (1, 2, 2, 2), dtype, low=-1.7, high=1.7)
            yield Case([one, grid, mode, padding, corners], tolerance=(2e-4, 2e-4))


# -- transforms ------------------------------------------------------------------------------------


@cases("aten::_fft_r2c.out")
def fft_r2c(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for dims in ([0], [-1], [0, 1], [1, 0]):
            for normalization in (0, 1, 2):
                for onesided in (True, False):
                    x = values(rng, (6, 7), dtype)
                    yield Case([x, dims, normalization, onesided], tolerance=(1e-5, 1e-5))


@cases("aten::_fft_c2r.out")
def fft_c2r(rng: Rng) -> Iterator[Case]:
    for dims, last in (([1], 6), ([1], 7), ([0], 8), ([0, 1], 6), ([1, 0], 9)):
        for normalization in (0, 1, 2):
            x = values(rng, (5, 4), C64)
            yield Case([x, dims, normalization, last], tolerance=(1e-4, 1e-4))
