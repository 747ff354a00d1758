"""The memory plan of a method at run time: which values need it, and the memory itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.errors import InvalidProgramError
from penstock.formats.program import Allocation, Dynamism, JumpFalseCall, Method, Tensor
from penstock.runtime import blocks
from penstock.runtime.blocks import Array
from penstock.runtime.slots import Layout

#: The memory of a machine that does not tell.
_UNKNOWN = 64 << 30


@dataclass(frozen=True)
class Access:
    """What one instruction does to tensor values: all it reads, and those it only writes."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]


def private_values(
    method: Method, layouts: Mapping[int, Layout], accesses: Iterable[Access]
) -> set[int]:
    """The values whose bytes no other value stands for, so that they can live anywhere.

    Two planned tensors that overlap either take turns, or one is meant as a view of the other
    (the stock compiler elides static views so). They take turns if each is written as a whole
    before it is read. A value is private if that holds for it and all that overlap with it; one
    with an initial state never is. With jumps the order of accesses is not known, and only
    unplanned values are private.
    """
    planned = {i: a for i in layouts if (a := _allocation(method, i)) is not None}
    private = set(layouts) - set(planned)
    if any(isinstance(instruction, JumpFalseCall) for instruction in method.instructions):
        return private
    first: dict[int, bool] = dict.fromkeys(method.inputs, True)
    for access in accesses:
        for index in access.reads:
            first.setdefault(index, False)
        for index in access.writes:
            first.setdefault(index, True)

    def takes_turns(index: int) -> bool:
        value = method.values[index]
        initial = isinstance(value, Tensor) and value.data is not None
        # A value that nothing touches is of no consequence, unless it is given out or is a buffer.
        return not initial and first.get(index, index not in method.outputs)

    by_start: dict[int, list[tuple[int, int, int]]] = {}
    for index, allocation in planned.items():
        begin = allocation.offset
        by_start.setdefault(allocation.memory_id, []).append(
            (begin, begin + layouts[index].nbytes, index)
        )
    for index in {*method.inputs, *method.outputs} & set(planned):
        memory, begin = planned[index].memory_id, planned[index].offset
        end = begin + layouts[index].nbytes
        neighbours = (i for b, e, i in by_start[memory] if b < end and begin < e)
        if takes_turns(index) and all(takes_turns(i) for i in neighbours):
            private.add(index)
    return private


def arenas(
    method: Method, layouts: Mapping[int, Layout], needed: Iterable[int]
) -> dict[int, Array]:
    """Memory by id, as large as the ``needed`` planned values ask for (64-byte aligned, zero).

    Raises InvalidProgramError if that is more than the machine has.
    """
    sizes: dict[int, int] = {}
    for index in needed:
        allocation = _allocation(method, index)
        if allocation is not None:
            end = allocation.offset + layouts[index].nbytes
            sizes[allocation.memory_id] = max(sizes.get(allocation.memory_id, 0), end)
    check_total(method.name, sum(sizes.values()))
    return {memory: blocks.zeros_when_touched(size) for memory, size in sizes.items()}


def check_total(name: str, size: int) -> None:
    """Raise InvalidProgramError if ``size`` bytes are more than this machine's memory."""
    there = blocks.machine_bytes() or _UNKNOWN
    if size > there:
        raise InvalidProgramError(
            f"the method {name!r} asks for {size} bytes of memory, this machine has"
            f" {there}; the file is damaged or made for a larger machine"
        )


def _allocation(method: Method, index: int) -> Allocation | None:
    """The plan of a tensor; one without a bound cannot have memory set apart for it."""
    value = method.values[index]
    if not isinstance(value, Tensor) or value.dynamism is Dynamism.DYNAMIC_UNBOUND:
        return None
    return value.allocation
