"""Delegates: the parts of a method that a backend runs through the engine protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from penstock.errors import InvalidProgramError, UnsupportedError
from penstock.formats.program import XNNPACK_BACKEND, Buffer, Delegate
from penstock.runtime.blocks import Array
from penstock.runtime.engines.protocol import Adaptable, Fixable, Surrounding
from penstock.runtime.slots import Layout, Slot

if TYPE_CHECKING:
    from penstock.graph.graph import XnnGraph
    from penstock.runtime.engines.protocol import Engine, Executable, KernelSteps
    from penstock.runtime.engines.threads import Threads


class External(NamedTuple):
    """One argument of a delegate: where it stands among the call's arguments, what it holds."""

    position: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class BoundDelegate:
    """A compiled delegate of a method. ``kernel_steps``: what an engine of the program can do
    around it."""

    def __init__(
        self,
        id: str,
        graph: XnnGraph,
        executable: Executable,
        kernel_steps: KernelSteps | None = None,
    ) -> None:
        self.id = id
        self.executable = executable
        self.kernel_steps = kernel_steps
        #: the kind and debug handle of each node of the payload, for profiles
        self.nodes = tuple((node.kind.name, node.debug_handle) for node in graph.nodes)
        self.inputs = _externals(graph, graph.inputs)
        self.outputs = _externals(graph, graph.outputs)
        #: the physical shapes of the last call, and what came out of them
        self._input_shapes: list[tuple[int, ...]] | None = None
        self._output_shapes: Sequence[tuple[int, ...]] = ()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the inputs in the last call, as they lie in memory."""
        return tuple(self._input_shapes or ())

    def clone(self, sibling: Callable[[Engine], Engine], threads: Threads) -> BoundDelegate | None:
        """The delegate once more, on the same packed weights; None where its engine cannot. See
        :class:`~penstock.runtime.engines.protocol.Clonable`."""
        from penstock.runtime.engines.protocol import Clonable

        if not isinstance(self.executable, Clonable):
            return None
        executable = self.executable.clone(sibling, threads)
        if executable is None:
            return None
        found = copy.copy(self)
        found.executable = executable
        found._input_shapes = None
        return found

    def select(self, args: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Input and output values among a call's arguments. Raises InvalidProgramError."""
        if len(args) != len(self.inputs) + len(self.outputs):
            raise InvalidProgramError(
                f"a call of delegate {self.id} has {len(args)} arguments, its payload"
                f" {len(self.inputs)} inputs and {len(self.outputs)} outputs"
            )
        positions = [external.position for external in (*self.inputs, *self.outputs)]
        if sorted(positions) != list(range(len(args))):
            raise InvalidProgramError(
                f"the external ids {positions} of a delegate's payload do not match its arguments"
            )
        return (
            tuple(args[external.position] for external in self.inputs),
            tuple(args[external.position] for external in self.outputs),
        )

    def reshape(self, shapes: list[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        """Output shapes (physical) for these input shapes (physical)."""
        if shapes != self._input_shapes:
            self._input_shapes = None
            self._output_shapes = tuple(self.executable.reshape(shapes))
            if len(self._output_shapes) != len(self.outputs):
                raise InvalidProgramError(f"delegate {self.id} gives another number of outputs")
            self._input_shapes = shapes
        return self._output_shapes

    def fixed(
        self,
        slots: Sequence[Slot | None],
        reads: tuple[int, ...],
        writes: tuple[int, ...],
        arrays: Mapping[int, Array],
    ) -> Callable[[], None] | None:
        """A function that runs the delegate on the same ``arrays`` (by value) each time; None where
        the engine cannot take them as they are. Their shapes must be those of the last call."""
        if not isinstance(self.executable, Fixable):
            return None
        physical = []
        for index, external in zip((*reads, *writes), (*self.inputs, *self.outputs), strict=True):
            slot = slots[index]
            assert slot is not None
            if slot.layout.dtype == np.int64:
                return None  # see _output
            array = slot.layout.physical(arrays[index])
            if _is_flat(slot, external):
                array = array.reshape(1)
            bits = _bits(slot.layout.dtype)
            physical.append(array if bits is None else array.view(bits))
            if not np.may_share_memory(array, arrays[index]):
                return None
        count = len(reads)
        if self.reshape([a.shape for a in physical[:count]]) != tuple(
            a.shape for a in physical[count:]
        ):
            return None
        return self.executable.fixed(physical[:count], physical[count:])

    def step(
        self,
        values: list[Any],
        slots: Sequence[Slot | None],
        reads: tuple[int, ...],
        writes: tuple[int, ...],
    ) -> Callable[[], None]:
        """The closure that runs the delegate on these values."""
        sources = [
            (index, slot.layout, _bits(slot.layout.dtype), _is_flat(slot, external))
            for index, external in zip(reads, self.inputs, strict=True)
            if (slot := _checked(slots[index], index, external, is_output=False))
        ]
        targets = [
            (index, slot, _is_flat(slot, external), _output(slot.layout, external))
            for index, external in zip(writes, self.outputs, strict=True)
            if (slot := _checked(slots[index], index, external, is_output=True))
        ]
        run, reshape = self.executable.run, self.reshape

        def call() -> None:
            inputs, shapes = [], []
            for index, layout, bits, flat in sources:
                array = layout.physical(values[index])
                if flat:
                    array = array.reshape(1)
                if bits is not None:
                    array = array.view(bits)
                inputs.append(array)
                shapes.append(array.shape)
            outputs, conversions = [], []
            for (index, slot, flat, temporary), shape in zip(targets, reshape(shapes), strict=True):
                if flat and shape == (1,):
                    array = values[index] = slot.array(())
                    physical = array.reshape(1)
                elif len(shape) != len(slot.layout.shape):
                    raise ValueError(f"an output of shape {shape} for a value of another rank")
                else:
                    array = values[index] = slot.array(slot.layout.logical_shape(shape))
                    physical = slot.layout.physical(array)
                if temporary is not None:
                    physical, whole = temporary(physical)
                    if whole is not None:
                        conversions.append((whole, physical))
                outputs.append(physical)
            run(inputs, outputs)
            for whole, part in conversions:
                # int64 tensors hold what XNNPACK computes as int32
                np.copyto(whole, part.view(np.int32))

        return call


def _output(
    layout: Layout, external: External
) -> Callable[[Array], tuple[Array, Array | None]] | None:
    """How an output array is presented to the engine: as it is (None), as bits, or as a narrow
    temporary that is widened to the array (the second of the pair) afterwards."""
    if layout.dtype == np.int64:
        return lambda array: (np.empty(array.shape, external.dtype), array)
    bits = _bits(layout.dtype)
    return None if bits is None else (lambda array: (array.view(bits), None))


def _is_flat(slot: Slot, external: External) -> bool:
    """Whether a number is a tensor of one element in the payload: the stock compiler writes
    tensors without dimensions so."""
    return not slot.layout.shape and external.shape == (1,)


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """bfloat16 goes to the engine as uint16 bits."""
    return np.dtype(np.uint16) if dtype.name in ("bfloat16", "uint16") else None


def _checked(slot: Slot | None, index: int, external: External, *, is_output: bool) -> Slot:
    if slot is None:
        raise InvalidProgramError(f"a delegate takes value {index}, which is no tensor")
    layout = slot.layout
    shape = layout.physical_shape(layout.shape)
    fixed = not layout.dynamic and not is_output  # XNNPACK infers the shapes of outputs
    if _is_flat(slot, external):
        shape = (1,)
    if len(shape) != len(external.shape) or (fixed and shape != external.shape):
        raise InvalidProgramError(
            f"value {index} has the shape {shape} in memory, the delegate's payload says"
            f" {external.shape}"
        )
    widened = is_output and layout.dtype == np.int64 and external.dtype.itemsize == 4
    if not widened and (_bits(layout.dtype) or layout.dtype) != external.dtype:
        raise InvalidProgramError(
            f"value {index} is {layout.dtype}, the delegate's payload says {external.dtype}"
        )
    return slot


def _externals(graph: XnnGraph, ids: Sequence[int]) -> list[External]:
    by_id = {value.id: value for value in graph.values}
    found = []
    for id in ids:
        value = by_id.get(id)
        if value is None or value.external_id is None:
            raise InvalidProgramError(f"a payload lists value {id} as external, it is not")
        dtype = value.dtype.traits.array
        if dtype is None:
            raise UnsupportedError(f"a delegate's input or output of type {value.dtype.name}")
        found.append(External(value.external_id, tuple(value.shape), dtype))
    return found


def compile_delegate(
    delegate: Delegate,
    named_data: Mapping[str, Buffer],
    engines: Callable[[], Sequence[Engine]],
    threads: Threads,
    adapt: Callable[[Delegate, XnnGraph], XnnGraph] | None = None,
    packed: BoundDelegate | None = None,
) -> BoundDelegate:
    """Read and compile a delegate's payload; ``engines`` (the preferred one first) are asked only
    then. ``adapt`` gives the graph to compile in place of the one that was read; ``packed`` is the
    same delegate, compiled at other sizes, whose packed weights are used where they can be.

    Raises UnsupportedError for a backend other than XNNPACK, InvalidProgramError for a damaged
    payload, InputError for one whose constants are in a data file that was not given.
    """
    if delegate.id != XNNPACK_BACKEND:
        raise UnsupportedError(
            f"the program needs the backend {delegate.id!r}; Penstock runs {XNNPACK_BACKEND!r}"
        )
    from penstock.formats.payload_reader import read_payload
    from penstock.runtime.engines.planner import compile_graph

    graph = read_payload(delegate.payload, named_data)
    if adapt is not None:
        graph = adapt(delegate, graph)
    executable = None
    if packed is not None and isinstance(packed.executable, Adaptable):
        executable = packed.executable.adapted(graph)
    if executable is None:
        executable = compile_graph(graph, engines(), threads=threads)
    steps = (engine.kernel_steps for engine in engines() if isinstance(engine, Surrounding))
    return BoundDelegate(delegate.id, graph, executable, next(steps, None))
