"""Sums, means, products, extremes and variances over dimensions, and running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from penstock.runtime.dtypes import numpy_dtype
from penstock.runtime.kernels.common import (
    BOOL,
    INT64,
    Array,
    DType,
    Scalar,
    at_least_1d,
    axes_of,
    axis_of,
    documented,
    is_float,
    is_integral,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel


def _sum_type(x: Array, dtype: int | None, out: Array) -> DType:
    """The type that sums and products are made in: int64 for integers unless asked otherwise."""
    kind: DType = x.dtype if dtype is None else numpy_dtype(dtype)
    if dtype is None and is_integral(kind):
        kind = out.dtype if is_float(out.dtype) else INT64
    return kind


@kernel("aten::sum.IntList_out")
def total(
    x: Array, dim: Sequence[int] | None, keepdim: bool, dtype: int | None, out: Array
) -> Array:
    """The sum over dimensions; integers and bools sum in int64."""
    kind = _sum_type(x, dtype, out)
    value = widened(x, kind).sum(axes_of(dim, x.ndim), keepdims=keepdim)
    return rounded(np.asarray(value), kind)


@kernel("aten::mean.out")
def mean(
    x: Array, dim: Sequence[int] | None, keepdim: bool, dtype: int | None, out: Array
) -> Array:
    """The mean over dimensions, in a floating type."""
    kind = x.dtype if dtype is None else numpy_dtype(dtype)
    kind = out.dtype if is_integral(kind) else kind
    if is_integral(kind):
        raise KernelError(f"a mean of type {kind}")
    value = widened(x, kind).mean(axes_of(dim, x.ndim), keepdims=keepdim)
    return rounded(np.asarray(value), kind)


@kernel("aten::mean.dtype_out")
def mean_all(x: Array, dtype: int | None, out: Array) -> Array:
    """The mean of all elements."""
    return mean(x, None, False, dtype, out)


@kernel("aten::prod.int_out")
def product(x: Array, dim: int, keepdim: bool, dtype: int | None, out: Array) -> Array:
    """The product over one dimension; integers and bools multiply in int64."""
    kind = _sum_type(x, dtype, out)
    axis = axis_of(dim, x.ndim)
    value = widened(x, kind).prod(axis if x.ndim else (), keepdims=keepdim)
    return rounded(np.asarray(value), kind)


@kernel("aten::prod.out")
def product_all(x: Array, dtype: int | None, out: Array) -> Array:
    """The product of all elements."""
    kind = _sum_type(x, dtype, out)
    return rounded(np.asarray(widened(x, kind).prod()), kind)


def _running(name: str, function: Reduction, what: str) -> Reduction:
    def call(x: Array, dim: int, dtype: int | None, out: Array) -> Array:
        kind = _sum_type(x, dtype, out)
        axis = axis_of(dim, x.ndim)
        wide = widened(x, kind)
        return rounded(function(wide, axis) if x.ndim else wide, kind)

    return documented(call, name, f"Running {what} along a dimension; integers and bools in int64.")


kernel("aten::cumsum.out")(_running("cumsum", np.cumsum, "sums"))
kernel("aten::cumprod.out")(_running("cumprod", np.cumprod, "products"))


# -- extremes --------------------------------------------------------------------------------------

Reduction = Callable[..., Array]


def _extreme(name: str, reduce: Reduction) -> Reduction:
    def call(x: Array, dim: Sequence[int], keepdim: bool, out: Array) -> Array:
        axes = axes_of(dim, x.ndim)
        nothing: dict[str, float] = {}
        if x.size == 0 and is_float(x.dtype):
            # ATen refuses this, but what it gives for logsumexp is made of it.
            nothing["initial"] = -np.inf if name == "max" else np.inf
        wide = widened(x, x.dtype)
        return rounded(np.asarray(reduce(wide, axes, keepdims=keepdim, **nothing)), x.dtype)

    return documented(call, f"a{name}", f"The {name}imum over dimensions; NaN propagates.")


def _extreme_all(name: str, reduce: Reduction) -> Reduction:
    def call(x: Array, out: Array) -> Array:
        return rounded(np.asarray(reduce(widened(x, x.dtype))), x.dtype)

    return documented(call, name, f"The {name}imum of all elements; NaN propagates.")


def _extreme_with_index(name: str, argument: Reduction) -> Callable[..., tuple[Array, Array]]:
    def call(x: Array, dim: int, keepdim: bool, out: Array, indices: Array) -> tuple[Array, Array]:
        index = _argument(x, dim, True, argument)
        value = np.take_along_axis(at_least_1d(x), at_least_1d(index), axis_of(dim, x.ndim))
        shape = index.shape if keepdim else _without(x.shape, dim)
        return value.reshape(shape), index.reshape(shape)

    doc = f"The {name}imum over one dimension, the first NaN if there is one, and its position."
    return documented(call, f"{name}_dim", doc)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    if not shape:
        return ()
    axis = axis_of(dim, len(shape))
    return shape[:axis] + shape[axis + 1 :]


def _argument(x: Array, dim: int | None, keepdim: bool, argument: Reduction) -> Array:
    wide = widened(x, x.dtype)
    if dim is None:
        value = np.asarray(argument(wide.reshape(-1)))
        return value.reshape((1,) * x.ndim if keepdim else ()).astype(INT64, copy=False)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return np.zeros((), INT64)
    value = np.asarray(argument(wide, axis, keepdims=keepdim))
    return value.astype(INT64, copy=False)


def _argument_kernel(name: str, argument: Reduction) -> Reduction:
    def call(x: Array, dim: int | None, keepdim: bool, out: Array) -> Array:
        return _argument(x, dim, keepdim, argument)

    doc = f"The position of the first {name[3:]}imum (of a NaN if there is one), as int64."
    return documented(call, name, doc)


for _name, _reduce, _position in (("max", np.max, np.argmax), ("min", np.min, np.argmin)):
    kernel(f"aten::a{_name}.out")(_extreme(_name, _reduce))
    kernel(f"aten::{_name}.unary_out")(_extreme_all(_name, _reduce))
    kernel(f"aten::{_name}.dim_{_name}", outs=2)(_extreme_with_index(_name, _position))
    kernel(f"aten::arg{_name}.out")(_argument_kernel(f"arg{_name}", _position))


# -- any -------------------------------------------------------------------------------------------


@kernel("aten::any.out")
def any_dim(x: Array, dim: int, keepdim: bool, out: Array) -> Array:
    """Whether any element along a dimension is non-zero."""
    return any_dims(x, [dim], keepdim, out)


@kernel("aten::any.dims_out")
def any_dims(x: Array, dim: Sequence[int] | None, keepdim: bool, out: Array) -> Array:
    """Whether any element over dimensions is non-zero; an empty list reduces nothing."""
    truth = widened(x, x.dtype) != 0
    if dim is not None and not len(dim):
        return np.asarray(truth)
    return np.asarray(truth.any(axes_of(dim, x.ndim), keepdims=keepdim))


@kernel("aten::any.all_out")
def any_all(x: Array, out: Array) -> Array:
    """Whether any element is non-zero."""
    return np.asarray((widened(x, x.dtype) != 0).any(), BOOL)


# -- variance --------------------------------------------------------------------------------------


def _moments(
    x: Array, dim: Sequence[int] | None, correction: float, keepdim: bool
) -> tuple[Array, Array]:
    if not is_float(x.dtype) and x.dtype.kind != "c":
        raise KernelError(f"var is not defined for {x.dtype}")
    axes = axes_of(dim, x.ndim)
    wide = widened(x, x.dtype)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    mean = wide.mean(axes, keepdims=True)
    centred = wide - mean
    squares = (centred * centred.conj()).real if x.dtype.kind == "c" else centred * centred
    of = squares.dtype.type
    divisor = max(0.0, count - correction) if count else 0.0
    variance = np.asarray(squares.sum(axes, keepdims=True) / of(divisor))
    if not keepdim:
        variance, mean = variance.squeeze(axes), mean.squeeze(axes)
    kind = x.dtype if x.dtype.kind != "c" else variance.dtype
    return rounded(variance, kind), rounded(np.asarray(mean), x.dtype)


@kernel("aten::var.out")
def var(x: Array, dim: Sequence[int] | None, unbiased: bool, keepdim: bool, out: Array) -> Array:
    """The variance over dimensions, over n - 1 if ``unbiased``, else over n."""
    return _moments(x, dim, 1.0 if unbiased else 0.0, keepdim)[0]


@kernel("aten::var.correction_out")
def var_correction(
    x: Array, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool, out: Array
) -> Array:
    """The variance over dimensions, over n - correction (1 if None)."""
    return _moments(x, dim, 1.0 if correction is None else float(correction), keepdim)[0]


@kernel("aten::var_mean.correction_out", outs=2)
def var_mean(
    x: Array,
    dim: Sequence[int] | None,
    correction: Scalar | None,
    keepdim: bool,
    out: Array,
    mean_out: Array,
) -> tuple[Array, Array]:
    """The variance over dimensions, over n - correction (1 if None), and the mean."""
    return _moments(x, dim, 1.0 if correction is None else float(correction), keepdim)
