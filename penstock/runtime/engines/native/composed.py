"""The parts of a graph, run by one call into C: kernels of ours and runtimes of XNNPACK's."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Hashable, Sequence
from ctypes import c_void_p
from typing import Any

import numpy as np

from penstock.errors import BackendUnavailableError, InputError
from penstock.graph.graph import Shape, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime import blocks
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.plan import (
    CXnnpackTask,
    Field,
    Link,
    Over,
    Plan,
    address_of,
    field_address,
)
from penstock.runtime.engines.parts import Part
from penstock.runtime.engines.planner import Composed
from penstock.runtime.engines.protocol import Executable
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack import buffers
from penstock.runtime.engines.xnnpack.bindings import ExternalValue
from penstock.runtime.engines.xnnpack.executable import XnnpackExecutable


class PlannedGraph(Composed):
    """Runs its parts as one plan, where each of them is one of our own kernels' or XNNPACK's; at
    shapes where that cannot be (tensors without elements), and where the time of each node is
    measured (``profile``), one after the other."""

    def __init__(
        self,
        graph: XnnGraph,
        parts: Sequence[Part],
        executables: Sequence[Executable],
        library: Library,
        threads: Threads,
        *,
        profile: bool = False,
    ) -> None:
        super().__init__(graph, parts, executables)
        self._library, self._threads, self._profile = library, threads, profile
        self._process = None if threads.pool() is None else os.getpid()
        self._ports = [*self._inputs, *self._outputs]
        #: for each port whether it may be read past its end: by XNNPACK, or by kernels that do
        self._overread = [
            any(
                i in part.inputs and getattr(executable, "overreads", True)
                for part, executable in self._steps
            )
            for i in self._ports
        ]
        turns = {id(e.turn): e.turn for _, e in self._steps if isinstance(e, XnnpackExecutable)}
        self._turns = list(turns.values())
        self._plan: Plan | None = None

    @property
    def skips_hidden(self) -> bool:
        """See :class:`penstock.runtime.engines.protocol.Attending`."""
        return all_attention_in(self._graph, self._units())

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """See :meth:`penstock.runtime.engines.protocol.Executable.run`."""
        if self._given is None:
            self.reshape([array.shape for array in inputs])
        if self._plan is None:
            super().run(inputs, outputs)
            return
        arrays = [*inputs, *outputs]
        if len(inputs) != len(self._inputs) or len(arrays) != len(self._ports):
            raise InputError(
                f"{len(inputs)} inputs and {len(outputs)} outputs given; the graph has"
                f" {len(self._inputs)} and {len(self._outputs)}"
            )
        addresses, copied = [], []
        for port, (i, array) in enumerate(zip(self._ports, arrays, strict=True)):
            check_array(array, self._shapes[i], self._dtypes[i])
            place = placed(array, overread=self._overread[port])
            addresses.append(address(place))
            if place is not array:
                copied.append((port, place))
        check_process(self._process)
        if self._turns:
            (turn,) = self._turns
            with turn.lock:
                status = self._plan.run(addresses)
            if turn.garbage:
                turn.clean()
        else:
            status = self._plan.run(addresses)
        if status:
            raise InputError(f"XNNPACK failed to run (status {status})")
        for port, place in copied:
            if port >= len(inputs):
                arrays[port][...] = place

    def fixed(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> Callable[[], None] | None:
        """See :meth:`penstock.runtime.engines.protocol.Fixable.fixed`."""
        plan, arrays = self._plan, [*inputs, *outputs]
        if plan is None or len(arrays) != len(self._ports):
            return None
        for i, array, overread in zip(self._ports, arrays, self._overread, strict=True):
            check_array(array, self._shapes[i], self._dtypes[i])
            if placed(array, overread=overread) is not array:
                return None
        run, process = plan.fixed(arrays), self._process
        turn = self._turns[0] if self._turns else None

        def call() -> None:
            if process is not None:
                check_process(process)
            if turn is None:
                status = run()
            else:
                with turn.lock:
                    status = run()
                if turn.garbage:
                    turn.clean()
            if status:
                raise InputError(f"XNNPACK failed to run (status {status})")

        return call

    def _of(
        self,
        graph: XnnGraph,
        parts: Sequence[Part],
        executables: Sequence[Executable],
        threads: Threads | None = None,
    ) -> Composed:
        threads = threads or self._threads
        return PlannedGraph(
            graph, parts, executables, self._library, threads, profile=self._profile
        )

    def _planned(self) -> Plan | None:
        """The plan at the shapes at hand; None where some part cannot be in one."""
        if self._profile or len(self._turns) > 1:
            return None
        links = []
        for number, (_, executable) in enumerate(self._steps):
            link = self._link(executable)
            if link is None:
                return None
            # What leaves no part goes by the number of its part.
            names: dict[Hashable, Hashable] = {v: (number, v) for v in link.sizes}
            own = names.get
            links.append(
                Link(
                    link.steps,
                    [Field(own(v, v), place, step) for v, place, step in link.fields],
                    {names[v]: size for v, size in link.sizes.items()},
                    [link.keep, executable],
                    [
                        Over(own(o.output, o.output), own(o.input, o.input), o.step, o.same)
                        for o in link.overs
                    ],
                )
            )
        return Plan(self._library, self._threads, links, self._ports, self._sizes())

    def _sizes(self) -> dict[Hashable, int]:
        """The bytes of the values between parts, with room for reads past the end."""
        return {
            i: math.prod(self._shapes[i]) * self._dtypes[i].itemsize + blocks.OVERREAD
            for i in self._inner
        }

    def _prepare(self) -> None:
        """A plan has memory of its own for the values between parts."""
        self._between, self._plan = {}, None
        self._plan = self._planned()
        if self._plan is None:
            super()._prepare()

    def _link(self, executable: Any) -> Link | None:
        if isinstance(executable, XnnpackExecutable):
            return _xnnpack_link(executable, self._library)
        link = getattr(executable, "link", None)
        found: Link | None = link() if link is not None else None
        return found


def _xnnpack_link(executable: XnnpackExecutable, library: Library) -> Link | None:
    """A runtime of XNNPACK's as a step; None if it is not what runs at the shapes at hand."""
    runtime = executable.runtime()
    if runtime is None:
        return None
    count = len(runtime.values)
    externals = (ExternalValue * max(count, 1))()
    placed = (c_void_p * max(count, 1))()
    task = CXnnpackTask(
        runtime.setup, runtime.invoke, runtime.handle, count,
        ctypes.addressof(externals), ctypes.addressof(placed), 0,
    )  # fmt: skip
    function = address_of(library.functions, "pk_xnnpack_run")
    link = Link([(function, ctypes.addressof(task), field_address(task, "status"))])
    for external, (value, number) in zip(externals, runtime.values, strict=False):
        external.id = number
        link.fields.append(Field(value, field_address(external, "data"), 0))
    link.keep += [externals, placed, task]
    return link


