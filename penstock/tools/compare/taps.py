"""The intermediate values of a program: :class:`ProgramSide`.

A delegate's come from its graph with more outputs: the last value of each operator of the model
(where the file has no source map: of each node). What is outside the delegates is seen after each
instruction.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from penstock.formats.program import KernelCall, MoveCall
from penstock.formats.sources import KEY, MethodSources, Origin, decode_sources
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.runtime import load
from penstock.runtime.engines.named import engines_named
from penstock.runtime.engines.planner import compile_graph
from penstock.runtime.engines.protocol import Engine, Executable, NodeTime
from penstock.runtime.engines.threads import Threads
from penstock.runtime.instructions import Done

#: The kernel that makes integers with a scale and a zero point, its second and third argument.
ROUNDS = "quantized_decomposed::quantize_per_tensor.out"


@dataclass(frozen=True)
class Tap:
    """A value that a program computes on the way. ``kind`` is the node's or the kernel's,
    ``dtype`` its type in the program, ``array`` its real numbers as they lie in memory. ``reads``
    are the positions, in the same list, of the values that it was computed from."""

    origin: Origin
    kind: str
    dtype: str
    array: np.ndarray
    reads: tuple[int, ...] = ()


def counts(tap: Tap) -> bool:
    """Whether a value belongs to the model: not to its quantization."""
    return not tap.origin.operator.startswith("quantized_decomposed.")


def plain_name(name: str) -> str:
    """The name of an operator or kernel without its namespace and overload: ``view`` for
    ``aten::view_copy.out`` and for ``aten.view.default``; a node's stays as it is."""
    parts = name.replace("::", ".").split(".")
    return parts[min(1, len(parts) - 1)].removesuffix("_copy")


def type_name(dtype: object) -> str:
    """A NumPy type as payloads call it: ``fp32`` for ``float32``; others keep their names."""
    name = str(dtype)
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(name, name)


class Side(Protocol):
    """One of the two that are compared."""

    label: str

    def run(self, inputs: Sequence[Any]) -> tuple[list[np.ndarray], list[Tap]]:
        """The outputs (floating-point and integer arrays), and what was computed on the way, in
        order."""


class ProgramSide:
    """A program, from its file, on an engine.

    Raises what :func:`penstock.load` and :meth:`LoadedProgram.method` raise.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, label: str, engine: str = "auto",
        data: Sequence[str] = (), threads: int | None = None,
    ) -> None:  # fmt: skip
        self.label = label
        tapping = _TappingEngine(engines_named(engine))
        loaded = load(path, data=data, threads=threads, engine=tapping)
        method = loaded.program.method(loaded.default_name())
        assert method is not None
        self.program = method
        named = loaded.program.named_data
        sources = decode_sources(named[KEY]).get(method.name) if KEY in named else None
        #: whether the file says where its nodes come from
        self.traced = sources is not None
        self._sources = sources or MethodSources()
        tapping.sources = self._sources if self.traced else None
        self.method = loaded.method()
        self._delegates = tapping.executables

    @property
    def quantized(self) -> bool:
        """Whether any of its delegates holds quantized values."""
        return any(executable.quantized for executable in self._delegates)

    def run(self, inputs: Sequence[Any]) -> tuple[list[np.ndarray], list[Tap]]:
        """See :class:`Side`. Raises InputError for inputs that do not fit."""
        taps: list[Tap] = []
        #: where each of the method's values comes from: positions among the taps
        origins: dict[int, tuple[int, ...]] = {}

        def see(done: Done) -> None:
            call = self.program.instructions[done.position]
            if isinstance(call, MoveCall):
                origins[call.target] = origins.get(call.source, ())
            if isinstance(call, KernelCall):
                reads = _sources(origins, done.reads)
                kind = str(self.program.operators[call.operator])
                origin = self._sources.of_instruction(done.position)
                for number, value in zip(done.writes, done.written, strict=True):
                    origins[number] = reads
                    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                        origins[number] = (len(taps),)
                        array, dtype = self._written(call, kind, value)
                        taps.append(Tap(origin, kind, dtype, array, reads))
            for delegate in self._delegates:
                given = [origins.get(number, ()) for number in done.reads]
                taken, ends = delegate.taken(len(taps), given)
                taps.extend(taken)
                origins.update(zip(done.writes, ends, strict=False))

        outputs = self.method.observed(inputs, see)
        own = outputs[len(self.method.written) :]
        return [np.asarray(o) for o in own if isinstance(o, np.ndarray)], taps

    def _written(self, call: KernelCall, kind: str, value: np.ndarray) -> tuple[np.ndarray, str]:
        """What a kernel wrote, in real numbers, and its type."""
        name = type_name(value.dtype)
        if kind == ROUNDS:
            scale, zero_point = (self.program.values[number] for number in call.args[1:3])
            if isinstance(scale, float) and isinstance(zero_point, int):
                return _steps(value, scale, zero_point), f"q{name}"
        return value.copy(), name


class _TappingEngine:
    """Compiles graphs with more outputs, for the engines that it stands before."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self.sources: MethodSources | None = None
        self.executables: list[_Tapped] = []

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        return None

    def compile(self, graph: XnnGraph, *, threads: Threads) -> Executable:
        number = len(self.executables)
        of_node = None if self.sources is None else partial(self.sources.of_node, number)
        chosen = _chosen(graph, traced=of_node is not None)
        opened = _opened(graph, [value for value, _ in chosen])
        executable = compile_graph(opened, self._engines, threads=threads)
        origins = [Origin() if of_node is None else of_node(n.debug_handle) for _, n in chosen]
        tapped = _Tapped(graph, chosen, origins, executable)
        self.executables.append(tapped)
        return tapped


