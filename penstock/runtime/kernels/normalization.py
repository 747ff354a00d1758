"""Layer, group and batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from penstock.runtime.kernels.common import Array, destination, is_float, rounded, widened
from penstock.runtime.kernels.registry import KernelError, kernel

Triple = tuple[Array, Array, Array]


def _need_float(x: Array) -> None:
    if not is_float(x.dtype):
        raise KernelError(f"normalization of {x.dtype}")


def _parameter(value: Array | None, count: tuple[int, ...], like: Array, default: float) -> Array:
    if value is None:
        return np.full(count, default, like.dtype)
    if value.shape != count:
        raise KernelError(f"a weight of shape {value.shape}, expected {count}")
    return value.astype(like.dtype, copy=False)


def _reciprocal_deviation(variance: Array, eps: float) -> Array:
    return np.asarray(1 / np.sqrt(variance + variance.dtype.type(eps)))


def _normalized_rows(rows: Array, eps: float, out: Array | None = None) -> Triple:
    """(x - mean) / sqrt(variance + eps) over the last dimension, and mean and 1 / sqrt(...)."""
    if rows.shape[-1] == 0:
        nan = np.full((*rows.shape[:-1], 1), np.nan, rows.dtype)
        return rows, np.zeros_like(nan), nan
    mean = rows.mean(-1, keepdims=True)
    value = np.subtract(rows, mean, out=out)
    variance = np.einsum("...i,...i->...", value, value)[..., None] / rows.dtype.type(
        rows.shape[-1]
    )
    rstd = _reciprocal_deviation(variance, eps)
    value *= rstd
    return value, mean, rstd


@kernel("aten::native_layer_norm.out", outs=3)
def native_layer_norm(
    x: Array,
    normalized_shape: Sequence[int],
    weight: Array | None,
    bias: Array | None,
    eps: float,
    out: Array,
    mean_out: Array,
    rstd_out: Array,
) -> Triple:
    """Normalizes over the last dimensions; also gives their mean and 1 / standard deviation."""
    _need_float(x)
    inner = tuple(normalized_shape)
    lead = x.ndim - len(inner)
    if not inner or lead < 0 or x.shape[lead:] != inner:
        raise KernelError(f"normalization over {inner} of the shape {x.shape}")
    wide = widened(x, x.dtype)
    rows = wide.reshape(*x.shape[:lead], math.prod(inner))
    target = destination(out, x.shape, wide.dtype)
    if target is not None and not target.flags.c_contiguous:
        target = None
    into = None if target is None else target.reshape(rows.shape)
    value, mean, rstd = _normalized_rows(rows, eps, into)
    value = value.reshape(x.shape)
    if weight is not None:
        value *= _parameter(weight, inner, wide, 1)
    if bias is not None:
        value += _parameter(bias, inner, wide, 0)
    shape = (*x.shape[:lead], *[1] * len(inner))
    done = out if into is not None and rows.shape[-1] else rounded(value, x.dtype)
    return done, mean.reshape(shape), rstd.reshape(shape)


@kernel("aten::native_group_norm.out", outs=3)
def native_group_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    batch: int,
    channels: int,
    plane: int,
    groups: int,
    eps: float,
    out: Array,
    mean_out: Array,
    rstd_out: Array,
) -> Triple:
    """Normalizes over groups of channels and all positions."""
    _need_float(x)
    if groups < 1 or channels % groups or x.size != batch * channels * plane or x.ndim < 2:
        raise KernelError(f"{groups} groups of {channels} channels in the shape {x.shape}")
    if x.shape[:2] != (batch, channels):
        raise KernelError(f"the shape {x.shape} is not that of {batch} x {channels}")
    wide = widened(x, x.dtype)
    rows = wide.reshape(batch, groups, channels // groups * plane)
    value, mean, rstd = _normalized_rows(rows, eps)
    value = value.reshape(batch, channels, plane)
    if weight is not None:
        value *= _parameter(weight, (channels,), wide, 1)[:, None]
    if bias is not None:
        value += _parameter(bias, (channels,), wide, 0)[:, None]
    shape = (batch, groups)
    return rounded(value.reshape(x.shape), x.dtype), mean.reshape(shape), rstd.reshape(shape)


# -- batch norm ------------------------------------------------------------------------------------

#: Elements of a block of channels that stays in the L2 cache between two steps.
_BLOCK = 1 << 16


def _scaled_channels(x: Array, scale: Array, shift: Array, out: Array) -> Array:
    """x * scale + shift with one scale and shift a channel (dimension 1, or 0 of a vector)."""
    if x.ndim < 2:
        return x * scale + shift
    target = destination(out, x.shape, x.dtype)
    result = np.empty_like(x) if target is None else target
    trailing = [1] * (x.ndim - 2)
    scales, shifts = scale.reshape(-1, *trailing), shift.reshape(-1, *trailing)
    channels = x.shape[1]
    step = max(1, _BLOCK * channels // max(1, x.size))
    for start in range(0, channels, step):
        block = slice(start, start + step)
        part = result[:, block]
        np.multiply(x[:, block], scales[block], out=part)
        part += shifts[block]
    return result


def _batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    rstd: Array,
    out: Array,
) -> Array:
    wide = widened(x, x.dtype)
    count = (x.shape[1 if x.ndim > 1 else 0],)
    if mean.shape != count or rstd.shape != count:
        raise KernelError(f"statistics of shape {mean.shape} for {count[0]} channels")
    scale = rstd.astype(wide.dtype) * _parameter(weight, count, wide, 1)
    shift = _parameter(bias, count, wide, 0) - mean.astype(wide.dtype) * scale
    return rounded(_scaled_channels(wide, scale, shift, out), x.dtype)


@kernel("aten::_native_batch_norm_legit_no_training.out", outs=3)
def batch_norm_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    momentum: float,
    eps: float,
    out: Array,
    mean_out: Array,
    rstd_out: Array,
) -> Triple:
    """Normalizes each channel by the running statistics."""
    _need_float(x)
    if x.ndim < 1:
        raise KernelError("batch norm of a zero-dimensional tensor")
    variance = widened(running_var, running_var.dtype)
    rstd = _reciprocal_deviation(variance, eps)
    mean = widened(running_mean, running_mean.dtype)
    empty = np.zeros(0, x.dtype)
    return _batch_norm(x, weight, bias, mean, rstd, out), empty, empty


@kernel("aten::_native_batch_norm_legit.out", outs=3)
def batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    training: bool,
    momentum: float,
    eps: float,
    out: Array,
    mean_out: Array,
    rstd_out: Array,
) -> Triple:
    """Normalizes each channel by the running statistics; training is refused."""
    if training:
        raise KernelError("batch norm in training mode, which would change its running statistics")
    return batch_norm_inference(
        x, weight, bias, running_mean, running_var, momentum, eps, out, mean_out, rstd_out
    )


@kernel("aten::_native_batch_norm_legit.no_stats_out", outs=3)
def batch_norm_no_stats(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    training: bool,
    momentum: float,
    eps: float,
    out: Array,
    mean_out: Array,
    rstd_out: Array,
) -> Triple:
    """Normalizes each channel by its own mean and variance in the batch."""
    _need_float(x)
    if x.ndim < 2:
        raise KernelError(f"batch norm of a tensor of rank {x.ndim}")
    wide = widened(x, x.dtype)
    over = (0, *range(2, x.ndim))
    mean = wide.mean(over)
    rstd = _reciprocal_deviation(wide.var(over), eps)
    return _batch_norm(x, weight, bias, mean, rstd, out), mean, rstd
