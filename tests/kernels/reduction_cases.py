"""Cases for reductions, running sums and normalizations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from kernel_harness import BFLOAT16, DTYPES, F16, F32, F64, FLOATS, I64, Case, cases, values

Rng = np.random.Generator
SHAPES = ((), (5,), (2, 3, 4), (2, 0, 3), (0,))
#: ScalarType numbers.
FLOAT, DOUBLE, LONG, INT = 6, 7, 4, 3


def rough(dtype: np.dtype) -> tuple[float, float] | None:
    """Sums cancel, so that errors are relative to the terms."""
    return {F16: (4e-3, 2e-2), BFLOAT16: (3e-2, 0.2), F32: (1e-5, 1e-5)}.get(dtype)


def dims_of(shape: tuple[int, ...]) -> list[list[int] | None]:
    if len(shape) < 3:
        return [None, [], [0], [-1]]
    return [None, [], [0], [-1], [0, 2], [1, -1], [0, 1, 2]]


@cases("aten::sum.IntList_out", "aten::mean.out")
def total(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in dims_of(shape):
                for keepdim in (False, True):
                    x = values(rng, shape, dtype, special=dim == [0])
                    yield Case([x, dim, keepdim, None], tolerance=rough(dtype))
        x = values(rng, (3, 4), dtype)
        yield Case([x, [1], False, FLOAT], tolerance=rough(dtype))
        yield Case([x, [1], False, DOUBLE], tolerance=rough(dtype))
        yield Case([x, [1], False, LONG])
    yield Case([values(rng, (300, 400), F32), [0], False, None], tolerance=(1e-4, 1e-4))


@cases("aten::mean.dtype_out", "aten::prod.out")
def all_elements(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for kind in (None, FLOAT, DOUBLE):
                outs = [F32 if kind == FLOAT else F64 if kind == DOUBLE else None]
                if kind is None:
                    outs = [dtype if dtype in FLOATS else I64]
                x = values(rng, shape, dtype, low=-2, high=2)
                yield Case([x, kind], out=outs, tolerance=rough(dtype))


@cases("aten::prod.int_out")
def product(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in (0, -1):
                x = values(rng, shape, dtype, low=-2, high=2)
                yield Case([x, dim, False, None], tolerance=rough(dtype))
                yield Case([x, dim, True, None], tolerance=rough(dtype))


@cases("aten::cumsum.out", "aten::cumprod.out")
def cumsum(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in (0, -1):
                x = values(rng, shape, dtype)
                yield Case([x, dim, None], tolerance=rough(dtype))
                yield Case([x, dim, FLOAT], tolerance=rough(dtype))
        yield Case([values(rng, (4, 5), dtype), 1, INT])


@cases("aten::amax.out", "aten::amin.out")
def amax(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in dims_of(shape):
                for keepdim in (False, True):
                    if dim is not None:
                        x = values(rng, shape, dtype, special=True)
                        yield Case([x, dim, keepdim], same_type=True)


@cases("aten::max.unary_out", "aten::min.unary_out")
def max_all(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ((), (5,), (2, 3, 4)):
            yield Case([values(rng, shape, dtype, special=True)], out=[dtype])
            yield Case([values(rng, shape, dtype)], out=[dtype])


@cases("aten::max.dim_max", "aten::min.dim_min")
def max_dim(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in range(-max(1, len(shape)), max(1, len(shape))):
                for keepdim in (False, True):
                    x = values(rng, shape, dtype, special=True)
                    yield Case([x, dim, keepdim], same_type=True)


@cases("aten::argmax.out", "aten::argmin.out")
def argmax(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in (None, 0, -1):
                for keepdim in (False, True):
                    x = values(rng, shape, dtype, special=True)
                    yield Case([x, dim, keepdim], same_type=True)


@cases("aten::any.out")
def any_dim(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in (0, -1):
                for keepdim in (False, True):
                    x = values(rng, shape, dtype, low=0, high=1, special=True)
                    yield Case([x, dim, keepdim])


@cases("aten::any.dims_out")
def any_dims(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in dims_of(shape):
                for keepdim in (False, True):
                    yield Case([values(rng, shape, dtype, low=0, high=1), dim, keepdim])


@cases("aten::any.all_out")
def any_all(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            yield Case([values(rng, shape, dtype, low=0, high=1)])


@cases("aten::var.out")
def var(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for dim in dims_of(shape):
                for unbiased in (False, True):
                    x = values(rng, shape, dtype)
                    yield Case([x, dim, unbiased, unbiased], tolerance=rough(dtype))


@cases("aten::var.correction_out", "aten::var_mean.correction_out")
def var_correction(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in SHAPES:
            for dim in dims_of(shape):
                for correction in (None, 0, 2, 1.5):
                    x = values(rng, shape, dtype)
                    yield Case([x, dim, correction, correction == 2], tolerance=rough(dtype))
    for shape in ((0,), (2, 0, 3), (1,)):
        yield Case([values(rng, shape, F32), None, -2, False])


# -- normalization ---------------------------------------------------------------------------------


def optional(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> list[np.ndarray | None]:
    return [None, values(rng, shape, dtype)]


@cases("aten::native_layer_norm.out")
def layer_norm(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, inner in (((2, 3, 8), 1), ((4, 5), 2), ((2, 3, 4, 5), 2), ((0, 4), 1)):
            normalized = shape[-inner:]
            for weight in optional(rng, normalized, dtype):
                for bias in optional(rng, normalized, dtype):
                    x = values(rng, shape, dtype)
                    args = [x, list(normalized), weight, bias, 1e-5]
                    yield Case(args, tolerance=rough(dtype))
    yield Case(
        [values(rng, (3, 700), F32, low=90, high=100), [700], None, None, 1e-5],
        tolerance=(1e-4, 1e-3),
    )


@cases("aten::native_group_norm.out")
def group_norm(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape, groups in (((2, 6, 4, 5), 3), ((1, 4, 7), 1), ((2, 4, 3), 4), ((0, 4, 3), 2)):
            count, channels = shape[:2]
            plane = int(np.prod(shape[2:]))
            for weight in optional(rng, (channels,), dtype):
                for bias in optional(rng, (channels,), dtype):
                    args = [weight, bias, count, channels, plane, groups, 1e-5]
                    yield Case([values(rng, shape, dtype), *args], tolerance=rough(dtype))


NORM_SHAPES = ((2, 3, 4, 5), (4, 3), (2, 3, 7), (0, 3, 2), (1, 2, 3, 4, 2))


@cases("aten::_native_batch_norm_legit_no_training.out")
def batch_norm(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape in NORM_SHAPES:
            count = (shape[1],)
            mean, variance = values(rng, count, dtype), values(rng, count, dtype, low=0.1)
            for weight in optional(rng, count, dtype):
                for bias in optional(rng, count, dtype):
                    x = values(rng, shape, dtype)
                    args = [x, weight, bias, mean, variance]
                    yield Case([*args, 0.1, 1e-5], tolerance=rough(dtype))


@cases("aten::_native_batch_norm_legit.out")
def batch_norm_legit(rng: Rng) -> Iterator[Case]:
    for case in batch_norm(rng):
        *args, momentum, eps = case.args
        dtype = args[0].dtype
        yield Case([*args, False, momentum, eps], out=[dtype] * 3, tolerance=case.tolerance)


@cases("aten::_native_batch_norm_legit.no_stats_out")
def batch_norm_no_stats(rng: Rng) -> Iterator[Case]:
    for dtype in (F32, F64):
        for shape in NORM_SHAPES:
            if 0 in shape:
                continue
            count = (shape[1],)
            for weight in optional(rng, count, dtype):
                for bias in optional(rng, count, dtype):
                    args = [values(rng, shape, dtype), weight, bias, True, 0.1, 1e-5]
                    yield Case(args, tolerance=rough(dtype))
