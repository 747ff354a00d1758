"""The families ``f32_quantize`` and ``f32_dequantize``: float32 to int8 with one scale and zero
point, and back, with the bits of XNNPACK's; and ``copy``: another shape of the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from ctypes import Structure, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.costs import conversion_gain, shape_gain
from penstock.runtime.engines.native.family import Family, Packer, Step, Values
from penstock.runtime.engines.native.integers import float32
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.rules import no_vectors

#: What may get another shape, and the bytes of an element.
_COPIED = {DataType.QINT8: 1, DataType.FP32: 4}


class CConvert(Structure):
    """``struct pk_f32_quantize_task``, ``struct pk_f32_dequantize_task``. ``factor``: the scale, or
    its inverse."""

    _fields_ = [
        ("isa", c_uint32),
        ("factor", c_float),
        ("zero_point", c_int32),
        ("count", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CCopy(Structure):
    """``struct pk_copy_task``."""

    _fields_ = [("size", c_size_t), ("input", c_void_p), ("output", c_void_p)]


@dataclass(frozen=True)
class Conversion:
    """A node; it has no weights."""

    node: Node
    function: str
    isa: int
    factor: float
    zero_point: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        task = CConvert(self.isa, self.factor, self.zero_point, math.prod(shapes[source]))
        return Step(self.function, task, ((source, "input"), (result, "output")))


@dataclass(frozen=True)
class Copy:
    """A node that gives bytes another shape; mostly they stay where they are."""

    node: Node
    itemsize: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        task = CCopy(math.prod(shapes[result]) * self.itemsize)
        fields = ((source, "input"), (result, "output"))
        return Step("pk_copy_run", task, fields, same=(result, source))


def _against(node: Node, values: Values, read: DataType, written: DataType) -> str | None:
    """Why ``node`` does not turn what is computed from one type to another and no more."""
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    if (source.dtype, result.dtype) != (read, written):
        return f"it is not from {read.name} to {written.name}"
    if source.data is not None or node.clamp is not None or node.flags:
        return "it is of a constant, or has an output range or flags"
    return None


def examine_quantize(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    reason, q = _against(node, values, DataType.FP32, DataType.QINT8), _of(node.outputs, values)
    if reason or q is None:
        return reason or "it is not quantized as a whole"
    inverse, zero_point = float32(1 / float32(q.scale)), q.zero_point
    if math.isinf(inverse):
        return "its scale is too small"
    return lambda workshop: Conversion(
        node, "pk_f32_quantize_run", int(workshop.library.isa), inverse, zero_point
    )


def examine_dequantize(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    reason, q = _against(node, values, DataType.QINT8, DataType.FP32), _of(node.inputs, values)
    if reason or q is None:
        return reason or "it is not quantized as a whole"
    scale, zero_point = q.scale, q.zero_point
    return lambda workshop: Conversion(
        node, "pk_f32_dequantize_run", int(workshop.library.isa), scale, zero_point
    )


def _of(ids: tuple[int, ...], values: Values) -> PerTensor | None:
    found = values[ids[0]].quantization
    return found if isinstance(found, PerTensor) else None


def examine_copy(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    dtype = values[node.inputs[0]].dtype
    itemsize = _COPIED.get(dtype)
    if itemsize is None:
        return f"it is of {dtype.name}"
    reason = _against(node, values, dtype, dtype)
    if reason or _of(node.inputs, values) != _of(node.outputs, values):
        return reason or "its input and output are quantized differently"
    return lambda _: Copy(node, itemsize)


def _family(
    name: str,
    kind: NodeKind,
    examine: Callable[[Node, Values], Packer | str],
    gain: Callable[[Node, Values, Library], float | None],
) -> Family:
    prototypes = {f"pk_{name}_run": (None, (c_void_p, c_void_p))}
    return Family(name, frozenset({kind}), examine, no_vectors, prototypes, gain=gain)


FAMILIES = (
    _family("f32_quantize", NodeKind.CONVERT, examine_quantize, conversion_gain),
    _family("f32_dequantize", NodeKind.CONVERT, examine_dequantize, conversion_gain),
    _family("copy", NodeKind.STATIC_RESHAPE, examine_copy, shape_gain),
)
