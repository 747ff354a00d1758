"""The family ``lut8``: a chain of elementwise nodes between two int8 values is a function of one
byte, hence a table of 256. So is a single one that computes more than a product.

A SiLU between int8 values, four nodes that pass over float32, becomes one pass over bytes.
:mod:`penstock.runtime.engines.native.tables` makes the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import Structure, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.family import Family, Step, Values, Workshop
from penstock.runtime.engines.native.isa import VECTORS
from penstock.runtime.engines.native.library import Library


class CLut(Structure):
    """``struct pk_lut8``."""

    _fields_ = [("isa", c_uint32), ("count", c_size_t), ("threads", c_size_t)]


class CLutTask(Structure):
    """``struct pk_lut8_task``."""

    _fields_ = [("lut", CLut), ("table", c_void_p), ("input", c_void_p), ("output", c_void_p)]


@dataclass(frozen=True)
class Chain:
    """Nodes by their positions in the graph, in order; the value that they start from and the one
    that they come to."""

    nodes: tuple[int, ...]
    start: int
    end: int


#: Nodes that are a chain by themselves, if they are int8.
_SINGLE = frozenset(
    {
        NodeKind.ELU,
        NodeKind.EXP,
        NodeKind.GELU,
        NodeKind.HARDSWISH,
        NodeKind.LEAKY_RELU,
        NodeKind.SIGMOID,
        NodeKind.TANH,
    }
)


def chains(graph: XnnGraph, shapes: Mapping[int, Shape]) -> list[Chain]:
    """The chains in ``graph``, of whose values ``shapes`` are the bounds. Nothing outside a chain
    reads what its nodes make, but for the last one's."""
    if not any(value.dtype is DataType.QINT8 and value.data is None for value in graph.values):
        return []
    if not any(node.kind in _SINGLE or node.kind is NodeKind.CONVERT for node in graph.nodes):
        return []
    values = {value.id: value for value in graph.values}
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            readers.setdefault(value, []).append(position)
    #: for each value that is not int8 the one that it is a function of, and the nodes between
    behind: dict[int, tuple[int, frozenset[int]]] = {}
    found = []
    for position, node in enumerate(graph.nodes):
        traced = _traced(node, values, shapes, behind)
        if traced is None:
            continue
        start, nodes = traced[0], traced[1] | {position}
        end = node.outputs[0]
        if values[end].dtype is DataType.FP32:
            behind[end] = (start, nodes)
        elif values[end].dtype is DataType.QINT8 and (len(nodes) > 1 or node.kind in _SINGLE):
            inner = [i for n in nodes if n != position for i in graph.nodes[n].outputs]
            if all(not values[i].is_output and nodes >= set(readers[i]) for i in inner):
                found.append(Chain(tuple(sorted(nodes)), start, end))
    return found


def _traced(
    node: Node,
    values: Values,
    shapes: Mapping[int, Shape],
    behind: Mapping[int, tuple[int, frozenset[int]]],
) -> tuple[int, frozenset[int]] | None:
    """The int8 value that ``node`` is an elementwise function of, and the nodes between them; None
    if there is no such value."""
    if not (node.kind.traits.elementwise or node.kind is NodeKind.CONVERT):
        return None
    starts, nodes = set(), frozenset[int]()
    for i in node.inputs:
        value = values.get(i)
        if value is None or shapes.get(i) is None:
            return None
        if value.data is not None:
            if math.prod(value.shape) != 1:
                return None
            continue
        start, between = behind.get(i, (i, frozenset[int]()))
        if values[start].dtype is not DataType.QINT8:
            return None
        starts.add(start)
        nodes |= between
    if len(starts) != 1:
        return None
    (start,) = starts
    return (start, nodes) if shapes[node.outputs[0]] == shapes[start] else None


@dataclass(frozen=True)
class LookUp:
    """A chain from value ``start`` to ``end``; ``table`` is the address of its table."""

    start: int
    end: int
    table: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        count = math.prod(shapes[self.start])
        lut = CLut(int(self.workshop.library.isa), count, self.workshop.threads)
        fields = ((self.start, "input"), (self.end, "output"))
        return Step("pk_lut8_run", CLutTask(lut, self.table, None, None), fields)


def slower_chain(library: Library) -> str | None:
    """Why another engine should have chains all the same."""
    return None if library.has(VECTORS) else "there are no vector kernels for this machine"


def _no_node(node: Node, values: Values, *rest: object) -> str:
    return "it is no chain of elementwise nodes between int8 values"


FAMILY = Family(
    "lut8",
    frozenset(),  # chains are prepared as a whole
    _no_node,
    _no_node,
    {"pk_lut8_run": (None, (c_void_p, c_void_p))},
)
