"""Producers and users of the values of a graph, kept true while the graph is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import (
    Attributes,
    ConcatenateAttributes,
    NodeKind,
    TransposeAttributes,
)


class Index:
    """Producers and readers of the values of ``graph``.

    While there is an index, nodes are added, connected and removed through it; attributes, clamps
    and flags of a node may be changed directly. Removed nodes leave ``graph.nodes`` with
    :meth:`finish`; until then :meth:`alive` tells them apart.
    """

    def __init__(self, graph: XnnGraph) -> None:
        self.graph = graph
        self.values: dict[int, Value] = {value.id: value for value in graph.values}
        self.producer: dict[int, Node] = {}
        self.readers: dict[int, list[Node]] = {value.id: [] for value in graph.values}
        for node in graph.nodes:
            self._connect(node)
        self._removed: dict[int, Node] = {}

    # --- reading -----------------------------------------------------------------------------

    def walk(self) -> Iterator[Node]:
        """The nodes that are there now, in order, without those removed before their turn."""
        return (node for node in tuple(self.graph.nodes) if self.alive(node))

    def alive(self, node: Node) -> bool:
        """Whether ``node`` was not removed."""
        return id(node) not in self._removed

    def only_reader(self, value: int) -> Node | None:
        """The single node that reads ``value``, unless the delegate's caller reads it too."""
        readers = self.readers[value]
        return readers[0] if len(readers) == 1 and not self.values[value].is_output else None

    def made_by(self, value: int, kind: NodeKind) -> Node | None:
        """The node that makes ``value``, if it is one of ``kind``."""
        node = self.producer.get(value)
        return node if node is not None and node.kind is kind else None

    def constant(self, value: int) -> np.ndarray | None:
        """The elements of a constant as they are stored; None for a value computed at run time."""
        data = self.values[value].data
        return None if data is None else np.asarray(data)

    # --- changing ----------------------------------------------------------------------------

    def set_inputs(self, node: Node, inputs: tuple[int, ...]) -> None:
        """``node`` reads ``inputs`` from now on."""
        for value in _distinct(node.inputs):
            self.readers[value].remove(node)
        node.inputs = inputs
        for value in _distinct(inputs):
            self.readers[value].append(node)

    def set_output(self, node: Node, output: int) -> None:
        """``node`` makes ``output`` from now on; what made it before is to be removed."""
        for old in node.outputs:
            if self.producer.get(old) is node:
                del self.producer[old]
        node.outputs = (output,)
        self.producer[output] = node

    def replace_uses(self, old: int, new: int) -> None:
        """Readers of ``old`` read ``new``."""
        for node in list(self.readers[old]):
            self.set_inputs(node, tuple(new if value == old else value for value in node.inputs))

    def remove(self, node: Node) -> None:
        """Removes a dead node.

        Raises ValueError while something reads a result that no other node makes.
        """
        for output in node.outputs:
            if self.producer.get(output) is not node:
                continue
            if self.readers[output] or self.values[output].is_output:
                raise ValueError(f"value {output} of a {node.kind.name} node is still read")
            del self.producer[output]
        for value in _distinct(node.inputs):
            self.readers[value].remove(node)
        self._removed[id(node)] = node

    def replace(self, node: Node, value: int) -> None:
        """Readers of ``node``'s one result read ``value``; ``node`` is removed."""
        self.replace_uses(node.outputs[0], value)
        self.remove(node)

    def make_constant(self, value: int, data: np.ndarray) -> None:
        """``value`` becomes a constant; the node that made it is removed."""
        node = self.producer.pop(value)
        self.values[value].data = data
        self.remove(node)

    def new_value(self, value: Value) -> int:
        """Adds ``value``, which may be a copy of an input or output, inside the graph; returns the
        id that it got."""
        value.id = len(self.graph.values)
        value.is_input = value.is_output = False
        value.external_id = None
        self.graph.values.append(value)
        self.values[value.id] = value
        self.readers[value.id] = []
        return value.id

    def add(
        self,
        kind: NodeKind,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        attributes: Attributes | None = None,
        *,
        like: Node,
        of: int | None = None,
    ) -> int:
        """Adds a node before ``like``, with its origin; returns the value that it makes, of the
        element type and quantization of value ``of`` (by default those of ``like``'s output)."""
        made = self._inner(like.outputs[0] if of is None else of, shape)
        node = Node(kind, inputs, (made,), attributes, debug_handle=like.debug_handle)
        self.insert_before(like, node)
        return made

    def add_copy(
        self,
        node: Node,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        attributes: Attributes | None,
        *,
        before: Node | None = None,
    ) -> int:
        """Adds a node of ``node``'s kind, clamp and flags with other inputs and attributes, before
        ``node`` or ``before``; returns the value that it makes, of ``node``'s output type."""
        made = self._inner(node.outputs[0], shape)
        copy = replace(node, inputs=inputs, outputs=(made,), attributes=attributes)
        self.insert_before(before or node, copy)
        return made

    def insert_before(self, anchor: Node, node: Node) -> None:
        self._insert(anchor, 0, node)

    def insert_after(self, anchor: Node, node: Node) -> None:
        self._insert(anchor, 1, node)

    def finish(self) -> None:
        """Drops the removed nodes from the graph."""
        self.graph.nodes = [node for node in self.graph.nodes if self.alive(node)]
        self._removed.clear()

    def _inner(self, like: int, shape: tuple[int, ...]) -> int:
        """A new value inside the graph, of the type and quantization of ``like``."""
        value = self.values[like]
        return self.new_value(Value(0, value.dtype, shape, value.quantization))

    def _insert(self, anchor: Node, offset: int, node: Node) -> None:
        position = next(i for i, item in enumerate(self.graph.nodes) if item is anchor)
        self.graph.nodes.insert(position + offset, node)
        self._connect(node)

    def _connect(self, node: Node) -> None:
        for output in node.outputs:
            self.producer[output] = node
        for value in _distinct(node.inputs):
            self.readers[value].append(node)


def _distinct(inputs: tuple[int, ...]) -> set[int]:
    return {value for value in inputs if value != INVALID_VALUE_ID}


def moves_rows(node: Node, source: Value, output: Value) -> bool:
    """Whether ``node`` moves rows of the last dimension without looking into them."""
    attributes = node.attributes
    rank = len(source.shape)
    if not rank or source.shape[-1:] != output.shape[-1:]:
        return False
    if isinstance(attributes, TransposeAttributes):
        return attributes.perm[-1] == rank - 1
    if isinstance(attributes, ConcatenateAttributes):
        return attributes.axis not in (-1, rank - 1)
    return node.kind.traits.selects
