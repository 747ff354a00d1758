"""A method's instructions, bound to what they call: :func:`bind` and :func:`make_step`.

Binding happens once, when a method is prepared: every index is checked, every kernel and delegate
found. It gives :class:`Bound` records, which say what is read and written; from them and the
method's :class:`State` come the steps, closures that the run loop calls one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.formats.program import (
    DelegateCall,
    FreeCall,
    Instruction,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    OptionalTensorList,
    Tensor,
    TensorList,
    Value,
)
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.kernels.registry import Kernel
from penstock.runtime.planned_memory import Access
from penstock.runtime.slots import Slot

#: Does one instruction; returns the next instruction's index where it jumps, else None.
Step: TypeAlias = "Callable[[], int | None]"

#: Operators that share or grow memory, which a kernel cannot do.
VIEW = "executorch_prim::et_view.default"
COPY_INDEX = "executorch_prim::et_copy_index.tensor"
CORE_OPERATORS = frozenset({VIEW, COPY_INDEX})


@dataclass
class State:
    """The run-time state of a method, indexed like ``Method.values``.

    ``values`` holds what an instruction sees: arrays for tensors, lists, Python scalars.
    """

    values: list[Any]
    slots: list[Slot | None]
    #: lists whose items change at run time: value index -> (item indices, -1 for None)
    lists: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Bound:
    """An instruction with its kernel (``target``), delegate, or neither.

    ``args`` are a kernel's arguments without the out arguments ``outs`` and without the repeated
    return value ``returned``.
    """

    instruction: Instruction
    access: Access
    target: Kernel | BoundDelegate | str | None = None
    args: tuple[int, ...] = ()
    outs: tuple[int, ...] = ()
    returned: int = -1
    #: arguments that are written to besides
    also: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        if isinstance(self.target, Kernel):
            return f"kernel {self.target.name}"
        if isinstance(self.target, str):
            return f"operator {self.target}"
        if isinstance(self.target, BoundDelegate):
            return f"delegate {self.target.id}"
        return type(self.instruction).__name__


@dataclass(frozen=True)
class Done:
    """An instruction that has run: its position, which values it read and wrote, by their numbers,
    and the content of those that it wrote, which may change with the next one."""

    position: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    written: list[Any]


def bind(
    method: Method,
    instruction: Instruction,
    kernels: Sequence[Kernel | str],
    delegates: Sequence[BoundDelegate],
) -> Bound:
    """Check one instruction and find what it calls.

    ``kernels`` and ``delegates`` go parallel to the method's own lists; a core operator stands
    there by its name. Raises InvalidProgramError.
    """
    if isinstance(instruction, KernelCall):
        _check(method, instruction.args)
        target = _item(kernels, instruction.operator, "operator")
        if isinstance(target, str):
            return _bind_core(method, instruction, target)
        return _bind_kernel(method, instruction, target)
    if isinstance(instruction, DelegateCall):
        _check(method, instruction.args)
        delegate = _item(delegates, instruction.delegate, "delegate")
        reads, writes = delegate.select(instruction.args)
        _check_tensors(method, (*reads, *writes))
        return Bound(instruction, Access(reads, writes), delegate, reads, writes)
    if isinstance(instruction, MoveCall):
        _check(method, (instruction.source, instruction.target))
        _check_move(method.values[instruction.source], method.values[instruction.target])
        # The target becomes another name of the source's memory, so it is not "written whole".
        return Bound(instruction, Access((instruction.source, instruction.target), ()))
    if isinstance(instruction, JumpFalseCall):
        _check(method, (instruction.condition,))
        if not 0 <= instruction.destination <= len(method.instructions):
            raise InvalidProgramError(
                f"a jump goes to instruction {instruction.destination} of"
                f" {len(method.instructions)}"
            )
        return Bound(instruction, Access((instruction.condition,), ()))
    if isinstance(instruction, FreeCall):
        _check_tensors(method, (instruction.value,))
        return Bound(instruction, Access((), ()))
    raise InvalidProgramError(f"unknown instruction {instruction!r}")


def _bind_core(method: Method, call: KernelCall, name: str) -> Bound:
    if len(call.args) != 3:
        raise InvalidProgramError(f"operator {name} has {len(call.args)} arguments, not 3")
    if name == VIEW:
        source, size, out = call.args
        _check_tensors(method, (source, out))
        access = Access((source,), (out,))
        return Bound(call, access, name, (source, size), (out,))
    target, source, index = call.args
    _check_tensors(method, (target, source))
    return Bound(call, Access((target, source), ()), name, (source, index), (target,))


def _bind_kernel(method: Method, call: KernelCall, kernel: Kernel) -> Bound:
    if len(call.args) < kernel.outs + 1 + kernel.in_place:
        raise InvalidProgramError(f"kernel {kernel.name} has only {len(call.args)} arguments")
    *args, returned = call.args
    inputs = tuple(args[: len(args) - kernel.outs])
    outs = tuple(args[len(args) - kernel.outs :])
    reads = _tensors(method, inputs)
    if kernel.in_place:
        outs = inputs[:1]
    writes = _tensors(method, outs)
    if any(place >= len(inputs) for place in kernel.writes):
        raise InvalidProgramError(f"kernel {kernel.name} has only {len(call.args)} arguments")
    also = tuple(inputs[place] for place in kernel.writes)
    _check_tensors(method, (*writes, *also))
    if outs and not writes and not isinstance(method.values[outs[0]], TensorList):
        raise InvalidProgramError(f"kernel {kernel.name} has an output that is no tensor")
    return Bound(
        call, Access(reads, () if kernel.in_place else writes), kernel, inputs, outs, returned, also
    )


def _tensors(method: Method, indices: tuple[int, ...]) -> tuple[int, ...]:
    """The tensors among values, those in tensor lists included."""
    found: list[int] = []
    for index in indices:
        value = method.values[index]
        if isinstance(value, Tensor):
            found.append(index)
        elif isinstance(value, (TensorList, OptionalTensorList)):
            found.extend(item for item in value.items if item >= 0)
    return tuple(found)


def _check_move(source: Value, target: Value) -> None:
    """Values keep their kind, so that what was checked once stays true."""
    alike = isinstance(source, Tensor) == isinstance(target, Tensor)
    if alike and isinstance(source, Tensor) and isinstance(target, Tensor):
        alike = (source.dtype, len(source.shape)) == (target.dtype, len(target.shape))
    if not alike:
        raise InvalidProgramError("a move between values of different kinds")


def _check(method: Method, indices: Sequence[int]) -> None:
    for index in indices:
        if not 0 <= index < len(method.values):
            raise InvalidProgramError(
                f"an instruction of method {method.name!r} uses value {index},"
                f" there are {len(method.values)}"
            )


def _check_tensors(method: Method, indices: Sequence[int]) -> None:
    for index in indices:
        if not isinstance(method.values[index], Tensor):
            raise InvalidProgramError(
                f"an instruction of method {method.name!r} takes value {index} for a tensor,"
                f" it is a {type(method.values[index]).__name__}"
            )


def _item(items: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(items):
        raise InvalidProgramError(f"an instruction calls {what} {index}, there are {len(items)}")
    return items[index]


def written_values(bound: Sequence[Bound]) -> set[int]:
    """All values that some instruction may change."""
    written: set[int] = set()
    for one in bound:
        written.update(one.outs, one.also)
        written.add(one.returned)
        if isinstance(one.instruction, MoveCall):
            written.add(one.instruction.target)
    return written


def list_items(value: Any) -> tuple[int, ...] | None:
    """The value indices that a list consists of, or None for a value that is no such list."""
    return value.items if isinstance(value, (IntList, TensorList, OptionalTensorList)) else None


def make_step(bound: Bound, method: Method, state: State, position: int) -> Step:
    """The closure that does the instruction at ``position``."""
    instruction, values = bound.instruction, state.values
    if isinstance(bound.target, Kernel):
        return _kernel_step(bound, bound.target, method, state)
    if isinstance(bound.target, BoundDelegate):
        return bound.target.step(values, state.slots, bound.args, bound.outs)
    if bound.target == VIEW:
        return _view_step(bound, state)
    if bound.target == COPY_INDEX:
        return _copy_index_step(bound, state)
    if isinstance(instruction, MoveCall):
        source, target = instruction.source, instruction.target

        def move() -> None:
            values[target] = values[source]

        return move
    if isinstance(instruction, JumpFalseCall):
        condition, destination, following = (
            instruction.condition,
            instruction.destination,
            position + 1,
        )
        return lambda: following if _truth(values[condition]) else destination
    if isinstance(instruction, FreeCall):
        freed = instruction.value

        def free() -> None:
            values[freed] = None

        return free
    raise InvalidProgramError(f"unknown instruction {instruction!r}")


def _truth(value: Any) -> bool:
    if isinstance(value, np.ndarray) and value.dtype == np.bool_:
        return bool(value.all())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"the condition of a jump is {type(value).__name__}, not a bool")


def _getter(indices: tuple[int, ...]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """``itemgetter`` that always gives a tuple."""
    if len(indices) > 1:
        return itemgetter(*indices)
    if indices:
        (only,) = indices
        return lambda values: (values[only],)
    return lambda values: ()


def _refresher(indices: tuple[int, ...], state: State) -> Callable[[], None] | None:
    """Rebuilds the lists among ``indices`` whose items change at run time, if there are any."""
    values = state.values
    lists = [(index, state.lists[index]) for index in indices if index in state.lists]
    if not lists:
        return None

    def refresh() -> None:
        for index, items in lists:
            values[index] = [values[item] if item >= 0 else None for item in items]

    return refresh


def _kernel_step(bound: Bound, kernel: Kernel, method: Method, state: State) -> Step:
    values, function = state.values, kernel.function
    fetch, refresh = _getter(bound.args), _refresher(bound.args, state)
    returned = bound.returned

    if not bound.outs:

        def scalar() -> None:
            if refresh is not None:
                refresh()
            result = function(*fetch(values))
            if isinstance(result, np.generic):
                result = result.item()
            if not isinstance(result, (int, float)):
                raise ValueError(f"a result of type {type(result).__name__} for a scalar")
            if isinstance(result, int) and not -(1 << 63) <= result < 1 << 63:
                raise ValueError("an integer beyond 64 bits")
            values[returned] = result

        return scalar

    outs = bound.outs
    targets = [_out_slots(index, method, state) for index in outs]
    # The repeated return value: nearly always the out tensor itself.
    alias = returned if returned != outs[0] and len(outs) == 1 else None

    if kernel.writes_itself and isinstance(targets[0], Slot):
        return _writing_step(bound, kernel, state, targets[0], alias)

    if kernel.in_place or any(isinstance(target, list) for target in targets) or len(outs) > 1:

        def general() -> None:
            if refresh is not None:
                refresh()
            arguments = [] if kernel.in_place else [_target(slot) for slot in targets]
            result = function(*fetch(values), *arguments)
            results = (result,) if len(outs) == 1 else result
            for index, slot, one in zip(outs, targets, results, strict=True):
                _store(values, method, index, slot, one)
            if alias is not None:
                values[alias] = values[outs[0]]

        return general

    (out,), slot = outs, targets[0]
    assert isinstance(slot, Slot)

    def single() -> None:
        if refresh is not None:
            refresh()
        values[out] = slot.store(function(*fetch(values), slot.target()))

    if alias is None:
        return single

    def aliased() -> None:
        single()
        values[alias] = values[out]

    return aliased


def _writing_step(
    bound: Bound, kernel: Kernel, state: State, slot: Slot, alias: int | None
) -> Step:
    """A kernel that writes to its first argument itself: memory of the program, never the
    caller's."""
    values, function, out = state.values, kernel.function, bound.outs[0]
    fetch, refresh = _getter(bound.args), _refresher(bound.args, state)

    def write() -> None:
        if refresh is not None:
            refresh()
        target = values[out]
        if target is not slot.full and target is not slot.given:
            values[out] = slot.store(target)
        function(*fetch(values))
        if alias is not None:
            values[alias] = values[out]

    return write