def _chosen(graph: XnnGraph, *, traced: bool) -> list[tuple[Value, Node]]:
    """The values to look at, each with its node: the last one of each debug handle, or all."""
    values = {value.id: value for value in graph.values}
    found: dict[int, tuple[Value, Node]] = {}
    for position, node in enumerate(graph.nodes):
        key = node.debug_handle if traced and node.debug_handle else -1 - position
        for output in node.outputs[:1]:
            if values[output].dtype.traits.array is not None:
                found.pop(key, None)  # in the order of what counts
                found[key] = values[output], node
    return list(found.values())


def _opened(graph: XnnGraph, shown: Sequence[Value]) -> XnnGraph:
    """A copy of ``graph`` that gives ``shown`` after its own outputs."""
    ids = [value.external_id for value in graph.values if value.external_id is not None]
    following = max(ids, default=-1) + 1
    places: dict[int, int] = {}
    for value in shown:
        if not value.is_output:
            places[value.id] = following + len(places)
    values = [
        dataclasses.replace(value, is_output=True, external_id=places[value.id])
        if value.id in places
        else value
        for value in graph.values
    ]
    return dataclasses.replace(graph, values=values, outputs=[*graph.outputs, *places])


class _Tapped:
    """An executable whose further outputs are kept until they are taken."""

    def __init__(
        self,
        graph: XnnGraph,
        chosen: Sequence[tuple[Value, Node]],
        origins: Sequence[Origin],
        executable: Executable,
    ) -> None:
        self._graph, self._inner = graph, executable
        self._chosen, self._origins = chosen, origins
        self._own = len(graph.outputs)
        self._shapes: tuple[Shape, ...] = ()
        self._ids = [*graph.outputs, *(v.id for v, _ in chosen if not v.is_output)]
        self._dtypes = [v.dtype.traits.array for v, _ in chosen if not v.is_output]
        self._found: list[dict[int, np.ndarray]] = []
        self.quantized = any(value.quantization is not None for value in graph.values)

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        self._shapes = tuple(self._inner.reshape(input_shapes))
        return self._shapes[: self._own]

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        more = [
            np.empty(shape, dtype)
            for shape, dtype in zip(self._shapes[self._own :], self._dtypes, strict=True)
        ]
        self._inner.run(inputs, [*outputs, *more])
        self._found.append(
            {
                id: array.copy() if position < self._own else array
                for position, (id, array) in enumerate(
                    zip(self._ids, (*outputs, *more), strict=True)
                )
            }
        )

    def profile(self) -> list[NodeTime]:
        return self._inner.profile()

    def taken(
        self, start: int, given: Sequence[tuple[int, ...]]
    ) -> tuple[list[Tap], list[tuple[int, ...]]]:
        """What was computed since the last call, the first of it at position ``start``; and the
        positions that each output of the graph comes from. ``given`` are those of its inputs."""
        taps: list[Tap] = []
        origins: dict[int, tuple[int, ...]] = {}
        for arrays in self._found:
            places = {value.id: start + n for n, (value, _) in enumerate(self._chosen, len(taps))}
            inputs = dict(zip(self._graph.inputs, given, strict=True))
            reads, origins = _reads(self._graph, places, inputs)
            for (value, node), origin in zip(self._chosen, self._origins, strict=True):
                taps.append(
                    Tap(
                        origin,
                        node.kind.name.lower(),
                        value.dtype.name.lower(),
                        _real(arrays[value.id], value),
                        reads[value.id],
                    )
                )
        ran = bool(self._found)
        self._found.clear()
        return taps, [origins.get(id, ()) for id in self._graph.outputs] if ran else []


def _sources(origins: Mapping[int, tuple[int, ...]], values: Iterable[int]) -> tuple[int, ...]:
    """The positions that ``values`` come from, each once."""
    return tuple(dict.fromkeys(p for value in values for p in origins.get(value, ())))


def _reads(
    graph: XnnGraph, places: Mapping[int, int], given: Mapping[int, tuple[int, ...]]
) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
    """For each value of a graph the positions that it was computed from, and those that stand for
    it: its own, of ``places``, or else the former. ``given`` has the latter of the inputs."""
    reads: dict[int, tuple[int, ...]] = {}
    origins = dict(given)
    for node in graph.nodes:
        found = _sources(origins, node.inputs)
        for output in node.outputs:
            reads[output] = found
            origins[output] = (places[output],) if output in places else found
    return reads, origins


def _real(array: np.ndarray, value: Value) -> np.ndarray:
    """The real numbers that an array in the value's type stands for."""
    if value.dtype is DataType.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    if isinstance(value.quantization, PerTensor):
        return _steps(array, value.quantization.scale, value.quantization.zero_point)
    return array


def _steps(integers: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return (integers.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
