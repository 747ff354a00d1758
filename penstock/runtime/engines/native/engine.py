"""The engine that runs graphs on our own kernels."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.errors import InputError, UnsupportedError
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.runtime.blocks import OVERREAD, address
from penstock.runtime.engines.native import library as libraries
from penstock.runtime.engines.native.composed import (
    PlannedGraph,
    all_attention_in,
    check_array,
    check_process,
    placed,
)
from penstock.runtime.engines.native.families import bind_families, kernel_names
from penstock.runtime.engines.native.family import Family, Prepared, Step, Workshop
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.memory import PackedWeights
from penstock.runtime.engines.native.plan import Field, Link, Over, Plan, address_of, field_address
from penstock.runtime.engines.native.program_steps import ProgramSteps
from penstock.runtime.engines.native.selftest import self_test
from penstock.runtime.engines.native.survey import Survey
from penstock.runtime.engines.native.tables import Tables
from penstock.runtime.engines.parts import Part
from penstock.runtime.engines.planner import Composed
from penstock.runtime.engines.protocol import MEASURING, Engine, Executable, NodeTime
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.buffers import constant
from penstock.runtime.engines.xnnpack.check import check_graph
from penstock.runtime.engines.xnnpack.input_shapes import ShapeChecker, check_memory


@functools.cache
def checked_library() -> Library:
    """The library of this process, loaded and self-tested at the first call.

    Raises: as :func:`penstock.runtime.engines.native.library.shared_library`, and
        BackendUnavailableError where a kernel computes wrongly.
    """
    library = libraries.shared_library()
    check_library(library)
    return library


def check_library(library: Library) -> None:
    """Run the self-test on ``library``. Raises BackendUnavailableError where it fails."""
    self_test(library, NativeEngine(everything=True, library=library))


class NativeEngine:
    """Compiles graphs for our own kernels.

    Args:
        everything: take each node that a kernel can run, also where another engine is faster.
        profile: measure the time of each node.
        library: another library than the process's own.
        blocks: the memory of packed weights, which other engines may share.
    """

    def __init__(
        self,
        *,
        everything: bool = False,
        profile: bool = False,
        library: Library | None = None,
        blocks: WeightBlocks | None = None,
    ) -> None:
        self.library = library or checked_library()
        bind_families(self.library)
        self._everything = everything
        self.profile = profile
        self._blocks = blocks or WeightBlocks()
        #: Blocks of zeros that padding is read from, and their addresses: the largest is the last.
        self._zeros: list[tuple[np.ndarray, int]] = []
        self._tables = Tables()
        #: what was found about the graph that was asked about last
        self._survey = Survey(XnnGraph(), self._tables, self.library)

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        """See :meth:`penstock.runtime.engines.protocol.Engine.reason_against`."""
        if graph is not self._survey.graph:
            check_graph(graph)
            self._blocks.expect(graph)
            self._survey = Survey(graph, self._tables, self.library)
        reason = self._survey.unable(node)
        return reason if reason or self._everything else self._survey.slower(node)

    def compile(self, graph: XnnGraph, *, threads: Threads) -> NativeExecutable:
        """See :meth:`penstock.runtime.engines.protocol.Engine.compile`."""
        asked = graph is self._survey.graph  # then it has been checked
        if not asked:
            check_graph(graph)
        checker = ShapeChecker(graph, self._survey.bounds if asked else None)
        packed = PackedWeights(self._blocks)
        workshop = Workshop(self.library, packed, self._zeros_of, threads.count)
        # The nodes of a part are those of the whole, whose survey has them.
        survey = self._survey
        if not all(map(survey.knows, graph.nodes)):
            survey = Survey(graph, self._tables, self.library)
        prepared: list[tuple[Family, Prepared] | None] = []
        units: dict[int, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            chain = survey.chain_of(node)
            if chain is not None:
                units.setdefault(id(chain), []).append(index)
                last = chain.nodes[-1] is node
                prepared.append((chain.family, chain.packed(workshop)) if last else None)
                continue
            found = survey.found(node)
            if isinstance(found, str):
                raise UnsupportedError(
                    f"node {index} is of kind {node.kind.name}, which our own kernels lack here"
                )
            prepared.append((found.family, found.pack(workshop)))
            packed.packed()
        packed.packed(all=True)
        return NativeExecutable(
            self, graph, checker, prepared, packed, threads, tuple(map(tuple, units.values()))
        )

    @property
    def kernel_steps(self) -> ProgramSteps:
        """See :class:`penstock.runtime.engines.protocol.Surrounding`."""
        return ProgramSteps(self.library)

    def units(self, graph: XnnGraph) -> Sequence[Sequence[int]]:
        """See :meth:`penstock.runtime.engines.planner.Composer.units`."""
        return self._survey.units() if graph is self._survey.graph else ()

    def bounds(self, graph: XnnGraph) -> Mapping[int, Shape] | None:
        """See :meth:`penstock.runtime.engines.planner.Composer.bounds`."""
        found = self._survey.bounds if graph is self._survey.graph else None
        if found is not None:
            check_memory(graph, found)
        return found

    def composed(
        self,
        graph: XnnGraph,
        parts: Sequence[Part],
        executables: Sequence[Executable],
        threads: Threads,
    ) -> Composed:
        """See :meth:`penstock.runtime.engines.planner.Composer.composed`."""
        profile = self.profile
        return PlannedGraph(graph, parts, executables, self.library, threads, profile=profile)

    def _zeros_of(self, size: int) -> int:
        if not self._zeros or self._zeros[-1][0].nbytes < size:
            block = np.zeros(size, np.uint8)
            self._zeros.append((block, address(block)))
        return self._zeros[-1][1]


class NativeExecutable:
    """A graph of nodes that our own kernels run. Made by :meth:`NativeEngine.compile`."""

    def __init__(
        self,
        engine: NativeEngine,
        graph: XnnGraph,
        checker: ShapeChecker,
        prepared: Sequence[tuple[Family, Prepared] | None],
        packed: PackedWeights,
        threads: Threads,
        units: Sequence[Sequence[int]] = (),
    ) -> None:
        #: the positions of the nodes that run as one
        self.units = units
        self._engine = engine
        self._graph = graph
        self._checker = checker
        self._prepared = prepared
        self._packed = packed
        #: whether kernels may read inputs past their ends
        self.overreads = any(entry[0].overread for entry in prepared if entry)
        self._threads = threads
        self._process = None if threads.pool() is None else os.getpid()
        self._values = {value.id: value for value in graph.values}
        self._ports = [*graph.inputs, *graph.outputs]
        self._dtypes = [_array_type(self._values[i]) for i in self._ports]
        self._given: tuple[Shape, ...] | None = None
        self._shapes: Mapping[int, Shape] = {}
        self._link: Link | None = None
        #: the nodes that the steps of the link belong to
        self._stepped: list[int] = []
        self._plan: Plan | None = None
        self._times: list[NodeTime] = []

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.reshape`."""
        given = tuple(input_shapes)
        if given != self._given:
            if len(given) != len(self._graph.inputs):
                raise InputError(
                    f"{len(given)} input shapes given; the graph takes {len(self._graph.inputs)}"
                )
            for index, (i, shape) in enumerate(zip(self._graph.inputs, given, strict=True)):
                bound = self._values[i].shape
                if len(shape) != len(bound) or any(
                    s > b for s, b in zip(shape, bound, strict=True)
                ):
                    raise InputError(
                        f"input {index} of the graph has shape {list(shape)};"
                        f" it takes {list(bound)} at most"
                    )
            self._checker.check(given)
            self._given = None
            self._shapes = self._checker.shapes(given)
            self._link = self._linked()
            self._plan = None
            self._given = given
        return tuple(self._shapes[i] for i in self._graph.outputs)

    @property
    def skips_hidden(self) -> bool:
        """See :class:`penstock.runtime.engines.protocol.Attending`. Chains with a softmax are all
        attention."""
        return all_attention_in(self._graph, self.units)

    def link(self) -> Link:
        """What runs at the shapes of the last :meth:`reshape`, for a plan. Values go by the ids of
        this graph. A later :meth:`run` binds the same fields: not to be mixed."""
        assert self._link is not None
        self._plan = None  # whose memory the fields will not point to
        return self._link

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """See :meth:`penstock.runtime.engines.protocol.Executable.run`."""
        if self._given is None:
            self.reshape([array.shape for array in inputs])
        arrays = [*inputs, *outputs]
        if len(inputs) != len(self._graph.inputs) or len(arrays) != len(self._ports):
            raise InputError(
                f"{len(inputs)} inputs and {len(outputs)} outputs given; the graph has"
                f" {len(self._graph.inputs)} and {len(self._graph.outputs)}"
            )
        for i, array, dtype in zip(self._ports, arrays, self._dtypes, strict=True):
            check_array(array, self._shapes[i], dtype)
        check_process(self._process)
        places = [placed(array, overread=self.overreads) for array in arrays]
        addresses = [address(array) for array in places]
        if self._plan is None:
            # Not before: in a larger plan the link is bound to that one's memory.
            library, link = self._engine.library, self.link()
            self._plan = Plan(library, self._threads, [link], self._ports, {})
        if self._engine.profile:
            self._run_measured(self._plan, addresses)
        else:
            self._plan.run(addresses)
        for array, place in zip(arrays[len(inputs) :], places[len(inputs) :], strict=True):
            if place is not array:
                array[...] = place

    def fixed(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> Callable[[], None] | None:
        """See :meth:`penstock.runtime.engines.protocol.Fixable.fixed`."""
        plan, arrays = self._plan, [*inputs, *outputs]
        if plan is None or self._engine.profile or len(arrays) != len(self._ports):
            return None
        for i, array, dtype in zip(self._ports, arrays, self._dtypes, strict=True):
            check_array(array, self._shapes[i], dtype)
            if placed(array, overread=self.overreads) is not array:
                return None
        run, process = plan.fixed(arrays), self._process

        def call() -> None:
            if process is not None:
                check_process(process)
            run()

        return call

    def clone(self, sibling: Callable[[Engine], Engine], threads: Threads) -> NativeExecutable:
        """See :meth:`penstock.runtime.engines.protocol.Clonable.clone`. Runs write to nothing that
        the engine has: it serves the clone too."""
        checker = ShapeChecker(self._graph)
        return NativeExecutable(
            self._engine, self._graph, checker, self._prepared, self._packed, threads, self.units
        )

    def adapted(self, graph: XnnGraph) -> NativeExecutable | None:
        """See :meth:`penstock.runtime.engines.protocol.Adaptable.adapted`. What was prepared has
        the node's own attributes, so it serves a node that is the same; chains have no sizes."""
        pairs = list(zip(graph.nodes, self._graph.nodes, self._prepared, strict=True))
        if not all(new == old or entry is None or not entry[0].kinds for new, old, entry in pairs):
            return None
        checker = ShapeChecker(graph)
        return NativeExecutable(
            self._engine, graph, checker, self._prepared, self._packed, self._threads, self.units
        )

    def profile(self) -> list[NodeTime]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.profile`."""
        return self._times

    def _run_measured(self, plan: Plan, addresses: Sequence[int]) -> None:
        self._times = []
        kernels = kernel_names(self._engine.library)
        begin, inside = time.perf_counter_ns(), 0.0
        for index, number in enumerate(self._stepped):
            start = time.perf_counter_ns()
            plan.run_step(index, addresses)
            spent = (time.perf_counter_ns() - start) / 1000
            inside += spent
            entry = self._prepared[number]
            assert entry is not None
            name = entry[0].name
            self._times.append(NodeTime(f"{name} {kernels[name]}", spent, number, "native"))
        # Unmeasured, all steps are one call.
        around = (time.perf_counter_ns() - begin) / 1000 - inside
        self._times.append(NodeTime(MEASURING, around, None, "native"))

    def _linked(self) -> Link:
        """The steps of all nodes."""
        steps = self._steps()
        self._stepped = [number for number, _ in steps]
        sizes = {value: size for _, step in steps for value, size in step.sizes.items()}
        constants = {i for i, value in self._values.items() if value.data is not None}
        link = Link(keep=[steps, self._packed, self._engine])
        for position, (_, step) in enumerate(steps):
            function = address_of(self._engine.library.functions, step.function)
            link.steps.append((function, ctypes.addressof(step.task), 0))
            for value, name in step.fields:
                place = field_address(step.task, name)
                if value in constants:  # what is neither computed nor packed
                    ctypes.c_void_p.from_address(place).value = self._constant_at(value, link)
                    continue
                link.fields.append(Field(value, place, position))
                if value not in self._ports and value not in link.sizes:
                    link.sizes[value] = sizes[value] if value in sizes else self._size(value)
            for pair, same in ((step.over, False), (step.same, True)):
                if pair and pair[1] not in constants:
                    link.overs.append(Over(*pair, position, same))
            if step.scratch:
                key = f"scratch of step {position}"
                link.fields.append(Field(key, field_address(step.task, "scratch"), position))
                link.sizes[key] = step.scratch + OVERREAD
        return link

    def _constant_at(self, value: int, link: Link) -> int:
        """The address of a constant, which ``link`` keeps."""
        found = self._values[value]
        array = constant(found.data, found.dtype.traits.alignment)
        link.keep.append(array)
        return address(array)

    def _steps(self) -> list[tuple[int, Step]]:
        """The steps by the number of their node. What has no elements is not computed; what is
        computed from nothing is 0."""
        found = []
        empty = {i for i, shape in self._shapes.items() if 0 in shape}
        for number, (node, entry) in enumerate(zip(self._graph.nodes, self._prepared, strict=True)):
            if entry is None or (empty and not empty.isdisjoint(node.outputs)):
                continue
            if empty and not empty.isdisjoint(node.inputs):
                raise InputError(f"node {number} ({node.kind.name}) has no elements to work on")
            found.append((number, entry[1].step(self._shapes)))
        return found

    def _size(self, value: int) -> int:
        itemsize = _array_type(self._values[value]).itemsize
        return math.prod(self._shapes[value]) * itemsize + OVERREAD


def _array_type(value: Value) -> np.dtype[Any]:
    found = value.dtype.traits.array
    assert found is not None  # what has none, no kernel of ours makes
    return found
