"""Values of methods and of delegates' graphs, described."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from penstock.formats.program import (
    BoolList,
    DoubleList,
    Dynamism,
    IntList,
    Method,
    OptionalTensorList,
    Tensor,
    TensorList,
)
from penstock.formats.program import Value as MethodValue
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import Value as GraphValue


@dataclass(frozen=True)
class QuantizationDescription:
    """How integers stand for reals.

    ``kind`` is ``per tensor`` (one scale and zero point), ``per channel`` (a scale for each index
    of dimension ``axis``), ``per block`` (one for each ``block_size`` elements along a row) or
    ``per token`` (found at run time for each row of the last ``axis`` dimensions; no scales).
    ``scales`` has all of those of channels; blocks, of which there may be millions, are counted
    in ``count`` alone, with the ``least`` and ``largest``.
    """

    kind: str
    zero_point: int = 0
    count: int = 0
    least: float = 0.0
    largest: float = 0.0
    axis: int | None = None
    block_size: int | None = None
    scales: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.kind == "per tensor":
            return f"scale {self.least:.6g}, zero point {self.zero_point}"
        if self.kind == "per token":
            return "per token, at run time"
        return f"{self.count} scales {self.kind}, {self.least:.4g} to {self.largest:.4g}"


@dataclass(frozen=True)
class ValueDescription:
    """A value by its number ``id`` in the method (or, as ``penstock.graph`` numbers them, in the
    delegate's graph).

    ``kind`` is ``input``, ``output``, ``constant``, ``state`` (kept from call to call),
    ``intermediate``, or what is no tensor: ``scalar``, ``list``. ``shape`` holds upper bounds where
    ``dynamic`` is true. ``bytes`` are those of the upper bounds, ``text`` says all of it in one
    line. ``view_of`` is the value in whose memory this one lies, where no instruction writes it.
    """

    id: int
    kind: str
    text: str
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    dynamic: bool = False
    dim_order: tuple[int, ...] | None = None
    bytes: int = 0
    name: str = ""
    external: bool = False
    quantization: QuantizationDescription | None = None
    external_id: int | None = None
    items: tuple[int, ...] = ()
    view_of: int | None = None


def method_values(
    method: Method,
    quantizations: Mapping[int, QuantizationDescription],
    states: Collection[int],
    views: Mapping[int, int],
) -> tuple[ValueDescription, ...]:
    """All values of a method; ``quantizations`` has what is known of them by value number,
    ``states`` are the numbers of those that keep what they hold until the next call, and ``views``
    has what views are views of."""
    inputs, outputs = frozenset(method.inputs), frozenset(method.outputs)
    return tuple(
        _method_value(
            number,
            value,
            "input" if number in inputs
            else "state" if number in states
            else "output" if number in outputs
            else "intermediate",
            quantizations.get(number),
            views.get(number),
        )
        for number, value in enumerate(method.values)
    )  # fmt: skip


def _method_value(
    number: int,
    value: MethodValue,
    kind: str,
    quantization: QuantizationDescription | None,
    view_of: int | None,
) -> ValueDescription:
    """A value; ``kind`` is what it is, if it is a tensor and not constant."""
    if not isinstance(value, Tensor):
        ends = kind in ("input", "output")
        if isinstance(value, (IntList, DoubleList, BoolList, TensorList, OptionalTensorList)):
            items = value.items if isinstance(value, (TensorList, OptionalTensorList)) else ()
            text = f"{list(value.items)}"
            return ValueDescription(number, kind if ends else "list", text, items=items)
        return ValueDescription(number, kind if ends else "scalar", repr(value))
    if kind != "input" and is_constant(value):
        kind = "constant"
    dtype, dynamic = value.dtype.name.lower(), value.dynamism is not Dynamism.STATIC
    order = value.dim_order
    if order is not None and list(order) == sorted(order):
        order = None
    return ValueDescription(
        number,
        kind,
        _text(dtype, value.shape, dynamic, order, quantization),
        dtype,
        value.shape,
        dynamic,
        order,
        value.nbytes,
        value.name or "",
        value.external,
        quantization,
        view_of=view_of,
    )


def is_constant(value: MethodValue) -> bool:
    """Whether the value is a tensor that no instruction changes."""
    return (
        isinstance(value, Tensor)
        and value.allocation is None
        and (value.data is not None or value.external)
    )


def _text(
    dtype: str,
    shape: tuple[int, ...],
    dynamic: bool,
    order: tuple[int, ...] | None,
    quantization: QuantizationDescription | None,
) -> str:
    bound = " at most" if dynamic else ""
    layout = "" if order is None else f" dim order {list(order)}"
    scales = "" if quantization is None else f", {quantization}"
    return f"{dtype} {list(shape)}{bound}{layout}{scales}"


def graph_value(value: GraphValue) -> ValueDescription:
    """A value of a delegate's graph."""
    kind = (
        "input" if value.is_input
        else "output" if value.is_output
        else "constant" if value.data is not None
        else "intermediate"
    )  # fmt: skip
    dtype = value.dtype.name.lower()
    size = (math.prod(value.shape) * (value.dtype.traits.bits or 8) + 7) // 8
    return ValueDescription(
        value.id,
        kind,
        f"{dtype}{list(value.shape)}",
        dtype,
        tuple(value.shape),
        bytes=size,
        quantization=quantization_of(value),
        external_id=value.external_id,
    )


def quantization_of(value: GraphValue) -> QuantizationDescription | None:
    """How a value of the graph is quantized, if it is."""
    quantization = value.quantization
    if quantization is None:
        return None
    if isinstance(quantization, PerTensor):
        scale = float(quantization.scale)
        return QuantizationDescription("per tensor", quantization.zero_point, 1, scale, scale)
    if isinstance(quantization, PerToken):
        return QuantizationDescription("per token", axis=quantization.nonbatch_dims)
    scales = quantization.scales
    if isinstance(quantization, Blockwise):
        # bfloat16: the upper half of a float32
        scales = (scales.astype(np.uint32) << 16).view(np.float32)
    ends = (float(scales.min()), float(scales.max())) if scales.size else (0.0, 0.0)
    zero_point = 8 if value.dtype in (DataType.QCINT4, DataType.QBINT4) else 0
    if isinstance(quantization, PerChannel):
        return QuantizationDescription(
            "per channel", zero_point, scales.size, *ends, quantization.axis,
            scales=tuple(map(float, scales.ravel())),
        )  # fmt: skip
    return QuantizationDescription(
        "per block", zero_point, scales.size, *ends, quantization.axis, quantization.block_size
    )
