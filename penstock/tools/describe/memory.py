"""The memory plan of a method: which bytes each planned value takes, and for how long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from penstock.formats.program import Method, Tensor
from penstock.tools.describe.instructions import InstructionDescription, flat


@dataclass(frozen=True)
class PlannedValue:
    """``bytes`` of memory ``memory`` from ``offset`` on that the value ``value`` has in its live
    range: from instruction ``first`` to instruction ``last``, both included. ``kind`` is that of
    the value."""

    value: int
    kind: str
    memory: int
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """``sizes`` are the bytes of each memory, ``live`` the bytes of values that are live at each
    instruction, ``peak`` their maximum: no plan could do with less. What delegates need inside is
    theirs, and not in the file."""

    sizes: tuple[int, ...]
    values: tuple[PlannedValue, ...]
    live: tuple[int, ...]

    @property
    def peak(self) -> int:
        return max(self.live, default=0)


def describe_memory(
    method: Method,
    instructions: Sequence[InstructionDescription],
    kinds: Sequence[str],
    views: Mapping[int, int],
) -> MemoryPlan:
    """The plan of a method; ``kinds`` are those of its values, ``views`` has what views are
    views of.

    Inputs live from the beginning, outputs to the end, states all the time. What a loop touches
    and something outside of it too lives through the whole loop. A view lives from when what it is
    a view of is written.
    """
    end = max(len(instructions) - 1, 0)
    first: dict[int, int] = dict.fromkeys(method.inputs, 0)
    last: dict[int, int] = {}
    for one in instructions:
        for number in flat(method, one.arguments):
            first.setdefault(number, one.position)
            last[number] = one.position
    for number in flat(method, method.outputs):
        first.setdefault(number, end)
        last[number] = end + 1  # also where the last instruction closes a loop
    for view, owner in views.items():
        first[view] = min(first.get(view, end), first.get(owner, end))
    loops = _loops(instructions)
    found = []
    for number, value in enumerate(method.values):
        if not isinstance(value, Tensor) or value.allocation is None:
            continue
        begin, until = first.get(number, 0), last.get(number, first.get(number, 0))
        if kinds[number] == "state":
            begin, until = 0, end
        begin, until = _through(loops, begin, until)
        until = min(until, end)
        place = value.allocation
        found.append(
            PlannedValue(
                number, kinds[number], place.memory_id, place.offset, value.nbytes, begin, until
            )
        )
    return MemoryPlan(tuple(method.memory_sizes[1:]), tuple(found), _live(found, len(instructions)))


def _live(values: Sequence[PlannedValue], count: int) -> tuple[int, ...]:
    """At each of ``count`` instructions, the bytes in which a value lives. Views lie where what
    they are views of lies, and count once."""
    borders = sorted({(v.memory, end) for v in values for end in (v.offset, v.offset + v.bytes)})
    place = {border: index for index, border in enumerate(borders)}
    # bytes between a border and the next one of the same memory
    sizes = np.array(
        [b[1] - a[1] if a[0] == b[0] else 0 for a, b in pairwise(borders)] or [0], np.float64
    )
    changes: dict[int, list[tuple[PlannedValue, int]]] = {}
    for value in values:
        changes.setdefault(value.first, []).append((value, 1))
        changes.setdefault(value.last + 1, []).append((value, -1))
    users = np.zeros(len(sizes), np.int64)
    found, now = [], 0
    for position in range(count):
        for value, change in changes.get(position, ()):
            start = place[value.memory, value.offset]
            users[start : place[value.memory, value.offset + value.bytes]] += change
        if position in changes:
            now = int(sizes[users > 0].sum())
        found.append(now)
    return tuple(found)


def _loops(instructions: Sequence[InstructionDescription]) -> list[tuple[int, int]]:
    """First and last instruction of each loop; loops that overlap as one."""
    back = sorted(
        (one.destination, one.position)
        for one in instructions
        if one.destination is not None and one.destination <= one.position
    )
    merged: list[tuple[int, int]] = []
    for start, stop in back:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _through(loops: Sequence[tuple[int, int]], first: int, last: int) -> tuple[int, int]:
    """A live range, made so long that it goes through each loop that it begins or ends in."""
    stops = [stop for _, stop in loops]
    for number in (first, last):
        at = bisect_left(stops, number)
        if at < len(loops):
            start, stop = loops[at]
            inside = start <= first and last <= stop
            if start <= number <= stop and not inside:
                first, last = min(first, start), max(last, stop)
    return first, last
