"""Which input shapes a graph can run at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.errors import InputError, InvalidProgramError, UnsupportedError
from penstock.graph.graph import Shape, XnnGraph
from penstock.graph.shapes import ShapeError, infer
from penstock.runtime.engines.xnnpack.budget import peak_memory
from penstock.runtime.engines.xnnpack.empty import Rest, has_empty, rest
from penstock.runtime.engines.xnnpack.scratch import Needs, needs, reductions
from penstock.runtime.free_memory import available_memory

#: Input shapes that are remembered as good.
_REMEMBERED = 256
#: Needs below this many bytes are not worth a look at the system's memory.
_SMALL = 1 << 28


class Reduced(NamedTuple):
    """What is left of a graph where tensors have no elements, and the shapes of its outputs."""

    rest: Rest
    outputs: tuple[Shape, ...]


class ShapeChecker:
    """Checks input shapes of one graph before XNNPACK sees them.

    The making of one checks the declared shapes of the inputs, which are the upper bounds;
    ``bounds`` has the shapes of all values that follow from them, which may be known.

    Raises:
        InvalidProgramError: a node cannot take the declared shapes of its inputs, or the declared
            rank of a value is not the one that its node gives.
        UnsupportedError: a run at the bounds would need more memory than there is.
    """

    def __init__(self, graph: XnnGraph, bounds: Mapping[int, Shape] | None = None) -> None:
        self._graph = graph
        self._nodes = graph.nodes
        self._inputs = graph.inputs
        declared = {v.id: v.shape for v in graph.values}
        self._declared = inputs = tuple(declared[i] for i in graph.inputs)
        try:
            self.bounds: Mapping[int, Shape] = (
                declared if graph.checked else bounds or self._infer(inputs)
            )
        except ShapeError as error:
            raise InvalidProgramError(f"{error} (in an XNNPACK graph)") from None
        if has_empty(self.bounds):
            raise InvalidProgramError("an XNNPACK graph has tensors without elements at its bounds")
        # Sizes may differ: a file states those of an upper bound, rounded in its own way. What
        # has no dimensions, the stock compiler declares with one, of size 1.
        for i, shape in self.bounds.items() if self.bounds is not declared else ():
            if len(shape) != len(declared[i]) and (shape or declared[i] != (1,)):
                raise InvalidProgramError(
                    f"value {i} of an XNNPACK graph is declared {list(declared[i])},"
                    f" but its node gives {list(shape)}"
                )
        self._reductions = reductions(graph)
        if not graph.checked:
            check_memory(graph, self.bounds)
        self._good: dict[tuple[Shape, ...], Needs | Reduced] = {
            inputs: needs(self._reductions, self.bounds)
        }

    def check(self, inputs: tuple[Shape, ...]) -> Needs | Reduced:
        """Can the graph run at these shapes of its inputs?

        Returns what its nodes need that XNNPACK does not plan anew by itself: where this is not
        what the last shapes needed, XNNPACK has to be made to plan. Where some tensors have no
        elements, XNNPACK cannot run the graph, but what is left of it.

        Raises:
            InputError: a node cannot take the shapes that follow from them.
        """
        if inputs in self._good:
            return self._good[inputs]
        try:
            shapes = self._infer(inputs)
            found = self._found(shapes)
        except ShapeError as error:
            raise InputError(f"{error} at the input shapes {_text(inputs)}") from None
        if len(self._good) >= _REMEMBERED:
            self._good.pop(next(iter(self._good)))
        self._good[inputs] = found
        return found

    def shapes(self, inputs: tuple[Shape, ...]) -> Mapping[int, Shape]:
        """The shapes of all values at shapes of the inputs that were found to be good."""
        return self.bounds if inputs == self._declared else self._infer(inputs)

    def _found(self, shapes: dict[int, Shape]) -> Needs | Reduced:
        if not has_empty(shapes):
            return needs(self._reductions, shapes)
        outputs = tuple(shapes[i] for i in self._graph.outputs)
        return Reduced(rest(self._graph, shapes), outputs)

    def _infer(self, inputs: Sequence[Shape]) -> dict[int, Shape]:
        shapes = {v.id: v.shape for v in self._graph.values if v.data is not None}
        shapes.update(zip(self._inputs, inputs, strict=True))
        infer(self._nodes, shapes)
        return shapes


def check_memory(graph: XnnGraph, bounds: Mapping[int, Shape]) -> None:
    """Raises UnsupportedError if a run at ``bounds``, the largest shapes of all values, would need
    more memory than there is."""
    bits = {v.id: v.dtype.traits.bits or 0 for v in graph.values if v.data is None}
    need = peak_memory(graph.nodes, bounds, bits)
    if need > _SMALL and need > (there := available_memory()):
        raise UnsupportedError(
            f"a run at the input shapes {_text([bounds[i] for i in graph.inputs])} needs"
            f" {need / 1e9:.1f} GB of memory, there are {there / 1e9:.1f} GB"
        )


def _text(shapes: Sequence[Shape]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
