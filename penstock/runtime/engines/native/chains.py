"""Chains: nodes that a kernel runs as one, and finding them by what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.family import Family, Packer, Prepared, Workshop
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.xnnpack.buffers import constant


class Chain(Protocol):
    """Nodes in the graph's order. What they make is read outside behind the last one only."""

    @property
    def nodes(self) -> tuple[Node, ...]: ...

    @property
    def family(self) -> Family: ...

    def packed(self, workshop: Workshop) -> Prepared:
        """The chain to be run."""

    @property
    def gain(self) -> float | None: ...

    def slower(self, library: Library) -> str | None:
        """Why another engine should have it all the same."""


@dataclass(frozen=True, eq=False)
class Match:
    """A chain that was found in a graph. ``gain``: see
    :class:`~penstock.runtime.engines.native.family.Family`."""

    nodes: tuple[Node, ...]
    family: Family
    pack: Packer
    gain: float | None = None

    def packed(self, workshop: Workshop) -> Prepared:
        """See :class:`Chain`."""
        return self.pack(workshop)

    def slower(self, library: Library) -> str | None:
        """See :class:`Chain`."""
        values: dict[int, Value] = {}
        return self.family.slower(self.nodes[-1], values, library)


class Pattern:
    """A graph with who makes and who reads each value. ``shapes`` are the bounds of all values."""

    def __init__(self, graph: XnnGraph, shapes: Mapping[int, Shape]) -> None:
        self.graph = graph
        self.values = {value.id: value for value in graph.values}
        self.shapes = shapes
        self.position = {id(node): position for position, node in enumerate(graph.nodes)}
        self._makers = {i: node for node in graph.nodes for i in node.outputs}
        self._readers: dict[int, list[Node]] = {}
        for node in graph.nodes:
            for i in dict.fromkeys(node.inputs):
                self._readers.setdefault(i, []).append(node)

    def maker(self, value: int) -> Node | None:
        """The node that makes ``value``, whatever it is."""
        return self._makers.get(value)

    def made(self, value: int, kind: NodeKind, flags: int = 0) -> Node | None:
        """The node of this kind, in float32 and without an output range, that makes ``value``."""
        node = self._makers.get(value)
        if node is None or node.kind is not kind or node.clamp is not None or node.flags != flags:
            return None
        return node if self.values[value].dtype is DataType.FP32 else None

    def readers(self, value: int) -> Sequence[Node]:
        """The nodes that read ``value``."""
        return self._readers.get(value, ())

    def reader(self, value: int, kind: NodeKind) -> Node | None:
        """The node that alone reads ``value``, if it is of this kind and nothing else has it."""
        readers = self.readers(value)
        if len(readers) != 1 or self.values[value].is_output:
            return None
        (node,) = readers
        return node if node.kind is kind and node.clamp is None and not node.flags else None

    def pairs(self, node: Node | None) -> Iterator[tuple[int, int]]:
        """Both orders of the inputs of a node with two."""
        if node is not None:
            a, b = node.inputs
            yield a, b
            yield b, a

    def constant(self, value: int) -> np.ndarray | None:
        """The elements of a constant float32."""
        found = self.values.get(value)
        if found is None or found.data is None or found.dtype is not DataType.FP32:
            return None
        return constant(found.data, 4).view(np.float32)

    def number(self, value: int) -> float | None:
        """A constant of one element."""
        found = self.values.get(value)
        if found is None or math.prod(found.shape) != 1:
            return None
        elements = self.constant(value)
        return None if elements is None else float(elements[0])

    def closed(self, nodes: Sequence[Node]) -> bool:
        """Whether what ``nodes`` make, but for the last one's, is read by them alone."""
        inside = {id(node) for node in nodes}
        return all(
            not self.values[i].is_output and all(id(reader) in inside for reader in self.readers(i))
            for node in nodes[:-1]
            for i in node.outputs
        )

    def ordered(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """Nodes in the graph's order, each once."""
        unique = {id(node): node for node in nodes}
        return tuple(sorted(unique.values(), key=lambda node: self.position[id(node)]))


def matches(
    pattern: Pattern, kind: NodeKind, taken: Container[int], find: Callable[[Node], Match | None]
) -> list[Match]:
    """What ``find`` makes of each node of a kind, where no node's identity is in ``taken``."""
    found = [find(node) for node in pattern.graph.nodes if node.kind is kind]
    return [m for m in found if m and not any(id(node) in taken for node in m.nodes)]
