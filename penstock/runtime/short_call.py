"""The short way of a small call.

A call of a small program takes a microsecond or two of work and several of checks, of finding out
where arrays lie, and of telling the engine. A method that is one delegate call over small tensors
of fixed shapes needs most of that once: its inputs are copied to where the engine expects them, and
its outputs out of where it leaves them. Whatever such a call is not prepared for goes the long way,
which has the error messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from penstock.runtime.blocks import Array, zeros
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.instructions import Bound
from penstock.runtime.slots import Slot

#: Inputs of so many bytes in total are copied sooner than the engine is told where they lie.
COPIED_INPUT_BYTES = 1 << 14
#: The outputs for these inputs; None where the call has to go the long way.
ShortCall: TypeAlias = "Callable[[Sequence[Any]], list[Any] | None]"


def short_call(
    bound: Sequence[Bound],
    inputs: Sequence[int],
    outputs: Sequence[int],
    slots: Sequence[Slot | None],
) -> ShortCall | None:
    """The short way of a method with these instructions and the values ``inputs`` and ``outputs``;
    None if there is none. The method has run once.

    Raises InvalidProgramError for a damaged program.
    """
    if len(bound) != 1 or not isinstance(bound[0].target, BoundDelegate):
        return None
    delegate, reads, writes = bound[0].target, bound[0].args, bound[0].outs
    if set(reads) != set(inputs) or len(set(inputs)) < len(inputs) or not outputs:
        return None
    if not set(outputs) <= set(writes) or not set(writes).isdisjoint(inputs):
        return None
    used = {index: slots[index] for index in (*reads, *writes)}
    if any(slot is None or slot.layout.dynamic for slot in used.values()):
        return None
    layouts = {index: slot.layout for index, slot in used.items() if slot is not None}
    if sum(layouts[index].nbytes for index in inputs) > COPIED_INPUT_BYTES:
        return None
    arrays: dict[int, Array] = {}
    for index in inputs:
        arrays[index] = layouts[index].over(zeros(layouts[index].nbytes), layouts[index].shape)
    for index in writes:
        slot = slots[index]
        if slot is None or slot.full is None:
            return None
        arrays[index] = slot.full
    run = delegate.fixed(slots, reads, writes, arrays)
    if run is None:
        return None
    return copying_call([arrays[i] for i in inputs], [arrays[i] for i in outputs], run)


def copying_call(
    places: Sequence[Array], results: Sequence[Array], run: Callable[[], object]
) -> ShortCall:
    """A call that copies its inputs to ``places``, runs, and gives copies of ``results``. It has to
    go the long way where an input is of another form, or ``run`` says ``False``."""
    count = len(places)
    ports = [(place, place.dtype, place.shape) for place in places]
    array_type = np.ndarray

    def call(inputs: Sequence[Any]) -> list[Any] | None:
        if len(inputs) != count:
            return None
        for (place, dtype, shape), value in zip(ports, inputs, strict=False):
            if type(value) is not array_type or value.dtype is not dtype or value.shape != shape:
                return None
            place[...] = value
        if run() is False:
            return None
        return [result.copy("K") for result in results]

    return call
