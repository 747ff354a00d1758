"""One block of memory for values that are not all alive at once: a plan by live ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.runtime.blocks import ALIGNMENT


class Live(NamedTuple):
    """A value of ``size`` bytes that is written in step ``first`` and read last in ``last``."""

    size: int
    first: int
    last: int


def plan(values: Mapping[int, Live]) -> tuple[dict[int, int], int]:
    """An offset for each value, a multiple of ``ALIGNMENT``, and the size of the whole: the largest
    values first, each at the lowest place where nothing lies that is alive at the same time. Sizes
    include any room behind a value."""
    offsets: dict[int, int] = {}
    steps = 1 + max((value.last for value in values.values()), default=0)
    #: by step, where those that are placed lie: what is alive in it, and what it writes
    alive: list[list[tuple[int, int]]] = [[] for _ in range(steps)]
    written: list[list[tuple[int, int]]] = [[] for _ in range(steps)]
    total = 0
    for size, key in sorted([(-value.size, key) for key, value in values.items()]):
        _, first, last = values[key]
        size = -(size // ALIGNMENT) * ALIGNMENT
        near = alive[first].copy()
        for others in written[first + 1 : last + 1]:
            near += others
        near.sort()
        place = 0
        for begin, end in near:
            if place + size <= begin:
                break
            if end > place:
                place = end
        offsets[key] = place
        found = (place, place + size)
        total = max(total, found[1])
        written[first].append(found)
        for others in alive[first : last + 1]:
            others.append(found)
    return offsets, total
