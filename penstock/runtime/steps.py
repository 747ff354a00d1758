"""The steps of a method: closures that the run loop calls one after the other, made from its bound
instructions by :func:`make_step`."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.formats.program import (
    FreeCall,
    JumpFalseCall,
    Method,
    MoveCall,
    TensorList,
)
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.instructions import COPY_INDEX, VIEW, Bound, State
from penstock.runtime.kernels.registry import Kernel
from penstock.runtime.slots import Slot

#: Does one instruction; returns the next instruction's index where it jumps, else None.
Step: TypeAlias = "Callable[[], int | None]"


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
