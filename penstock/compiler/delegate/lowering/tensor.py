"""Handles of tensors in a delegate under construction: shape, order in memory, constant values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from penstock.compiler.fx.layout import Order, Shape
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Value


class LoweringError(Exception):
    """A node that its entry accepted cannot be lowered after all; the message is the reason."""


@dataclass(frozen=True)
class ConstantQuantization:
    """How an integer constant stands for real numbers: ``scale`` and ``zero_point`` are float32
    and integer tensors, of one element (``axis`` None), one for each index of ``axis``, or one
    for each ``block`` elements of a matrix's row, [rows, columns / block]."""

    scale: torch.Tensor
    zero_point: torch.Tensor
    axis: int | None
    block: int | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor in the making.

    ``shape`` is logical. A placed tensor has a payload ``value`` that holds it in ``order``;
    where it is lazily expanded, ``stored`` has size 1 and ``shape`` the full size. A constant
    (``constant``, in logical shape) is placed only when a node uses it.
    """

    shape: Shape
    order: Order
    stored: Shape
    value: Value | None = None
    constant: torch.Tensor | None = None
    constant_quantization: ConstantQuantization | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_constant(self) -> bool:
        return self.constant is not None

    @property
    def is_expanded(self) -> bool:
        return self.stored != self.shape

    def real(self) -> torch.Tensor:
        """The constant's values in floating point."""
        assert self.constant is not None
        if self.constant_quantization is None:
            return self.constant
        return dequantize_constant(self.constant, self.constant_quantization)


def dequantize_constant(data: torch.Tensor, quantization: ConstantQuantization) -> torch.Tensor:
    scale, zero_point = quantization.scale, quantization.zero_point
    if quantization.block is not None:
        scale = scale.repeat_interleave(quantization.block, 1)
        zero_point = zero_point.repeat_interleave(quantization.block, 1)
    elif quantization.axis is not None:
        view = [1] * data.dim()
        view[quantization.axis] = -1
        scale, zero_point = scale.view(view), zero_point.view(view)
    return (data.to(torch.float32) - zero_point.to(torch.float32)) * scale.to(torch.float32)


FLOAT_TYPES: dict[torch.dtype, DataType] = {
    torch.float32: DataType.FP32,
    torch.float16: DataType.FP16,
    torch.bfloat16: DataType.BF16,
}
EXTERNAL_TYPES: dict[torch.dtype, DataType] = {
    torch.float32: DataType.FP32,
    torch.float16: DataType.FP16,
    torch.int8: DataType.QINT8,
    torch.uint8: DataType.QUINT8,
}
