"""Runs in which some tensors have no elements: no detections, a batch of none.

XNNPACK has no such tensors. Most of a graph falls away then: what has no elements need not be
computed. What is left is a smaller graph, of fixed sizes, in which what was made of nothing is
already there: a mean of nothing is NaN, a product over nothing 0, and concatenation leaves out
what is empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import CONCATENATE, NodeKind, PadAttributes
from penstock.graph.shapes import ShapeError


@dataclass(frozen=True, eq=False)
class Rest:
    """What is left to compute of a graph at some shapes.

    ``graph`` reads the whole graph's inputs at the positions ``inputs``, then ``filled``; it has
    no outputs if nothing is left. ``outputs`` says of each output of the whole graph which of
    ``graph``'s it is, or what it is filled with.
    """

    graph: XnnGraph
    inputs: tuple[int, ...]
    filled: tuple[np.ndarray, ...]
    outputs: tuple[int | float, ...]

    def __post_init__(self) -> None:
        assert len(self.graph.inputs) == len(self.inputs) + len(self.filled)


def has_empty(shapes: Mapping[int, Shape]) -> bool:
    """Whether one of the values has no elements."""
    return any(0 in shape for shape in shapes.values())


def rest(graph: XnnGraph, shapes: Mapping[int, Shape]) -> Rest:
    """What is left of ``graph`` when its values have ``shapes``.

    Raises:
        ShapeError: a node makes something of nothing that it cannot.
    """
    return _Pruning(graph, shapes).result()


#: Give of equal numbers the same number, beside what selects.
_SAME_FOR_EQUAL = (NodeKind.CONVERT, NodeKind.GLOBAL_AVG_POOLING_2D, NodeKind.MAX_POOLING_2D)


class _Pruning:
    def __init__(self, graph: XnnGraph, shapes: Mapping[int, Shape]) -> None:
        self._graph = graph
        self._shapes = shapes
        self._values = {value.id: value for value in graph.values}
        self._makers = {output: node for node in graph.nodes for output in node.outputs}
        self._nodes: list[Node] = []
        #: what values are filled with that come of nothing, as real numbers
        self._fills: dict[int, float] = {}
        #: of those, means over no elements; and 1 / a size of 0, which makes them sums
        self._means: set[int] = set()
        self._inverses: set[int] = set()
        #: maxima over no elements, which only a bound makes numbers of
        self._maxima: set[int] = set()
        self._softmax = {i for n in graph.nodes if n.kind is NodeKind.SOFTMAX for i in n.outputs}
        for index, node in enumerate(graph.nodes):
            if any(0 not in shapes[i] for i in node.outputs):
                try:
                    self._take(node)
                except ShapeError as error:
                    raise ShapeError(f"node {index} ({node.kind.name}): {error}") from None

    def _take(self, node: Node) -> None:
        inputs = [i for i in node.inputs if i in self._shapes]
        bounds = node.kind in (NodeKind.CLAMP, NodeKind.MAX_POOLING_2D)
        if self._maxima.intersection(inputs) and not (bounds or node.kind.traits.selects):
            raise ShapeError("it reads the maximum of no elements")
        if any(0 in self._shapes[i] for i in inputs):
            self._from_nothing(node, inputs)
        elif not any(i in self._fills for i in inputs) or not self._passes_on(node, inputs):
            self._nodes.append(node)

    def _from_nothing(self, node: Node, inputs: Sequence[int]) -> None:
        (output,) = node.outputs
        kind = node.kind
        if kind.traits.joins:
            parts = tuple(i for i in inputs if 0 not in self._shapes[i])
            kept = replace(node, kind=CONCATENATE[len(parts)], inputs=parts) if parts[1:] else None
            self._nodes.append(kept or Node(NodeKind.COPY, parts, node.outputs))
        elif isinstance(node.attributes, PadAttributes):
            self._fill(output, node.attributes.value)
        elif kind is NodeKind.GLOBAL_AVG_POOLING_2D:
            self._fill(output, math.nan)
            self._means.add(output)
        elif kind in (NodeKind.BATCH_MATRIX_MULTIPLY, NodeKind.MAX_POOLING_2D):
            self._fill(output, 0.0)
        elif kind is NodeKind.STATIC_RESHAPE and self._is_one_at_most(inputs[0]):
            self._fill(output, -math.inf)
            self._maxima.add(output)
            self._bound(output, self._made_by(inputs[0]))
        elif kind is NodeKind.STATIC_SLICE:
            # One of many equal elements, kept because something is to have this size. Of the
            # softmax of n zeros each element is 1 / n.
            inverse = inputs[0] in self._softmax
            self._fill(output, math.inf if inverse else 0.0)
            if inverse:
                self._inverses.add(output)
        else:
            raise ShapeError(
                f"it has no elements to work on, and gives {list(self._shapes[output])}"
            )

    def _is_one_at_most(self, value: int) -> bool:
        """Whether the dimensions of which ``value`` has nothing have one element else, as maxima
        over a dimension do."""
        bounds = self._values[value].shape
        sizes = zip(self._shapes[value], bounds, strict=True)
        return all(bound == 1 for size, bound in sizes if size == 0)

    def _made_by(self, value: int) -> Node | None:
        """The node that computes ``value``, passing over those that only move it."""
        maker = self._makers.get(value)
        moves = maker is not None and maker.kind.traits.rearranges
        return self._made_by(maker.inputs[0]) if maker is not None and moves else maker

    def _bound(self, value: int, node: Node | None) -> None:
        """What ``value`` is filled with lies in the output range of ``node``."""
        if node is None or node.clamp is None:
            return
        low, high = node.clamp
        self._fills[value] = min(max(self._fills[value], low), high)
        if low > -math.inf:
            self._maxima.discard(value)

    def _passes_on(self, node: Node, inputs: Sequence[int]) -> bool:
        """Whether the output is filled because an input is."""
        (output,) = node.outputs
        kind = node.kind
        if kind in (NodeKind.DIV, NodeKind.MULTIPLY) and self._means.intersection(inputs):
            sums = self._inverses.intersection(inputs)  # a mean times the size
            self._fill(output, 0.0 if sums else math.nan)
            if not sums:
                self._means.add(output)
            return True
        (source,) = inputs if len(inputs) == 1 else (None,)
        if source is None or not (kind.traits.selects or kind in _SAME_FOR_EQUAL):
            return False
        if self._values[output].dtype is DataType.QDINT8:
            return False
        self._fill(output, self._fills[source])
        for tagged in (self._means, self._inverses, self._maxima):
            if source in tagged:
                tagged.add(output)
        self._bound(output, node)
        return True

    def _fill(self, value: int, number: float) -> None:
        self._fills[value] = number

    def result(self) -> Rest:
        if self._maxima.intersection(self._graph.outputs):
            raise ShapeError("a result is the maximum of no elements")
        computed = [
            i for i in self._graph.outputs if 0 not in self._shapes[i] and i not in self._fills
        ]
        nodes = _live(self._nodes, computed)
        read = {i for node in nodes for i in node.inputs}
        inputs = [i for i in self._graph.inputs if i in read]
        filled = [i for i in self._fills if i in read]
        used = read.union(*(node.outputs for node in nodes))
        position = {i: number for number, i in enumerate([*inputs, *filled, *computed])}
        values = [
            replace(
                value,
                shape=self._shapes[value.id],
                external_id=position.get(value.id),
                is_input=value.id in inputs or value.id in filled,
                is_output=value.id in computed,
            )
            for value in self._graph.values
            if value.id in used
        ]
        return Rest(
            XnnGraph(values, nodes, [*inputs, *filled], computed),
            tuple(self._graph.inputs.index(i) for i in inputs),
            tuple(filling(self._values[i], self._shapes[i], self._fills[i]) for i in filled),
            tuple(
                computed.index(i) if i in computed else self._fills.get(i, 0.0)
                for i in self._graph.outputs
            ),
        )


def _live(nodes: Sequence[Node], outputs: Sequence[int]) -> list[Node]:
    needed, live = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            live.append(node)
    return live[::-1]


def filling(value: Value, shape: Shape, number: float) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of ``shape``; each element stands for ``number`` in the type of ``value``."""
    dtype = value.dtype.traits.array
    assert dtype is not None
    if isinstance(value.quantization, PerTensor):
        limits, scaled = np.iinfo(dtype), number / value.quantization.scale
        whole = 0 if math.isnan(scaled) else np.clip(np.rint(scaled), -(1 << 31), 1 << 31)
        number = float(np.clip(whole + value.quantization.zero_point, limits.min, limits.max))
    if value.dtype is DataType.BF16:
        bits = np.full(shape, number, np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16)
    with np.errstate(invalid="ignore"):
        return np.full(shape, number).astype(dtype)