def _out_slots(index: int, method: Method, state: State) -> Slot | list[Slot]:
    value = method.values[index]
    if isinstance(value, TensorList):
        return [_slot(state, item) for item in value.items]
    return _slot(state, index)


def _slot(state: State, index: int) -> Slot:
    slot = state.slots[index]
    if slot is None:
        raise InvalidProgramError(f"value {index} is written to as a tensor, it is none")
    return slot


def _target(slot: Slot | list[Slot]) -> Any:
    return [one.target() for one in slot] if isinstance(slot, list) else slot.target()


def _store(
    values: list[Any], method: Method, index: int, slot: Slot | list[Slot], result: Any
) -> None:
    if isinstance(slot, Slot):
        values[index] = slot.store(result)
        return
    listed = method.values[index]
    assert isinstance(listed, TensorList)
    for item, one, part in zip(listed.items, slot, result, strict=True):
        values[item] = one.store(part)


def _view_step(bound: Bound, state: State) -> Step:
    """The output becomes another shape of the source's memory."""
    values = state.values
    (source, size), (out,) = bound.args, bound.outs
    refresh = _refresher((size,), state)
    before, after = _slot(state, source).layout, _slot(state, out).layout

    def view() -> None:
        if refresh is not None:
            refresh()
        array = values[source]
        if before.dtype != after.dtype:
            raise ValueError(f"a view of {before.dtype} as {after.dtype}")
        flat = before.physical(array).reshape(-1)
        shape = np.empty(flat.shape, np.bool_).reshape(values[size]).shape
        after.check(shape)
        values[out] = after.logical(flat.reshape(after.physical_shape(shape)))

    return view


def _copy_index_step(bound: Bound, state: State) -> Step:
    """Row ``index`` of the target becomes the source; the target ends with that row."""
    values = state.values
    (source, index), (target,) = bound.args, bound.outs
    slot = _slot(state, target)
    layout = slot.layout

    def copy_index() -> None:
        row, part, old = values[index], values[source], values[target]
        if isinstance(row, bool) or not isinstance(row, int) or row < 0:
            raise ValueError(f"index {row!r}")
        shape = (row + 1, *part.shape)
        if len(shape) != len(layout.shape) or shape[1:] != old.shape[1:]:
            raise ValueError(f"a row of shape {part.shape} for a tensor of shape {old.shape}")
        if layout.bounded and shape[0] > layout.shape[0]:
            raise ValueError(f"index {row} beyond the bound {layout.shape[0]}")
        if slot.memory is not None:
            grown = layout.over(slot.memory, shape)
        else:
            grown = layout.new(shape)
            slot.given = grown
            grown[:row] = old[:row]
        grown[row] = part
        values[target] = grown

    return copy_index
