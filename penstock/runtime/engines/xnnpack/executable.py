"""A graph that XNNPACK has compiled: :class:`XnnpackExecutable`."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from ctypes import byref, c_size_t, c_void_p
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from penstock.errors import BackendUnavailableError, InputError
from penstock.graph.graph import MAX_TENSOR_DIMS, Shape, Value, XnnGraph
from penstock.runtime.blocks import address, empty, has_room
from penstock.runtime.engines.protocol import Engine, NodeTime
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.bindings import ExternalValue
from penstock.runtime.engines.xnnpack.buffers import readable_past_end
from penstock.runtime.engines.xnnpack.empty import Rest, filling
from penstock.runtime.engines.xnnpack.input_shapes import Reduced, ShapeChecker
from penstock.runtime.engines.xnnpack.interrupts import interrupts_held
from penstock.runtime.engines.xnnpack.library import Library
from penstock.runtime.engines.xnnpack.node_times import nodes_of
from penstock.runtime.engines.xnnpack.packing import PackedWeights
from penstock.runtime.engines.xnnpack.ports import Port, array_type, check_array, check_shape
from penstock.runtime.engines.xnnpack.scratch import Needs
from penstock.runtime.engines.xnnpack.turn import Turn

#: Compiled rests of a graph that are kept, for shapes at which tensors have no elements.
_RESTS = 4


class Compiler(Engine, Protocol):
    """The engine of an executable, which keeps it for its workspace."""

    @property
    def library(self) -> Library: ...

    @property
    def turn(self) -> Turn:
        """The right to use the workspace."""

    @property
    def profiles(self) -> bool:
        """Whether the time of each node is measured."""

    def compiled(
        self, graph: XnnGraph, threads: Threads, weights: PackedWeights | None
    ) -> XnnpackExecutable:
        """The graph, on weights that are packed already, where those of it are given."""


class Runtime(NamedTuple):
    """An ``xnn_runtime_t`` for callers in C: the addresses of ``xnn_setup_runtime_v2`` and
    ``xnn_invoke_runtime``, and its inputs and outputs: their ids in the graph and their external
    ids."""

    handle: int
    setup: int
    invoke: int
    values: tuple[tuple[int, int], ...]


class XnnpackExecutable:
    """A graph that XNNPACK has compiled. Made by :meth:`XnnpackEngine.compile`."""

    def __init__(
        self,
        engine: Compiler,
        graph: XnnGraph,
        shapes: ShapeChecker,
        runtime: int,
        packed: PackedWeights,
        constants: list[np.ndarray],
        threads: Threads,
        process: int | None,
    ) -> None:
        self._engine = engine  # keeps the workspace
        self._turn = engine.turn
        self._library = engine.library
        self._xnn = engine.library.xnn
        self._checker = shapes
        self._runtime = runtime
        self._constants = constants
        self._packed = packed
        self._threads = threads
        self._process = process
        self._profiling = engine.profiles
        self._graph = graph
        self._nodes = graph.nodes
        #: the names of XNNPACK's operators and the nodes they belong to, once asked for
        self._operators: list[tuple[str, int | None]] | None = None
        values = {v.id: v for v in graph.values}
        self._inputs = [values[i] for i in graph.inputs]
        self._outputs = [values[i] for i in graph.outputs]
        consumed = {i for node in graph.nodes for i in node.inputs}
        # XNNPACK may read these past their ends; outputs only where a node reads them again.
        self._overread = [True] * len(self._inputs) + [v.id in consumed for v in self._outputs]
        ports = self._inputs + self._outputs
        self._dtypes = [array_type(v) for v in ports]
        self._externals = (ExternalValue * len(ports))()
        for external, value in zip(self._externals, ports, strict=True):
            external.id = value.external_id
        self._addresses: list[int] = []
        self._input_shapes: tuple[Shape, ...] | None = None
        #: what the plan of XNNPACK's memory was made for, as far as it does not see that itself
        self._needs: Needs | None = None
        self._output_shapes: tuple[Shape, ...] = ()
        #: the inputs and outputs at the last shapes
        self._ports: list[Port] = []
        self._bounce: dict[int, np.ndarray] = {}
        #: at the last shapes, if tensors have no elements there: what is left, and what runs it
        self._reduced: tuple[Rest, XnnpackExecutable | None] | None = None
        self._rests: dict[Rest, XnnpackExecutable] = {}
        delete_with(self, self._turn.delete, runtime, packed, threads)

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.reshape`."""
        shapes = tuple(input_shapes)
        if shapes == self._input_shapes:
            return self._output_shapes
        if len(shapes) != len(self._inputs):
            raise InputError(
                f"{len(shapes)} input shapes given; the graph takes {len(self._inputs)}"
            )
        for index, (shape, value) in enumerate(zip(shapes, self._inputs, strict=True)):
            check_shape(index, shape, value)
        needs = self._checker.check(shapes)
        if isinstance(needs, Reduced):
            self._input_shapes = None
            self._reduced, self._output_shapes = self._without_empty(needs), needs.outputs
            self._ports = self._ports_at(shapes + self._output_shapes)
            self._input_shapes = shapes
            return self._output_shapes
        self._input_shapes = self._reduced = None
        with self._turn.lock:
            if needs != self._needs:
                self._plan_anew()
            self._needs = None
            for shape, value in zip(shapes, self._inputs, strict=True):
                dims = (c_size_t * len(shape))(*shape)
                self._check(
                    self._xnn.xnn_reshape_external_value(
                        self._runtime, value.external_id, len(shape), dims
                    ),
                    shapes,
                )
            with interrupts_held():  # it asks where packed weights are
                status = self._xnn.xnn_reshape_runtime(self._runtime)
            self._check(status, shapes)
            self._output_shapes = tuple(self._external_shape(v) for v in self._outputs)
        if self._turn.garbage:
            self._turn.clean()
        self._ports = self._ports_at(shapes + self._output_shapes)
        self._addresses = []  # XNNPACK's own buffers may have moved
        self._bounce.clear()
        self._needs = needs
        self._input_shapes = shapes  # at last: an interrupt leaves what must be done again
        return self._output_shapes

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """See :meth:`penstock.runtime.engines.protocol.Executable.run`."""
        if self._input_shapes is None:
            self.reshape([a.shape for a in inputs])
        arrays = [*inputs, *outputs]
        if len(inputs) != len(self._inputs) or len(arrays) != len(self._dtypes):
            raise InputError(
                f"{len(inputs)} inputs and {len(outputs)} outputs given;"
                f" the graph has {len(self._inputs)} and {len(self._outputs)}"
            )
        if self._reduced is not None:
            self._run_reduced(arrays)
            return
        turn = self._turn
        with turn.lock:
            copied = self._place(arrays)
            self._check_process()
            status = self._xnn.xnn_invoke_runtime(self._runtime)
            if status:
                raise InputError(f"XNNPACK failed to run ({self._library.status(status)})")
            for port in copied:
                arrays[port][...] = self._bounce[port]
        if turn.garbage:
            turn.clean()

    def fixed(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> Callable[[], None] | None:
        """See :meth:`penstock.runtime.engines.protocol.Fixable.fixed`."""
        if self._reduced is not None or self._profiling or self._input_shapes is None:
            return None
        arrays = [*inputs, *outputs]
        turn, invoke, runtime = self._turn, self._xnn.xnn_invoke_runtime, c_void_p(self._runtime)
        with turn.lock:
            self._bounce.clear()  # a caller's arrays may have needed it; these are asked about
            self._place(arrays)
            if self._bounce:
                return None
            addresses = self._addresses
        process = self._process

        def call() -> None:
            nonlocal addresses
            with turn.lock:
                if process is not None:
                    self._check_process()
                if self._addresses is not addresses:  # a call with other arrays came between
                    self._place(arrays)
                    addresses = self._addresses
                status = invoke(runtime)
                if status:
                    raise InputError(f"XNNPACK failed to run ({self._library.status(status)})")
            if turn.garbage:
                turn.clean()

        return call

    def clone(self, sibling: Callable[[Engine], Engine], threads: Threads) -> XnnpackExecutable:
        """See :meth:`penstock.runtime.engines.protocol.Clonable.clone`."""
        engine = cast(Compiler, sibling(self._engine))
        return engine.compiled(self._graph, threads, self._packed)

    def adapted(self, graph: XnnGraph) -> XnnpackExecutable:
        """See :meth:`penstock.runtime.engines.protocol.Adaptable.adapted`."""
        return self._engine.compiled(graph, self._threads, self._packed)

    @property
    def turn(self) -> Turn:
        """The right to run, to be taken by who calls what :meth:`runtime` names."""
        return self._turn

    def runtime(self) -> Runtime | None:
        """The runtime at the shapes of the last :meth:`reshape`, for who sets it up and invokes it
        in place of :meth:`run`; None where this is more than that (when tensors have no elements,
        or times are measured)."""
        if self._reduced is not None or self._profiling or not self._runtime:
            return None
        self._addresses = []
        ports = self._inputs + self._outputs
        setup, invoke = self._xnn.xnn_setup_runtime_v2, self._xnn.xnn_invoke_runtime
        return Runtime(
            self._runtime,
            ctypes.cast(setup, c_void_p).value or 0,
            ctypes.cast(invoke, c_void_p).value or 0,
            tuple((v.id, v.external_id or 0) for v in ports),
        )

    def profile(self) -> list[NodeTime]:
        """See :meth:`penstock.runtime.engines.protocol.Executable.profile`."""
        if not self._profiling or not self._addresses:
            return []
        if self._operators is None:
            names = [name.decode() for name in self._profiling_info(1).split(b"\0")[:-1]]
            self._operators = list(zip(names, nodes_of(names, self._nodes), strict=True))
        times = np.frombuffer(self._profiling_info(2), np.uint64)
        return [
            NodeTime(name, int(time), node, "xnnpack")
            for (name, node), time in zip(self._operators, times, strict=True)
        ]

    def _check_process(self) -> None:
        if self._process not in (None, os.getpid()):
            raise BackendUnavailableError(
                "the threads of this program stayed in the process that forked this one;"
                " load the program again here"
            )

    def _place(self, arrays: list[np.ndarray]) -> list[int]:
        """Tell XNNPACK where ``arrays`` are; returns the outputs to copy back afterwards."""
        addresses = []
        copied: list[int] = []
        for port, array in enumerate(arrays):
            dtype, shape, itemsize, overread = self._ports[port]
            # As check_array; in place, for it is a good part of what a small call costs.
            if (
                (array.dtype is not dtype and array.dtype != dtype)
                or array.shape != shape
                or not array.flags.c_contiguous
            ):
                check_array(port, len(self._inputs), array, self._ports[port])
            start = address(array)
            if start % itemsize or (
                overread and not readable_past_end(start, array.nbytes) and not has_room(array)
            ):
                if port not in self._bounce:
                    self._bounce[port] = empty(array.nbytes).view(dtype).reshape(array.shape)
                if port < len(self._inputs):
                    self._bounce[port][...] = array
                else:
                    copied.append(port)
                start = address(self._bounce[port])
            addresses.append(start)
        if addresses != self._addresses:
            for external, start in zip(self._externals, addresses, strict=True):
                external.data = start
            self._addresses = []
            self._check(
                self._xnn.xnn_setup_runtime_v2(
                    self._runtime, len(self._externals), self._externals
                ),
                tuple(port.shape for port in self._ports),
            )
            self._addresses = addresses
        return copied

    def _ports_at(self, shapes: tuple[Shape, ...]) -> list[Port]:
        return [
            Port(dtype, shape, dtype.itemsize, overread)
            for dtype, shape, overread in zip(self._dtypes, shapes, self._overread, strict=True)
        ]

    def _without_empty(self, reduced: Reduced) -> tuple[Rest, XnnpackExecutable | None]:
        """What runs where tensors have no elements; mostly nothing does."""
        rest = reduced.rest
        if not rest.graph.outputs:
            return rest, None
        if rest not in self._rests:
            if len(self._rests) >= _RESTS:
                self._rests.pop(next(iter(self._rests)))
            self._rests[rest] = self._engine.compiled(rest.graph, self._threads, None)
        return rest, self._rests[rest]

    def _run_reduced(self, arrays: list[np.ndarray]) -> None:
        assert self._reduced is not None
        rest, executable = self._reduced
        for port, array in enumerate(arrays):
            check_array(port, len(self._inputs), array, self._ports[port])
        outputs = arrays[len(self._inputs) :]
        computed = {}
        for output, value, source in zip(outputs, self._outputs, rest.outputs, strict=True):
            if isinstance(source, int):
                computed[source] = output
            else:
                output[...] = filling(value, output.shape, source)
        if executable is not None:
            inputs = [*(arrays[i] for i in rest.inputs), *rest.filled]
            executable.reshape([a.shape for a in inputs])
            executable.run(inputs, [computed[i] for i in range(len(computed))])

    def _plan_anew(self) -> None:
        """Make the next reshape of the runtime plan its memory: outputs that have become larger
        than they were are a reason to, and nothing is smaller than an empty one. (XNNPACK refuses
        that for outputs that depend on constants alone.)"""
        for value in self._outputs:
            rank = len(value.shape)
            empty = (c_size_t * rank)(*(0,) * rank)
            self._xnn.xnn_reshape_external_value(self._runtime, value.external_id, rank, empty)

    def _external_shape(self, value: Value) -> Shape:
        rank, dims = c_size_t(), (c_size_t * MAX_TENSOR_DIMS)()
        self._check(
            self._xnn.xnn_get_external_value_shape(
                self._runtime, value.external_id, byref(rank), dims
            ),
            (),
        )
        return tuple(dims[: rank.value])

    def _profiling_info(self, what: int) -> bytes:
        size = c_size_t()
        info = self._xnn.xnn_get_runtime_profiling_info
        info(self._runtime, what, 0, None, byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(info(self._runtime, what, size.value, buffer, byref(size)), ())
        return buffer.raw

    def _check(self, status: int, shapes: tuple[Shape, ...]) -> None:
        if status:
            raise InputError(
                f"XNNPACK cannot run the graph at the shapes {[list(s) for s in shapes]}"
                f" ({self._library.status(status)})"
            )


def delete_with(owner: object, function: Any, *arguments: Any) -> None:
    """Call ``function`` when ``owner`` goes, but not at the end of the process: the system frees
    faster, and other threads may still run."""
    weakref.finalize(owner, function, *arguments).atexit = False
