"""Calls at shapes that stay, again: one after the other a language model takes its tokens.

Between two of them the weights have gone through the processor's caches, and what the interpreter
needs to run a method's instructions has to come back from memory: for a small model that is a fifth
of a token's time. Where a model looks up rows of many tables, its instructions take longer than its
delegate. So the second call of the same shapes is recorded: which arrays its instructions
read and wrote, all of them in memory that stays. From then on what they do is done by few calls
into C. Whatever such a call is not prepared for (an index that is out of range) goes the long way,
which has the error messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from penstock.formats.program import Method, OptionalTensorList, Tensor, TensorList
from penstock.runtime.blocks import Array, zeros
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.engines.protocol import KernelSteps
from penstock.runtime.instructions import Bound, State
from penstock.runtime.kernels.registry import Kernel
from penstock.runtime.mapped import row_reader
from penstock.runtime.row_writes import independent, place_of
from penstock.runtime.short_call import ShortCall, copying_call

#: Inputs of so many bytes in total are copied in, outputs out.
REPLAYED_INPUT_BYTES = 1 << 18
COPIED_OUTPUT_BYTES = 1 << 20
#: Says whether it could be done.
_Part: TypeAlias = "Callable[[], bool]"

#: Its results depend on shapes alone.
_SIZE = "aten::sym_size.int"
#: What they give depends on their scalars alone.
_CREATIONS = frozenset({"aten::arange.out", "aten::arange.start_out", "aten::full.out"})
_EMBEDDING = "quantized_decomposed::embedding_byte.out"


class _CannotReplay(Exception):
    """Some instruction cannot be done in this way."""


def can_replay(bound: Sequence[Bound], method: Method) -> bool:
    """Whether it is worth a try: kernels around delegates, and an engine that has some too. A
    delegate that is called twice has the shapes of one of the calls."""
    delegates = [id(one.target) for one in bound if isinstance(one.target, BoundDelegate)]
    return (
        len(bound) > 1
        and len(set(delegates)) == len(delegates)
        and _steps_around(bound) is not None
        and all(isinstance(one.target, (Kernel, BoundDelegate)) for one in bound)
        and all(isinstance(method.values[i], Tensor) for i in (*method.inputs, *method.outputs))
    )


def _steps_around(bound: Sequence[Bound]) -> KernelSteps | None:
    delegates = (one.target for one in bound if isinstance(one.target, BoundDelegate))
    return next((delegate.kernel_steps for delegate in delegates), None)


class Recording:
    """What the instructions of one call read and wrote."""

    def __init__(self, bound: Sequence[Bound], method: Method, state: State) -> None:
        self._bound, self._method, self._state = bound, method, state
        engine = _steps_around(bound)
        assert engine is not None
        self._engine: KernelSteps = engine
        self._arrays: dict[int, Array] = {}
        #: scalars, and arrays of them, that are the same in each call of these shapes
        self._fixed: set[int] = set()

    def see(self, position: int) -> None:
        """Told of each instruction once it has run."""
        one, values = self._bound[position], self._state.values
        fixed = self._is_fixed(one)
        if fixed and not one.outs:
            self._fixed.add(one.returned)
        for index in one.outs:
            array = values[index]
            if isinstance(array, np.ndarray):
                # Its place in memory may be another value's later on.
                self._arrays[index] = array.copy() if fixed else array
                self._fixed |= {index} if fixed else set()

    def _is_fixed(self, one: Bound) -> bool:
        if not isinstance(one.target, Kernel):
            return False
        name = one.target.name
        scalars = all(not isinstance(self._method.values[i], Tensor) for i in one.args)
        if name == _SIZE:
            return True
        if name in _CREATIONS or (name.startswith("executorch_prim::") and not one.outs):
            return scalars and all(self._is_known(i) for i in one.args)
        return False

    def _is_known(self, index: int) -> bool:
        """Whether a scalar is a constant, or depends on shapes alone."""
        written = any(index == one.returned and not one.outs for one in self._bound)
        return index in self._fixed or not (written or index in self._method.inputs)

    def replay(self, inputs: Sequence[Array]) -> ShortCall | None:
        """The same again, for inputs like these; None where that cannot be."""
        outputs = [self._state.values[i] for i in self._method.outputs]
        if sum(a.nbytes for a in inputs) > REPLAYED_INPUT_BYTES:
            return None
        if not all(isinstance(a, np.ndarray) for a in outputs):
            return None
        if sum(a.nbytes for a in outputs) > COPIED_OUTPUT_BYTES:
            return None
        try:
            return self._replay(inputs)
        except _CannotReplay:
            return None

    def _replay(self, inputs: Sequence[Array]) -> ShortCall:
        for index, value in zip(self._method.inputs, inputs, strict=True):
            slot = self._state.slots[index]
            backed = slot is not None and slot.memory is not None
            self._arrays[index] = slot.array(value.shape) if backed and slot else _own(value)
        for one in self._bound:
            for index in one.outs:
                self._settle(index)
        parts: list[_Part] = []
        steps: list[Any] = []

        def flush() -> None:
            if steps:
                parts.append(self._engine.group(tuple(steps)))
                steps.clear()

        writes = self._last_writes()
        for one in self._bound[: len(self._bound) - len(writes)]:
            if isinstance(one.target, BoundDelegate):
                flush()
                parts.append(self._delegate(one, one.target))
            elif not self._is_fixed(one):
                reader, made = self._kernel(one)
                if reader is not None:
                    flush()
                    parts.append(reader)
                steps += made
        if writes:
            steps.append(self._writes(writes))
        flush()
        places = [self._arrays[i] for i in self._method.inputs]
        results = [self._value(i) for i in self._method.outputs]
        return copying_call(places, results, lambda: all(part() for part in parts))

    def _settle(self, index: int) -> None:
        """An array in memory that stays, for one that is new at each call."""
        slot, array = self._state.slots[index], self._arrays.get(index)
        if slot is None or array is None:
            raise _CannotReplay
        if slot.memory is None and index not in self._fixed:
            self._arrays[index] = _own(array)

    def _value(self, index: int) -> Any:
        """An argument of a kernel as it will be in each call."""
        value = self._method.values[index]
        if isinstance(value, Tensor):
            found = self._arrays.get(index)
            return self._unwritten(index) if found is None else found
        if isinstance(value, (TensorList, OptionalTensorList)):
            return [None if i < 0 else self._value(i) for i in value.items]
        if index not in self._fixed and not self._is_known(index):
            raise _CannotReplay
        return self._state.values[index]

    def _unwritten(self, index: int) -> Array:
        """The memory of a tensor that no instruction writes: a constant, a buffer, or another name
        for what lies there. That must be written anew in each call."""
        slots = self._state.slots
        slot = slots[index]
        if slot is None or slot.full is None:
            raise _CannotReplay
        fixed = (slots[i] for i in self._fixed)
        if any(
            one is not None and one.full is not None and np.may_share_memory(one.full, slot.full)
            for one in fixed
        ):
            raise _CannotReplay
        return slot.full

    def _kernel(self, one: Bound) -> tuple[_Part | None, Sequence[Any]]:
        assert isinstance(one.target, Kernel)
        if len(one.outs) != 1 or one.target.in_place or one.also:
            raise _CannotReplay
        if one.returned not in (-1, one.outs[0]):
            raise _CannotReplay
        args, out = [self._value(i) for i in one.args], self._arrays[one.outs[0]]
        if one.target.name == _EMBEDDING:
            table, scales, zero_points, _, _, index = args
            reader = row_reader(table, index.size)
            if reader is not None:
                rows, read = reader
                step = self._engine.scaled_rows(rows, scales, index, out)
                if step is None or zero_points is not None:
                    raise _CannotReplay
                return (lambda: read(index)), (step,)
        if one.target.moves:
            step = self._moved(one.target, args, out)
            return None, (step,)
        made = self._engine.kernel(one.target.name, args, out)
        if made is None:
            raise _CannotReplay
        return None, made

    def _moved(self, kernel: Kernel, args: Sequence[Any], out: Array) -> Any:
        """A kernel that gives a view of its argument, whatever that holds."""
        # As an out argument that does not fit, so that nothing is written.
        view = kernel.function(*args, np.empty(0, out.dtype))
        step = None
        if any(isinstance(a, np.ndarray) and np.may_share_memory(a, view) for a in args):
            step = self._engine.moved(view, out)
        if step is None:
            raise _CannotReplay
        return step

    def _last_writes(self) -> Sequence[Bound]:
        """The writes to caches at the end, all at the same positions: once one is done, all are."""
        places = [place_of(one, self._method, self._state) for one in self._bound]
        count = 0
        while count < len(places) and places[-1 - count] == places[-1] is not None:
            count += 1
        return self._bound[len(self._bound) - count :]

    def _writes(self, writes: Sequence[Bound]) -> Any:
        place = place_of(writes[0], self._method, self._state)
        assert place is not None
        axis, index = place
        if not independent(writes, index, self._state):
            raise _CannotReplay
        pairs = [(self._value(one.args[0]), self._value(one.args[2])) for one in writes]
        step = self._engine.write_rows(pairs, axis, self._value(index))
        if step is None:
            raise _CannotReplay
        return step

    def _delegate(self, one: Bound, delegate: BoundDelegate) -> _Part:
        arrays = {i: self._value(i) for i in (*one.args, *one.outs)}
        run = delegate.fixed(self._state.slots, one.args, one.outs, arrays)
        if run is None:
            raise _CannotReplay

        def part() -> bool:
            run()
            return True

        return part


def _own(array: Array) -> Array:
    """Memory of the same form."""
    if not array.flags.c_contiguous:
        raise _CannotReplay
    return zeros(array.nbytes).view(array.dtype).reshape(array.shape)