def all_attention_in(graph: XnnGraph, units: Sequence[Sequence[int]]) -> bool:
    """Whether each softmax of ``graph``, of which there is one at least, belongs to a chain."""
    inside = {position for unit in units for position in unit}
    softmax = {n for n, node in enumerate(graph.nodes) if node.kind is NodeKind.SOFTMAX}
    return bool(softmax) and softmax <= inside


def check_array(array: np.ndarray, shape: Shape, dtype: np.dtype[Any]) -> None:
    """Raises InputError unless ``array`` is contiguous, of ``shape`` and ``dtype``."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        layout = "contiguous" if array.flags.c_contiguous else "not contiguous"
        raise InputError(
            f"an input or output of the graph is {array.dtype}{list(array.shape)}, {layout};"
            f" it takes contiguous {dtype}{list(shape)}"
        )


def check_process(process: int | None) -> None:
    """Raises BackendUnavailableError if the threads of a pool stayed in another process."""
    if process not in (None, os.getpid()):
        raise BackendUnavailableError(
            "the threads of this program stayed in the process that forked this one;"
            " load the program again here"
        )


def placed(array: np.ndarray, *, overread: bool) -> np.ndarray:
    """``array``, or a copy of it if it is not aligned for its type or, with ``overread``, may not
    be read past its end."""
    start = address(array)
    if start % array.itemsize == 0 and (
        not overread or buffers.readable_past_end(start, array.nbytes) or blocks.has_room(array)
    ):
        return array
    copy = blocks.empty(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
