"""One block of memory for values that are not all alive at once: a plan by live ranges."""

from __future__ import annotations

import bisect
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
    placed: list[tuple[int, int, int, int]] = []  # begin, end; first, last
    total = 0
    for key in sorted(values, key=lambda key: (-values[key].size, key)):
        size, first, last = values[key]
        size = -(-size // ALIGNMENT) * ALIGNMENT
        place = 0
        for begin, end, begun, done in placed:
            if begun <= last and first <= done:
                if place + size <= begin:
                    break
                place = max(place, end)
        offsets[key] = place
        bisect.insort(placed, (place, place + size, first, last))
        total = max(total, place + size)
    return offsets, total
