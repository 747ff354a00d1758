"""The family ``f32_mean``: means over the pixels of fp32 images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import Structure, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.costs import mean_gain
from penstock.runtime.engines.native.family import Family, Packer, Step, Values
from penstock.runtime.engines.native.rules import no_vectors


class CTask(Structure):
    """``struct pk_f32_mean_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("min", c_float),
        ("max", c_float),
        ("images", c_size_t),
        ("pixels", c_size_t),
        ("channels", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


@dataclass(frozen=True)
class Mean:
    """A node; it has no weights."""

    node: Node
    isa: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        *batch, height, width, channels = shapes[source]
        clamp = self.node.clamp or (-math.inf, math.inf)
        task = CTask(self.isa, *clamp, math.prod(batch), height * width, channels)
        return Step("pk_f32_mean_run", task, ((source, "input"), (result, "output")))


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    if any(values[i].dtype is not DataType.FP32 for i in (*node.inputs, *node.outputs)):
        return "it is not all float32"
    return lambda workshop: Mean(node, int(workshop.library.isa))


FAMILY = Family(
    "f32_mean",
    frozenset({NodeKind.GLOBAL_AVG_POOLING_2D}),
    examine,
    no_vectors,
    {"pk_f32_mean_run": (None, (c_void_p, c_void_p))},
    gain=mean_gain,
)
