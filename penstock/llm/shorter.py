"""Methods for shorter contexts: a language model's own method with fewer rows in its caches.

Attention reads a cache as a whole, and what a mask hides has a weight of exactly 0 in it. So a
conversation that is short yet runs as well, and faster, on the first rows alone: on a method whose
caches, masks and places of columns end where the conversation does. Such a method is made out of
the file's when it is loaded; the file holds nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.errors import PenstockError
from penstock.formats.program import (
    Delegate,
    DelegateCall,
    KernelCall,
    Method,
    OptionalTensorList,
    ScalarType,
    Tensor,
    TensorList,
)
from penstock.graph.graph import Node, Shape, XnnGraph
from penstock.graph.kinds import ReshapeAttributes, SliceAttributes
from penstock.graph.shapes import SHAPE_RULES, ShapeError


class CannotShorten(PenstockError):
    """The method is written in a way that this module does not know."""


_OTHERWISE = "the method's caches are read in a way that is not known"


@dataclass(frozen=True)
class Shortened:
    """``method`` with shorter caches, and what makes the graphs of its delegates fit."""

    method: Method
    adapt: Callable[[Delegate, XnnGraph], XnnGraph]


def shortened(method: Method, longest: int, rows: int) -> Shortened:
    """``method``, whose caches have ``longest`` rows, with ``rows`` of them.

    It must be one that Penstock compiled of a checkpoint: whose masks hide what is behind the last
    token, and that reads its caches through them alone.

    Raises :class:`CannotShorten`, here or out of ``adapt``, where it is written in a way that
    cannot be followed.
    """
    short = _Shorter(method, longest, rows)
    return Shortened(short.made(), short.adapted)


class _Shorter:
    def __init__(self, method: Method, longest: int, rows: int) -> None:
        self._method, self._longest, self._less = method, longest, longest - rows
        self._values = list(method.values)
        #: values with an axis of the caches' rows
        self._affected: set[int] = set()
        #: for each delegate the values of its call
        self._arguments: dict[int, Sequence[int]] = {}

    def made(self) -> Method:
        for index, value in enumerate(self._method.values):
            if isinstance(value, Tensor) and value.data is not None:
                self._seed(index, value)
        for instruction in self._method.instructions:
            if isinstance(instruction, KernelCall):
                self._follow(instruction)
            elif isinstance(instruction, DelegateCall):
                delegate = self._method.delegates[instruction.delegate]
                self._arguments[id(delegate)] = instruction.args
            else:
                raise CannotShorten(_OTHERWISE)
        return replace(self._method, values=self._values)

    def _seed(self, index: int, value: Tensor) -> None:
        """Caches, columns of the mask (0, 1, 2 …) and its beginnings (zeros)."""
        if self._longest not in value.shape:
            return
        data = np.frombuffer(value.data or b"", np.uint8)
        if value.allocation is not None:
            if data.any():
                raise CannotShorten(_OTHERWISE)
        elif len(value.shape) != 1:
            return
        elif value.dtype is ScalarType.LONG:
            if not np.array_equal(data.view(np.int64), np.arange(self._longest)):
                return
        elif data.any() or not self._is_mask(index):
            return
        self._shorten(index, value)

    def _is_mask(self, index: int) -> bool:
        """Whether all that reads a value fills places of it."""
        readers = [
            i for i in self._method.instructions if isinstance(i, KernelCall) and index in i.args
        ]
        names = {self._method.operators[reader.operator].name for reader in readers}
        return names == {"aten::index_put"}

    def _shorten(self, index: int, value: Tensor) -> None:
        if value.dim_order not in (None, tuple(range(len(value.shape)))):
            raise CannotShorten(_OTHERWISE)
        shape = self._shape(value.shape)
        found = replace(value, shape=shape)
        if value.data is not None:
            found = replace(found, data=memoryview(value.data)[: found.nbytes])
        self._values[index] = found
        self._affected.add(index)

    def _shape(self, shape: Shape) -> Shape:
        if shape.count(self._longest) != 1:
            raise CannotShorten(_OTHERWISE)
        return tuple(s - self._less if s == self._longest else s for s in shape)

    def _follow(self, call: KernelCall) -> None:
        if not any(self._reads(index) for index in call.args):
            return
        values = [self._method.values[index] for index in call.args]
        if any(isinstance(value, int) and value == self._longest for value in values):
            raise CannotShorten(_OTHERWISE)  # a size, or a place, that is written down
        target = call.args[-1]
        value = self._method.values[target]
        if target in self._affected or not isinstance(value, Tensor):
            return
        if self._longest in value.shape:
            self._shorten(target, value)

    def _reads(self, index: int) -> bool:
        value = self._method.values[index]
        if isinstance(value, (TensorList, OptionalTensorList)):
            return any(item in self._affected for item in value.items)
        return index in self._affected

    def adapted(self, delegate: Delegate, graph: XnnGraph) -> XnnGraph:
        """The graph of a delegate of the shortened method."""
        try:
            return self._adapted(delegate, graph)
        except ShapeError as error:
            raise CannotShorten(str(error)) from error

    def _adapted(self, delegate: Delegate, graph: XnnGraph) -> XnnGraph:
        arguments = self._arguments.get(id(delegate), ())
        old = {value.id: value.shape for value in graph.values}
        new = {value.id: value.shape for value in graph.values if value.data is not None}
        for value in graph.values:
            if value.id in graph.inputs and value.external_id is not None:
                index = arguments[value.external_id]
                short = index in self._affected
                new[value.id] = self._shape(value.shape) if short else value.shape
        nodes = [self._node(node, old, new) for node in graph.nodes]
        if any(new[i] != old[i] for i in graph.outputs):
            raise CannotShorten(_OTHERWISE)
        values = [replace(value, shape=new.get(value.id, value.shape)) for value in graph.values]
        return replace(graph, values=values, nodes=nodes)

    def _node(self, node: Node, old: dict[int, Shape], new: dict[int, Shape]) -> Node:
        inputs = [i for i in node.inputs if i in new]
        changed = any(new[i] != old[i] for i in inputs)
        if changed and isinstance(node.attributes, SliceAttributes):
            attributes = self._slice(node.attributes, old[inputs[0]], new[inputs[0]])
            node = replace(node, attributes=attributes)
        if changed and isinstance(node.attributes, ReshapeAttributes):
            sizes = node.attributes.new_shape
            if self._longest in sizes:
                node = replace(node, attributes=ReshapeAttributes(self._shape(sizes)))
        shapes: Any = [new[i] for i in inputs]
        made = SHAPE_RULES[node.kind](node, shapes) if changed else [old[i] for i in node.outputs]
        for output, shape in zip(node.outputs, made, strict=True):
            pairs = list(zip(old[output], shape, strict=True))
            if any(before - after not in (0, self._less) for before, after in pairs):
                raise CannotShorten(_OTHERWISE)
            new[output] = tuple(shape)
        return node

    def _slice(self, attributes: SliceAttributes, old: Shape, new: Shape) -> SliceAttributes:
        """Of old rows, of new ones behind them, or of all."""
        offsets, sizes = list(attributes.offsets), list(attributes.sizes)
        for axis, (before, after) in enumerate(zip(old, new, strict=True)):
            if before == after:
                continue
            if offsets[axis] == self._longest:
                offsets[axis] -= self._less
            elif offsets[axis] == 0 and sizes[axis] in (self._longest, before):
                sizes[axis] -= self._less
            elif offsets[axis] or sizes[axis]:
                raise CannotShorten(_OTHERWISE)
        return SliceAttributes(tuple(offsets), tuple(sizes))
