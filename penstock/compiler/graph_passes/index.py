"""Who makes and who reads each value of a graph."""

from __future__ import annotations

from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    SliceAttributes,
    TransposeAttributes,
)


class Index:
    """Producers and readers of the values of ``graph``, kept true by :meth:`replace_input` and
    :meth:`remove`."""

    def __init__(self, graph: XnnGraph) -> None:
        self.graph = graph
        self.values: dict[int, Value] = {value.id: value for value in graph.values}
        self.producer: dict[int, Node] = {}
        self.readers: dict[int, list[Node]] = {value.id: [] for value in graph.values}
        for node in graph.nodes:
            for output in node.outputs:
                self.producer[output] = node
            for value in _distinct(node.inputs):
                self.readers[value].append(node)
        self._removed: set[int] = set()

    def only_reader(self, value: int) -> Node | None:
        """The single node that reads ``value``, unless the delegate's caller reads it too."""
        readers = self.readers[value]
        return readers[0] if len(readers) == 1 and not self.values[value].is_output else None

    def made_by(self, value: int, kind: NodeKind) -> Node | None:
        node = self.producer.get(value)
        return node if node is not None and node.kind is kind else None

    def set_inputs(self, node: Node, inputs: tuple[int, ...]) -> None:
        for value in _distinct(node.inputs):
            self.readers[value].remove(node)
        node.inputs = inputs
        for value in _distinct(inputs):
            self.readers[value].append(node)

    def set_output(self, node: Node, output: int) -> None:
        """``node`` makes ``output`` from now on (what made it must be removed)."""
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
        self.set_inputs(node, ())
        for output in node.outputs:
            if self.producer.get(output) is node:
                del self.producer[output]
        self._removed.add(id(node))

    def insert_before(self, anchor: Node, node: Node) -> None:
        self._insert(anchor, 0, node)

    def insert_after(self, anchor: Node, node: Node) -> None:
        self._insert(anchor, 1, node)

    def _insert(self, anchor: Node, offset: int, node: Node) -> None:
        position = next(i for i, item in enumerate(self.graph.nodes) if item is anchor)
        self.graph.nodes.insert(position + offset, node)
        for output in node.outputs:
            self.producer[output] = node
        for value in _distinct(node.inputs):
            self.readers[value].append(node)

    def new_value(self, value: Value) -> int:
        value.id = len(self.graph.values)
        self.graph.values.append(value)
        self.values[value.id] = value
        self.readers[value.id] = []
        return value.id

    def finish(self) -> None:
        """Drops the removed nodes from the graph."""
        self.graph.nodes = [node for node in self.graph.nodes if id(node) not in self._removed]


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
    return isinstance(attributes, SliceAttributes) or node.kind in (
        NodeKind.STATIC_RESHAPE,
        NodeKind.COPY,
    )
