"""The family ``lut8``: a chain of elementwise nodes between two int8 values is a function of one
byte, hence a table of 256. So is a single one that computes more than a product.

XNNPACK itself makes the tables when a graph is compiled, so that the answers are its own. A SiLU
between int8 values, four nodes that pass over float32, becomes one pass over bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from ctypes import Structure, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.graph.shapes import ShapeError, infer
from penstock.runtime.engines.native.family import Family, Step, Values, Workshop
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


class CLut(Structure):
    """``struct pk_lut8``."""

    _fields_ = [("isa", c_uint32), ("count", c_size_t), ("threads", c_size_t)]


class CLutTask(Structure):
    """``struct pk_lut8_task``."""

    _fields_ = [("lut", CLut), ("table", c_void_p), ("input", c_void_p), ("output", c_void_p)]


_Key: TypeAlias = "tuple[object, ...]"


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


def chains(graph: XnnGraph) -> list[Chain]:
    """The chains in ``graph``. Nothing outside a chain reads what its nodes make, but for the last
    one's."""
    if not any(node.kind in _SINGLE or node.kind is NodeKind.CONVERT for node in graph.nodes):
        return []
    values = {value.id: value for value in graph.values}
    shapes = {v.id: v.shape for v in graph.values if v.data is not None or v.is_input}
    try:
        infer(graph.nodes, shapes)
    except ShapeError:
        return []
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


@dataclass(frozen=True, eq=False)
class Tabled:
    """A chain with its table: what it makes of the bytes 0 to 255, uint8 [256]."""

    nodes: tuple[Node, ...]
    start: int
    end: int
    table: np.ndarray

    def packed(self, workshop: Workshop) -> LookUp:
        """The chain to be run."""
        return LookUp(self.start, self.end, workshop.packed.keep(self.table.copy()), workshop)


class Tables:
    """The tables of chains. They are made for all chains of a graph at once, since a runtime of
    XNNPACK's costs more than what it computes, and kept for chains that are alike."""

    def __init__(self) -> None:
        self._known: dict[_Key, np.ndarray] = {}
        self._xnnpack: XnnpackEngine | None = None

    def of(self, graph: XnnGraph, found: Sequence[Chain]) -> list[Tabled]:
        """The chains ``found`` in ``graph``, with their tables."""
        if not found:
            return []
        values = {value.id: value for value in graph.values}
        keys = [_key(graph, values, chain) for chain in found]
        missing = {key: chain for key, chain in zip(keys, found, strict=True)
                   if key not in self._known}  # fmt: skip
        if missing:
            self._xnnpack = self._xnnpack or XnnpackEngine()
            made = _computed(graph, values, list(missing.values()), self._xnnpack)
            self._known.update(zip(missing, made, strict=True))
        return [
            Tabled(
                tuple(graph.nodes[n] for n in chain.nodes), chain.start, chain.end, self._known[key]
            )
            for chain, key in zip(found, keys, strict=True)
        ]


def _key(graph: XnnGraph, values: Values, chain: Chain) -> _Key:
    """What the table of a chain depends on."""
    ids: dict[int, int] = {}
    described: list[object] = []
    for position in chain.nodes:
        node = graph.nodes[position]
        described.append((node.kind, node.attributes, node.clamp, node.flags))
        for i in (*node.inputs, *node.outputs):
            if i in ids:
                described.append(ids[i])
                continue
            ids[i] = len(ids)
            value = values[i]
            data = None if value.data is None else bytes(value.data)
            described.append((value.dtype, value.quantization, len(value.shape), data))
    return tuple(described)


def _computed(
    graph: XnnGraph, values: Values, found: Sequence[Chain], xnnpack: XnnpackEngine
) -> list[np.ndarray]:
    whole = XnnGraph(checked=True)  # its nodes are copies of what has been checked
    for number, chain in enumerate(found):
        _add(whole, graph, values, chain, number, len(found) + number)
    executable = xnnpack.compile(whole, threads=Threads(1))
    shapes = {value.id: value.shape for value in whole.values}
    bytes_ = np.arange(256, dtype=np.uint8).view(np.int8)
    answers = [np.empty(shapes[i], np.int8) for i in whole.outputs]
    executable.reshape([shapes[i] for i in whole.inputs])
    executable.run([bytes_.reshape(shapes[i]) for i in whole.inputs], answers)
    return [answer.reshape(256).view(np.uint8) for answer in answers]


def _add(
    whole: XnnGraph, graph: XnnGraph, values: Values, chain: Chain, source: int, result: int
) -> None:
    """Add a copy of ``chain`` over 256 elements to ``whole``, with the external ids ``source`` and
    ``result``."""
    nodes = [graph.nodes[position] for position in chain.nodes]
    used = dict.fromkeys(i for node in nodes for i in (*node.inputs, *node.outputs) if i in values)
    new = {old: len(whole.values) + number for number, old in enumerate(used)}
    for old, number in new.items():
        value = values[old]
        is_input, is_output = old == chain.start, old == chain.end
        external = source if is_input else result if is_output else None
        shape = value.shape if value.data is not None else (*(1,) * (len(value.shape) - 1), 256)
        whole.values.append(
            Value(
                number,
                value.dtype,
                shape,
                value.quantization,
                value.data,
                external,
                is_input,
                is_output,
            )  # fmt: skip
        )
    for node in nodes:
        inputs = tuple(new.get(i, i) for i in node.inputs)
        outputs = tuple(new[i] for i in node.outputs)
        whole.nodes.append(
            Node(node.kind, inputs, outputs, node.attributes, node.clamp, node.flags)
        )
    whole.inputs.append(new[chain.start])
    whole.outputs.append(new[chain.end])


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
    return None if Isa.AVX2 in library.isa else "there are no vector kernels for this machine"


def _no_node(node: Node, values: Values, *rest: object) -> str:
    return "it is no chain of elementwise nodes between int8 values"


FAMILY = Family(
    "lut8",
    frozenset(),  # chains are prepared as a whole
    _no_node,
    _no_node,
    {"pk_lut8_run": (None, (c_void_p, c_void_p))},
)
