"""Element types and how they are quantized: one row for each :class:`DataType`.

The facts are those of ExecuTorch's ``backends/xnnpack/serialization/schema.fbs`` and of
``xnnpack.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np


class DataType(IntEnum):
    """``xnn_datatype`` with the numbers of the payload schema."""

    FP32 = 1
    FP16 = 2
    QINT8 = 3
    QUINT8 = 4
    QINT32 = 5
    QCINT8 = 6
    QCINT32 = 7
    QCINT4 = 8
    QDINT8 = 9
    QBINT4 = 10
    QPINT8 = 11
    INT32 = 12
    PFP32 = 13
    BF16 = 14

    #: the type's row in :data:`ELEMENT_TYPES`, set below it
    traits: ElementType


@dataclass(frozen=True)
class PerTensor:
    """real = scale * (q - zero_point), one pair for the whole tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class PerChannel:
    """One float32 scale for each index of dimension ``axis``; zero point 0 (8 for QCINT4)."""

    scales: np.ndarray
    axis: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PerChannel)
            and self.axis == other.axis
            and np.array_equal(self.scales, other.scales)
        )

    def __hash__(self) -> int:
        return hash((self.axis, self.scales.tobytes()))


@dataclass(frozen=True)
class PerToken:
    """Quantized at run time, one pair for each row of the last ``nonbatch_dims`` dimensions."""

    nonbatch_dims: int


@dataclass(frozen=True, eq=False)
class Blockwise:
    """One bfloat16 scale (raw uint16) for each ``block_size`` elements along a row."""

    scales: np.ndarray
    axis: int
    block_size: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Blockwise)
            and (self.axis, self.block_size) == (other.axis, other.block_size)
            and np.array_equal(self.scales, other.scales)
        )

    def __hash__(self) -> int:
        return hash((self.axis, self.block_size, self.scales.tobytes()))


#: Two quantizations are the same if they compare equal, whatever objects hold their scales.
Quantization: TypeAlias = "PerTensor | PerChannel | PerToken | Blockwise"


@dataclass(frozen=True)
class ElementType:
    """What is true of all tensors of a type.

    ``bits`` of an element; None for types that are never in a file. ``array`` is the NumPy type of
    a delegate's inputs and outputs of the type; None where it cannot be one. ``quantized`` is the
    class of the quantization that a value of the type has, None for plain numbers;
    ``zero_points`` are those that a ``PerTensor`` one may have. ``constant``: a value may hold
    data, ``weight``: it must (filters and biases).
    """

    bits: int | None = None
    array: np.dtype[Any] | None = None
    quantized: type | None = None
    zero_points: range = range(1)
    constant: bool = True
    weight: bool = False

    @property
    def alignment(self) -> int:
        """Bytes to which XNNPACK aligns constants of the type: those of an element."""
        return (self.bits or 8) // 8 or 1


def _array(name: str) -> np.dtype[Any]:
    return np.dtype(name)


ELEMENT_TYPES: Mapping[DataType, ElementType] = {
    DataType.FP32: ElementType(32, _array("float32")),
    DataType.FP16: ElementType(16, _array("float16")),
    # NumPy has no bfloat16: its bits.
    DataType.BF16: ElementType(16, _array("uint16")),
    DataType.INT32: ElementType(32, _array("int32")),
    DataType.QINT8: ElementType(8, _array("int8"), PerTensor, range(-128, 128)),
    DataType.QUINT8: ElementType(8, _array("uint8"), PerTensor, range(256)),
    DataType.QINT32: ElementType(32, _array("int32"), PerTensor, weight=True),
    DataType.QCINT8: ElementType(8, None, PerChannel, weight=True),
    DataType.QCINT32: ElementType(32, None, PerChannel, weight=True),
    DataType.QCINT4: ElementType(4, None, PerChannel, weight=True),
    DataType.QBINT4: ElementType(4, None, Blockwise, weight=True),
    DataType.QDINT8: ElementType(8, None, PerToken, constant=False),
    DataType.QPINT8: ElementType(None, None, PerToken, constant=False),
    DataType.PFP32: ElementType(None, constant=False),
}

for _dtype, _traits in ELEMENT_TYPES.items():
    _dtype.traits = _traits
