"""Which engine runs which part of a graph on this machine, and the executable of all parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.graph.graph import Shape, XnnGraph
from penstock.graph.shapes import ShapeError
from penstock.runtime import blocks
from penstock.runtime.engines import arena
from penstock.runtime.engines.parts import Part, cut
from penstock.runtime.engines.protocol import (
    Adaptable,
    Clonable,
    Engine,
    Executable,
    NodeTime,
)
from penstock.runtime.engines.threads import Threads
from penstock.runtime.mapped import drop_files


def compile_graph(graph: XnnGraph, engines: Sequence[Engine], *, threads: Threads) -> Executable:
    """Makes ``graph`` executable by ``engines``, the preferred one first. The last one runs what no
    other takes.

    Raises:
        InvalidProgramError: the graph contradicts itself or its constants.
        UnsupportedError: no engine can execute a node of it.
    """
    chosen = choose(graph, engines)
    # Checks read scales, which lie between the weights: the system brings their neighbours too.
    drop_files(value.data for value in graph.values)
    if len(set(chosen)) <= 1:
        return engines[chosen[0] if chosen else -1].compile(graph, threads=threads)
    composer = engines[0] if isinstance(engines[0], Composer) else None
    units = composer.units(graph) if composer else ()
    shapes = composer.bounds(graph) if composer else None
    try:
        parts = cut(graph, chosen, checked=composer is not None, units=units, shapes=shapes)
    except ShapeError as error:
        raise InvalidProgramError(f"{error} (in an XNNPACK graph)") from None
    executables = [engines[part.engine].compile(part.graph, threads=threads) for part in parts]
    if composer:
        return composer.composed(graph, parts, executables, threads)
    return Composed(graph, parts, executables)


def choose(graph: XnnGraph, engines: Sequence[Engine]) -> list[int]:
    """The number of the engine for each node: the first that can run it and would be faster with
    it here, else the last."""
    rest = len(engines) - 1
    return [
        next(
            (
                number
                for number, engine in enumerate(engines[:rest])
                if engine.reason_against(graph, node) is None
            ),
            rest,
        )
        for node in graph.nodes
    ]


@runtime_checkable
class Composer(Protocol):
    """An engine that, where it is the preferred one, has a way of its own to run all parts. It has
    checked a graph when it was asked about its nodes."""

    def units(self, graph: XnnGraph) -> Sequence[Sequence[int]]:
        """The positions of nodes that it runs as one, where it has them; see
        :func:`penstock.runtime.engines.parts.cut`."""

    def bounds(self, graph: XnnGraph) -> Mapping[int, Shape] | None:
        """The shapes of all values (:func:`penstock.graph.shapes.bounds`); None where they
        contradict each other.

        Raises UnsupportedError if a run would need more memory than there is.
        """

    def composed(
        self,
        graph: XnnGraph,
        parts: Sequence[Part],
        executables: Sequence[Executable],
        threads: Threads,
    ) -> Executable:
        """What :class:`Composed` is, for ``parts`` of ``graph`` and what each was compiled to."""


class Composed:
    """Executables of the parts of one graph, run in order. Values between parts lie in one block
    of memory, planned by their live ranges."""

    def __init__(
        self, graph: XnnGraph, parts: Sequence[Part], executables: Sequence[Executable]
    ) -> None:
        self._graph = graph
        self._inputs, self._outputs = tuple(graph.inputs), tuple(graph.outputs)
        self._steps = list(zip(parts, executables, strict=True))
        # What has no type of array stays inside a part.
        self._dtypes = {v.id: t for v in graph.values if (t := v.dtype.traits.array) is not None}
        self._shapes: dict[int, Shape] = {}
        self._given: tuple[Shape, ...] | None = None
        self._between: dict[int, np.ndarray] = {}
        outer = {*self._inputs, *self._outputs}
        self._inner = {i for part in parts for i in part.outputs if i not in outer}
        self._written = {i: n for n, part in enumerate(parts) for i in part.outputs}
        self._read = {i: n for n, part in enumerate(parts) for i in part.inputs}

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.reshape`."""
        given = tuple(input_shapes)
        if given != self._given:
            self._given = None
            shapes = dict(zip(self._inputs, given, strict=True))
            for part, executable in self._steps:
                made = executable.reshape([shapes[i] for i in part.inputs])
                shapes.update(zip(part.outputs, made, strict=True))
            self._shapes = shapes
            self._prepare()
            self._given = given  # not before: an interrupt leaves what must be done again
        return tuple(self._shapes[i] for i in self._outputs)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """See :meth:`penstock.runtime.engines.protocol.Executable.run`."""
        if self._given is None:
            self.reshape([array.shape for array in inputs])
        arrays = dict(self._between)
        arrays.update(zip(self._inputs, inputs, strict=True))
        arrays.update(zip(self._outputs, outputs, strict=True))
        for part, executable in self._steps:
            executable.run([arrays[i] for i in part.inputs], [arrays[i] for i in part.outputs])

    def clone(self, sibling: Callable[[Engine], Engine], threads: Threads) -> Composed | None:
        """See :meth:`penstock.runtime.engines.protocol.Clonable.clone`."""
        executables = []
        for _, executable in self._steps:
            clone = executable.clone(sibling, threads) if isinstance(executable, Clonable) else None
            if clone is None:
                return None
            executables.append(clone)
        return self._of(self._graph, [part for part, _ in self._steps], executables, threads)

    def adapted(self, graph: XnnGraph) -> Composed | None:
        """See :meth:`penstock.runtime.engines.protocol.Adaptable.adapted`."""
        engines = [0] * len(graph.nodes)
        for part, _ in self._steps:
            for position in part.nodes:
                engines[position] = part.engine
        parts = cut(graph, engines, units=self._units())
        executables: list[Executable] = []
        for (old, executable), part in zip(self._steps, parts, strict=True):
            adapted = None
            if old.nodes == part.nodes and isinstance(executable, Adaptable):
                adapted = executable.adapted(part.graph)
            if adapted is None:
                return None
            executables.append(adapted)
        return self._of(graph, parts, executables)

    def _units(self) -> Sequence[Sequence[int]]:
        """See :meth:`Composer.units`."""
        return [
            [part.nodes[n] for n in unit]
            for part, executable in self._steps
            for unit in getattr(executable, "units", ())
        ]

    def _of(
        self,
        graph: XnnGraph,
        parts: Sequence[Part],
        executables: Sequence[Executable],
        threads: Threads | None = None,
    ) -> Composed:
        return Composed(graph, parts, executables)

    def profile(self) -> list[NodeTime]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.profile`."""
        return [
            time._replace(node=None if time.node is None else part.nodes[time.node])
            for part, executable in self._steps
            for time in executable.profile()
        ]

    def _prepare(self) -> None:
        """Make ready for runs at the shapes at hand."""
        self._between = self._allocated()

    def _allocated(self) -> dict[int, np.ndarray]:
        live = {}
        for i in self._inner:
            size = math.prod(self._shapes[i]) * self._dtypes[i].itemsize
            live[i] = arena.Live(size + blocks.OVERREAD, self._written[i], self._read[i])
        offsets, total = arena.plan(live)
        room = blocks.empty(total)
        arrays = {}
        for i, offset in offsets.items():
            block = room[offset : offset + live[i].size - blocks.OVERREAD]
            arrays[i] = block.view(self._dtypes[i]).reshape(self._shapes[i])
        return arrays
