"""Writes to caches, as one step.

A language model writes the new rows of each layer's keys and values behind its delegate: many
``index_put_`` in a row, at the same positions. One by one each of them finds out anew where that
is; together it is found out once, and each is then a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.formats.program import Method, OptionalTensorList, Tensor
from penstock.runtime.blocks import Array
from penstock.runtime.instructions import Bound, State
from penstock.runtime.kernels.registry import Kernel
from penstock.runtime.steps import Step

_WRITE = "aten::index_put_"


def fuse_row_writes(
    steps: Sequence[Step], bound: Sequence[Bound], method: Method, state: State
) -> list[Step]:
    """``steps`` of a method that does not jump, where the first of several writes in a row does the
    work of all. Where it meets what it is not prepared for, each does its own."""
    found, begin = list(steps), 0
    while begin < len(bound):
        axis_and_index = place_of(bound[begin], method, state)
        end = begin + 1
        if axis_and_index is not None:
            while end < len(bound) and place_of(bound[end], method, state) == axis_and_index:
                end += 1
            if end - begin > 1 and independent(bound[begin:end], axis_and_index[1], state):
                found[begin:end] = _fused(steps[begin:end], bound[begin:end], axis_and_index, state)
        begin = end
    return found


def place_of(one: Bound, method: Method, state: State) -> tuple[int, int] | None:
    """The axis along which an instruction writes rows, and the value with their positions; None for
    any other instruction."""
    if not isinstance(one.target, Kernel) or one.target.name != _WRITE or len(one.args) != 4:
        return None
    target, indices, _, accumulate = (method.values[i] for i in one.args)
    if not isinstance(target, Tensor) or not isinstance(indices, OptionalTensorList) or accumulate:
        return None
    *before, last = indices.items or (-1,)
    slot = state.slots[one.args[0]]
    if last < 0 or any(item >= 0 for item in before) or len(before) >= len(target.shape):
        return None
    in_place = slot is not None and slot.full is not None and not slot.layout.dynamic
    return (len(before), last) if in_place and one.returned in (one.args[0], -1) else None


def independent(writes: Sequence[Bound], index: int, state: State) -> bool:
    """Whether no write changes what another reads."""
    written = {one.args[0] for one in writes}
    read = {index, *(one.args[2] for one in writes)}
    places = [[_memory(i, state) for i in group] for group in (written, read)]
    return written.isdisjoint(read) and not any(
        a is not None and b is not None and np.may_share_memory(a, b)
        for a in places[0]
        for b in places[1]
    )


def _memory(index: int, state: State) -> Array | None:
    slot = state.slots[index]
    return None if slot is None else slot.memory


def _fused(
    steps: Sequence[Step], writes: Sequence[Bound], place: tuple[int, int], state: State
) -> list[Step]:
    axis, index = place
    values = state.values
    pairs = []
    for one in writes:
        slot = state.slots[one.args[0]]
        assert slot is not None and slot.full is not None
        pairs.append((one.args[0], slot.full, one.args[2]))
    before = (slice(None),) * axis
    least = min(target.shape[axis] for _, target, _ in pairs)
    done = False

    def write_all() -> None:
        nonlocal done
        done = False
        rows = _rows(values[index], least)
        if rows is None or not all(
            values[i] is target and _fits(target, values[v], axis, rows) for i, target, v in pairs
        ):
            steps[0]()
            return
        where = (*before, rows)
        for _, target, value in pairs:
            target[where] = values[value]
        done = True

    def other(step: Step) -> Step:
        return lambda: None if done else step()

    return [write_all, *map(other, steps[1:])]


def _rows(index: Any, size: int) -> slice | None:
    """Positions that follow one another, within ``size``."""
    if not isinstance(index, np.ndarray) or index.ndim != 1 or index.dtype.kind != "i":
        return None
    count = index.size
    first = int(index[0]) if count else -1
    if first < 0 or first + count > size or (count > 1 and not (np.diff(index) == 1).all()):
        return None
    return slice(first, first + count)


def _fits(target: Array, value: Any, axis: int, rows: slice) -> bool:
    shape = target.shape
    return (
        isinstance(value, np.ndarray)
        and value.dtype == target.dtype
        and value.shape == (*shape[:axis], rows.stop - rows.start, *shape[axis + 1 :])
    )
