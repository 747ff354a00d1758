"""Which input shapes a graph can run at."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import InputError, InvalidProgramError, UnsupportedError
from penstock.formats.payload import XnnGraph
from penstock.runtime.engine import Shape
from penstock.runtime.xnnpack.budget import machine_memory, peak_memory
from penstock.runtime.xnnpack.check import BITS
from penstock.runtime.xnnpack.infer import ShapeError, infer

#: Input shapes whose verdict is remembered.
_REMEMBERED = 256


class ShapeChecker:
    """Checks input shapes of one graph before XNNPACK sees them.

    The making of one checks the declared shapes, which are the upper bounds.

    Raises:
        InvalidProgramError: a node cannot take the declared shapes of its inputs, or the declared
            rank of a value is not the one that its node gives.
    """

    def __init__(self, graph: XnnGraph) -> None:
        self._nodes = graph.nodes
        self._inputs = graph.inputs
        self._constants = {v.id: v.shape for v in graph.values if v.data is not None}
        self._bits = {v.id: BITS[v.dtype] for v in graph.values if v.data is None}
        declared = {v.id: v.shape for v in graph.values}
        bounds = tuple(declared[i] for i in graph.inputs)
        try:
            shapes = self._infer(bounds)
        except ShapeError as error:
            raise InvalidProgramError(f"{error} (in an XNNPACK graph)") from None
        # Sizes may differ: a file states those of an upper bound, rounded in its own way.
        for i, shape in shapes.items():
            if len(shape) != len(declared[i]):
                raise InvalidProgramError(
                    f"value {i} of an XNNPACK graph is declared {list(declared[i])},"
                    f" but its node gives {list(shape)}"
                )
        self._needs = {bounds: peak_memory(self._nodes, shapes, self._bits)}

    def check(self, inputs: tuple[Shape, ...]) -> None:
        """Can the graph run at these shapes of its inputs?

        Raises:
            InputError: a node cannot take the shapes that follow from them.
            UnsupportedError: the run would need more memory than the machine has.
        """
        need = self._needs.get(inputs)
        if need is None:
            try:
                shapes = self._infer(inputs)
            except ShapeError as error:
                raise InputError(f"{error} at the input shapes {_text(inputs)}") from None
            need = peak_memory(self._nodes, shapes, self._bits)
            if len(self._needs) >= _REMEMBERED:
                self._needs.pop(next(iter(self._needs)))
            self._needs[inputs] = need
        if need > machine_memory():
            raise UnsupportedError(
                f"a run at the input shapes {_text(inputs)} needs {need / 1e9:.1f} GB,"
                f" the machine has {machine_memory() / 1e9:.1f} GB"
            )

    def _infer(self, inputs: Sequence[Shape]) -> dict[int, Shape]:
        shapes = {**self._constants, **dict(zip(self._inputs, inputs, strict=True))}
        infer(self._nodes, shapes)
        return shapes


def _text(shapes: Sequence[Shape]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
