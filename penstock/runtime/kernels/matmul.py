"""Matrix products, by BLAS for floating types, and distances between rows."""

from __future__ import annotations

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.common import (
    SCRATCH_BYTES,
    Array,
    DType,
    Scalar,
    destination,
    is_float,
    promote,
    rounded,
    widened,
)
from penstock.runtime.kernels.registry import KernelError, kernel, reserve


def _common(*tensors: Array) -> DType:
    dtype: DType = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = promote(dtype, tensor.dtype)
    if dtype.kind == "b":
        raise KernelError("a matrix product of bools")
    return dtype


def _product(a: Array, b: Array, dtype: DType, out: Array) -> Array:
    """a @ b in the arithmetic type of ``dtype``, in ``out`` where that fits."""
    x, y = widened(a, dtype), widened(b, dtype)
    shape = (*x.shape[:-1], y.shape[-1])
    target = destination(out, shape, x.dtype)
    return np.asarray(matmul(x, y, out=target))


@kernel("aten::mm.out")
def mm(a: Array, b: Array, out: Array) -> Array:
    """The product of two matrices."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise KernelError(f"no product of the shapes {a.shape} and {b.shape}")
    dtype = _common(a, b)
    return rounded(_product(a, b, dtype, out), dtype)


@kernel("aten::bmm.out")
def bmm(a: Array, b: Array, out: Array) -> Array:
    """The products of two batches of matrices."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise KernelError(f"no batched product of the shapes {a.shape} and {b.shape}")
    dtype = _common(a, b)
    return rounded(_product(a, b, dtype, out), dtype)


@kernel("aten::addmm.out")
def addmm(bias: Array, a: Array, b: Array, beta: Scalar, alpha: Scalar, out: Array) -> Array:
    """beta * bias + alpha * (a @ b); the bias is not read when beta is 0."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise KernelError(f"no product of the shapes {a.shape} and {b.shape}")
    dtype = _common(bias, a, b)
    apart = out if not np.may_share_memory(out, bias) else np.empty(0, out.dtype)
    value = _product(a, b, dtype, apart)
    if alpha != 1:
        value *= widened(alpha, dtype)
    if beta != 0:
        addend = widened(bias, dtype)
        value += addend if beta == 1 else addend * widened(beta, dtype)
    return rounded(value, dtype)


@kernel("aten::linear.out")
def linear(x: Array, weight: Array, bias: Array | None, out: Array) -> Array:
    """x @ weight.T + bias over the last dimension."""
    if x.ndim == 0 or weight.ndim not in (1, 2) or x.shape[-1] != weight.shape[-1]:
        raise KernelError(f"no linear map of the shapes {x.shape} and {weight.shape}")
    dtype = _common(x, weight)
    matrix = weight.reshape(-1, weight.shape[-1])
    shape = (*x.shape[:-1], matrix.shape[0])
    target = destination(out, shape, dtype)
    if target is None or not target.flags.c_contiguous:
        target = np.empty(0, dtype)
    # One product of two matrices, whatever the rank of x. Views are writable through reshape.
    flat = target.reshape(-1, matrix.shape[0]) if target.shape == shape else target
    value = _product(x.reshape(-1, x.shape[-1]), matrix.T, dtype, flat)
    if bias is not None:
        value += widened(bias, dtype)
    if value is flat:
        return out
    result = rounded(value, dtype)
    return result.reshape(shape if weight.ndim == 2 else x.shape[:-1])


# -- distances -------------------------------------------------------------------------------------


def _norms(difference: Array, p: float) -> Array:
    """The p-norms over the last dimension; overwrites its argument."""
    size = np.abs(difference, out=difference)
    if size.shape[-1] == 0:
        return np.zeros(size.shape[:-1], size.dtype)
    if p == 0:
        return np.asarray(np.minimum(np.ceil(size), 1).sum(-1))  # NaN stays
    if p == np.inf:
        return np.asarray(np.fmax.reduce(size, -1, initial=0))  # NaN is passed over
    if p == 1:
        return np.asarray(size.sum(-1))
    if p == 2:
        return np.asarray(np.sqrt(np.einsum("...i,...i->...", size, size)))
    of = size.dtype.type
    return np.asarray(np.power(np.power(size, of(p)).sum(-1), of(1 / p)))


def _check_distance(x: Array, p: float) -> None:
    if not is_float(x.dtype):
        raise KernelError(f"distances of type {x.dtype}")
    if not p >= 0:
        raise KernelError(f"a norm of order {p}")


@kernel("aten::_cdist_forward.out")
def cdist(a: Array, b: Array, p: float, compute_mode: int | None, out: Array) -> Array:
    """The distance of each row of a from each row of b, in the p-norm, batched."""
    _check_distance(a, p)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise KernelError(f"no distances of the shapes {a.shape} and {b.shape}")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = np.empty(reserve((*batch, a.shape[-2], b.shape[-2]), out), out.dtype)
    x = np.broadcast_to(widened(a, a.dtype), batch + a.shape[-2:])
    y = np.broadcast_to(widened(b, a.dtype), batch + b.shape[-2:])
    step = max(1, SCRATCH_BYTES // max(1, y.shape[-2] * y.shape[-1] * y.itemsize))
    for index in np.ndindex(*batch):
        for start in range(0, x.shape[-2], step):
            rows = x[index][start : start + step, None, :] - y[index][None]
            result[index][start : start + step] = _norms(rows, p)
    return result


@kernel("aten::_pdist_forward.out")
def pdist(x: Array, p: float, out: Array) -> Array:
    """The distances of all pairs of different rows in the p-norm, the upper triangle row by row."""
    _check_distance(x, p)
    if x.ndim != 2:
        raise KernelError(f"pdist of a tensor of rank {x.ndim}")
    count = x.shape[0]
    result = np.empty(reserve([count * (count - 1) // 2], out), out.dtype)
    wide = widened(x, x.dtype)
    at = 0
    for i in range(count - 1):
        rows = wide[i + 1 :] - wide[i]
        result[at : at + len(rows)] = _norms(rows, p)
        at += len(rows)
    return result
