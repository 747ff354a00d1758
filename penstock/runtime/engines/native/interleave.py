"""The family ``interleave8``: an int8 image whose channels lie apart (NCHW) to one whose channels
lie together (NHWC)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import Structure, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind, TransposeAttributes
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop
from penstock.runtime.engines.native.rules import slower_interleave


class CInterleave(Structure):
    """``struct pk_interleave8``."""

    _fields_ = [
        ("isa", c_uint32),
        ("batch", c_size_t),
        ("planes", c_size_t),
        ("pixels", c_size_t),
        ("threads", c_size_t),
    ]


class CInterleaveTask(Structure):
    """``struct pk_interleave8_task``."""

    _fields_ = [("interleave", CInterleave), ("input", c_void_p), ("output", c_void_p)]


@dataclass(frozen=True)
class Interleave:
    """A node; there is nothing to pack."""

    node: Node
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        batch, planes, *image = shapes[source]
        isa, threads = int(self.workshop.library.isa), self.workshop.threads
        interleave = CInterleave(isa, batch, planes, math.prod(image), threads)
        task = CInterleaveTask(interleave, None, None)
        return Step("pk_interleave8_run", task, ((source, "input"), (result, "output")))


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    a = node.attributes
    assert isinstance(a, TransposeAttributes)
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    if source.dtype is not DataType.QINT8 or result.dtype is not DataType.QINT8:
        return "it is not int8"
    if source.data is not None or tuple(a.perm) != (0, 2, 3, 1):
        return "it does not bring channels together"
    return lambda workshop: Interleave(node, workshop)


FAMILY = Family(
    "interleave8",
    frozenset({NodeKind.STATIC_TRANSPOSE}),
    examine,
    slower_interleave,
    {"pk_interleave8_run": (None, (c_void_p, c_void_p))},
)
