"""The family ``qs8_mean``: means over the pixels of int8 images, with the bits of XNNPACK's.

They stand between convolutions (squeeze and excitation), so that without them a graph is cut there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import Structure, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop
from penstock.runtime.engines.native.integers import float32
from penstock.runtime.engines.native.rules import slower_mean_int8

#: Sums of more pixels are not exact in float32.
_MAX_PIXELS = 1 << 17
#: Factors between this and its inverse give numbers that fit an int32.
_MAX_FACTOR = 1 << 16


class CTask(Structure):
    """``struct pk_qs8_mean_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("scale", c_float),
        ("zero_point", c_float),
        ("images", c_size_t),
        ("pixels", c_size_t),
        ("channels", c_size_t),
        ("threads", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


@dataclass(frozen=True)
class Mean:
    """A node. ``factor`` is the input's scale over the output's."""

    node: Node
    factor: float
    zero_points: tuple[int, int]
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        *batch, height, width, channels = shapes[source]
        pixels = height * width
        # In XNNPACK's order.
        scale = float32(self.factor * float32(1.0 / pixels))
        zero_point = float32(self.zero_points[1] - float32(pixels * self.zero_points[0] * scale))
        task = CTask(
            int(self.workshop.library.isa), scale, zero_point,
            math.prod(batch), pixels, channels, self.workshop.threads,
        )  # fmt: skip
        return Step("pk_qs8_mean_run", task, ((source, "input"), (result, "output")))


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    read, written = source.quantization, result.quantization
    if source.dtype is not DataType.QINT8 or result.dtype is not DataType.QINT8:
        return "it is not int8"
    if source.data is not None or node.clamp is not None:
        return "it is of a constant, or has an output range"
    if math.prod(source.shape[-3:-1]) > _MAX_PIXELS:
        return f"it is over more than {_MAX_PIXELS} pixels"
    assert isinstance(read, PerTensor) and isinstance(written, PerTensor)
    factor = float32(float32(read.scale) / float32(written.scale))
    if not 1 / _MAX_FACTOR < factor < _MAX_FACTOR:
        return "its scales are far apart"
    zero_points = read.zero_point, written.zero_point
    return lambda workshop: Mean(node, factor, zero_points, workshop)


FAMILY = Family(
    "qs8_mean",
    frozenset({NodeKind.GLOBAL_AVG_POOLING_2D}),
    examine,
    slower_mean_int8,
    {"pk_qs8_mean_run": (None, (c_void_p, c_void_p))},
    overread=True,
)
