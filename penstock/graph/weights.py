"""Constant weights in every format that a payload has: real values, selection, scaling, packing.

A weight is a constant :class:`Value` whose first dimension is that of the output channels, unless
its quantization says another axis. Formats:

- FP32: the numbers themselves;
- QINT8, QINT32: one scale and zero point;
- QCINT8, QCINT32: a scale for each channel;
- QCINT4: a scale for each channel, two elements in a byte;
- QBINT4: a bfloat16 scale for each block of a row, two elements in a byte.

4-bit elements are stored as 0 to 15 and stand for -8 to 7, the one of the even index in the low
half of a byte (``xnn_datatype_qcint4`` and ``xnn_datatype_qbint4`` of ``xnnpack.h``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.graph.dtypes import (
    Blockwise,
    DataType,
    PerChannel,
    PerTensor,
    Quantization,
)
from penstock.graph.graph import Value

#: What the elements of 4-bit weights are stored with.
ZERO_POINT_4_BIT = 8


class WeightFormatError(Exception):
    """A weight has no form for what is asked: a fault of whoever asks, never a silent float32."""


def integers(value: Value) -> np.ndarray:
    """The elements of a constant as they count: 4-bit ones unpacked to int8 of -8 to 7, all others
    as they are stored. Shape ``value.shape``."""
    if value.data is None:
        raise WeightFormatError(f"value {value.id} is no constant")
    traits = value.dtype.traits
    if traits.bits != 4:
        if isinstance(value.data, np.ndarray):
            return value.data
        stored = traits.array or np.dtype(f"int{traits.bits}")
        return np.frombuffer(value.data, stored).reshape(value.shape)
    data = np.asarray(value.data)
    packed = np.frombuffer(data, np.uint8).reshape(value.shape[0], -1)
    pairs = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.int8)
    return (pairs - ZERO_POINT_4_BIT).reshape(value.shape)


def packed(elements: np.ndarray, dtype: DataType) -> np.ndarray:
    """The inverse of :func:`integers`: elements as ``dtype`` stores them; of 4-bit types uint8
    [rows, columns / 2]."""
    if dtype.traits.bits != 4:
        return np.ascontiguousarray(elements)
    if elements.ndim != 2 or elements.shape[1] % 2:
        raise WeightFormatError(f"{dtype.name} is for matrices of even width, not {elements.shape}")
    nibbles = (elements + ZERO_POINT_4_BIT).astype(np.uint8)
    return np.ascontiguousarray(nibbles[:, ::2] | nibbles[:, 1::2] << 4)


def narrowed(value: Value) -> Value:
    """A new constant, or the same: a QCINT8 matrix whose elements have 4 bits as QCINT4."""
    if value.dtype is not DataType.QCINT8 or len(value.shape) != 2 or value.shape[1] % 2:
        return value
    elements = integers(value)
    if elements.min(initial=0) < -8 or elements.max(initial=0) > 7:
        return value
    return replace(value, dtype=DataType.QCINT4, data=packed(elements, DataType.QCINT4))


def real(value: Value) -> np.ndarray:
    """The real numbers that a constant stands for, float32 of ``value.shape``."""
    elements, quantization = integers(value), value.quantization
    if quantization is None:
        return elements.astype(np.float32, copy=False)
    if isinstance(quantization, PerTensor):
        shifted = elements.astype(np.float32) - np.float32(quantization.zero_point)
        return (shifted * np.float32(quantization.scale)).astype(np.float32)
    scales = scales_like(value)
    result: np.ndarray = elements.astype(np.float32) * scales
    return result


def scales_like(value: Value) -> np.ndarray:
    """The scales of a weight, float32, in a shape that broadcasts to the weight's."""
    quantization = value.quantization
    if isinstance(quantization, PerTensor):
        return np.full((1,) * len(value.shape), quantization.scale, np.float32)
    if isinstance(quantization, PerChannel):
        view = [1] * len(value.shape)
        view[quantization.axis] = -1
        return quantization.scales.reshape(view)
    if isinstance(quantization, Blockwise):
        rows = bfloat16_to_float(quantization.scales).reshape(value.shape[0], -1)
        return rows.repeat(quantization.block_size, axis=1)
    raise WeightFormatError(f"a {value.dtype.name} value has no scales")


def selected(value: Value, rows: np.ndarray) -> Value:
    """A new constant: the output channels ``rows`` (indices) of a weight or bias whose channels lie
    along the first dimension. A run of rows of whole bytes is a view of the data."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    run = len(rows) == last - first and bool((np.diff(rows) == 1).all())
    pick = slice(first, last) if run else rows
    data = np.asarray(value.data)
    if value.dtype.traits.bits == 4:
        data = np.frombuffer(data, np.uint8).reshape(value.shape[0], -1)
    quantization: Quantization | None = value.quantization
    if isinstance(quantization, PerChannel):
        if quantization.axis != 0:
            raise WeightFormatError(f"channels lie along dimension {quantization.axis}")
        quantization = replace(quantization, scales=np.ascontiguousarray(quantization.scales[rows]))
    elif isinstance(quantization, Blockwise):
        blocks = quantization.scales.reshape(value.shape[0], -1)[rows]
        quantization = replace(quantization, scales=np.ascontiguousarray(blocks).reshape(-1))
    chosen = data[pick] if run else np.ascontiguousarray(data[pick])
    shape = (len(rows), *value.shape[1:])
    return Value(0, value.dtype, shape, quantization, chosen)


def scaled(value: Value, factor: np.ndarray, axis: int) -> Value | None:
    """A new constant: a weight or bias times ``factor``, which is [1] or [channels along ``axis``].
    Of quantized ones the scales are multiplied; None where the format cannot hold the result (a
    factor that is not positive, a factor for each channel and one scale for all, a bfloat16 scale
    that would be rounded)."""
    quantization = value.quantization
    if quantization is None:
        if value.dtype is not DataType.FP32:
            raise WeightFormatError(f"{value.dtype.name} weights are not multiplied")
        view = [1] * len(value.shape)
        view[axis] = -1
        along = factor if factor.size == 1 else factor.reshape(view)
        product = (np.asarray(value.data) * along).astype(np.float32)
        return Value(0, value.dtype, value.shape, None, product)
    if not (factor > 0).all() or isinstance(quantization, Blockwise):
        return None
    if isinstance(quantization, PerChannel):
        if factor.size > 1 and (factor.size, axis) != (quantization.scales.size, quantization.axis):
            return None
        scales = (quantization.scales * factor).astype(np.float32)
        return replace(value, quantization=replace(quantization, scales=scales))
    if isinstance(quantization, PerTensor) and factor.size == 1:
        scale = quantization.scale * float(factor[0])
        return replace(value, quantization=replace(quantization, scale=scale))
    return None


def bfloat16_to_float(raw: np.ndarray) -> np.ndarray:
    """bfloat16 bits (uint16) as float32, exactly."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def float_to_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """float32 as bfloat16 bits (uint16), rounded to the nearest, halves to even."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
