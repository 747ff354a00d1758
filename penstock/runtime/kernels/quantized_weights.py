"""Operators with quantized weights: embeddings of 8, 4 and 2 bits, and mixed matrix products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.common import FLOAT32, Array, documented, is_float, rounded, widened
from penstock.runtime.kernels.registry import KernelError, kernel, reserve
from penstock.runtime.mapped import take_rows


def _bytes(rows: Array) -> Array:
    """8 bits a value, signed or unsigned as the tensor is."""
    return rows.astype(FLOAT32)


def _nibbles(rows: Array) -> Array:
    """4 bits a value, the high half of a byte first, offset by 8."""
    pairs = np.stack([rows >> 4, rows & 15], -1)
    return pairs.reshape(*rows.shape[:-1], -1).astype(FLOAT32) - 8


def _crumbs(rows: Array) -> Array:
    """2 bits a value, the lowest of a byte first, offset by 2."""
    fours = np.stack([rows >> shift & 3 for shift in (0, 2, 4, 6)], -1)
    return fours.reshape(*rows.shape[:-1], -1).astype(FLOAT32) - 2


def _embedding(
    bits: int, unpack: Callable[[Array], Array], with_dtype: bool
) -> Callable[..., Array]:
    def call(
        weight: Array,
        scales: Array,
        zero_points: Array | None,
        low: int,
        high: int,
        indices: Array,
        *rest: Array | int | None,
    ) -> Array:
        out = rest[-1]
        if not isinstance(out, np.ndarray):
            raise KernelError("no out tensor")
        kinds = (np.uint8, np.int8) if bits == 8 else (np.uint8,)
        if weight.ndim != 2 or weight.dtype not in kinds or indices.dtype.kind not in "iu":
            raise KernelError(f"a table of {weight.dtype} with indices of {indices.dtype}")
        width = weight.shape[1] * (8 // bits)
        if scales.ndim not in (1, 2) or scales.shape[0] != weight.shape[0] or low > high:
            raise KernelError(f"scales of shape {scales.shape} for a table of {weight.shape}")
        groups = scales.shape[1] if scales.ndim == 2 else 1
        if groups == 0 or width % groups:
            raise KernelError(f"{groups} groups in rows of {width}")
        if zero_points is not None and zero_points.shape != scales.shape:
            raise KernelError(f"{zero_points.shape} zero points for {scales.shape} scales")
        if indices.size and (indices.min() < 0 or indices.max() >= weight.shape[0]):
            raise KernelError(f"an index outside of 0..{weight.shape[0] - 1}")
        reserve((*indices.shape, width), out)
        grouped = (*indices.shape, groups, width // groups)
        value = unpack(take_rows(weight, indices)).reshape(grouped)
        if zero_points is not None:
            value -= _per_group(zero_points, indices, groups)
        value *= _per_group(scales, indices, groups)
        return value.reshape(*indices.shape, width)

    name = f"embedding_{'byte' if bits == 8 else f'{bits}bit'}"
    doc = f"Rows of a table of {bits}-bit weights, dequantized by row or by group of columns."
    return documented(call, name, doc + (" The out tensor has the dtype." if with_dtype else ""))


def _per_group(values: Array, indices: Array, groups: int) -> Array:
    rows = values.reshape(values.shape[0], groups)[indices]
    return widened(rows, values.dtype).astype(FLOAT32, copy=False)[..., None]


for _bits, _name, _unpack in ((8, "byte", _bytes), (4, "4bit", _nibbles), (2, "2bit", _crumbs)):
    for _overload in ("out", "dtype_out"):
        kernel(f"quantized_decomposed::embedding_{_name}.{_overload}")(
            _embedding(_bits, _unpack, _overload == "dtype_out")
        )


def _check_mixed(x: Array, weight: Array, zero_points: Array | None) -> None:
    if x.ndim != 2 or weight.ndim != 2 or weight.dtype != np.int8 or not is_float(x.dtype):
        raise KernelError(f"a product of {x.dtype} {x.shape} and {weight.dtype} {weight.shape}")
    if zero_points is not None:
        raise KernelError("zero points are not supported")


@kernel("quantized_decomposed::mixed_mm.out")
def mixed_mm(
    x: Array, weight: Array, scales: Array, zero_points: Array | None, out: Array
) -> Array:
    """x @ (int8 weights with a scale for each row)."""
    _check_mixed(x, weight, zero_points)
    if x.shape[1] != weight.shape[0] or scales.shape != weight.shape[:1]:
        raise KernelError(f"shapes {x.shape}, {weight.shape} and {scales.shape}")
    # The scale of a weight's row is the scale of the input's column.
    wide = widened(x, x.dtype)
    scaled = wide * widened(scales, scales.dtype).astype(wide.dtype)
    return rounded(matmul(scaled, weight.astype(wide.dtype)), x.dtype)


@kernel("quantized_decomposed::mixed_linear.out")
def mixed_linear(
    x: Array,
    weight: Array,
    scales: Array,
    zero_points: Array | None,
    dtype: int | None,
    out: Array,
) -> Array:
    """x @ transposed (int8 weights with a scale for each row, or for groups of its columns)."""
    _check_mixed(x, weight, zero_points)
    outputs, depth = weight.shape
    if x.shape[1] != depth or scales.ndim not in (1, 2) or scales.shape[0] != outputs:
        raise KernelError(f"shapes {x.shape}, {weight.shape} and {scales.shape}")
    wide = widened(x, x.dtype)
    factors = widened(scales, scales.dtype).astype(wide.dtype)
    matrix = weight.astype(wide.dtype)
    if scales.ndim == 1:
        return np.asarray(matmul(wide, matrix.T) * factors)
    if scales.shape[1] == 0:
        raise KernelError("no groups")
    size = -(-depth // scales.shape[1])
    matrix *= np.repeat(factors, max(size, 1), 1)[:, :depth]
    return np.asarray(matmul(wide, matrix.T))
