"""One block of memory for values that are not all alive at once: a plan by live ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.runtime.blocks import ALIGNMENT


@dataclass(frozen=True)
class Live:
    """A value of ``size`` bytes that is written in step ``first`` and read last in ``last``."""

    size: int
    first: int
    last: int


def plan(values: Mapping[int, Live]) -> tuple[dict[int, int], int]:
    """An offset for each value, a multiple of ``ALIGNMENT``, and the size of the whole: the largest
    values first, each at the lowest place where nothing lies that is alive at the same time. Sizes
    include any room behind a value."""
    offsets: dict[int, int] = {}
    total = 0
    for key in sorted(values, key=lambda key: (-values[key].size, key)):
        value = values[key]
        taken = sorted(
            (offsets[other], offsets[other] + _rounded(values[other].size))
            for other in offsets
            if values[other].first <= value.last and value.first <= values[other].last
        )
        place = 0
        for begin, end in taken:
            if place + _rounded(value.size) <= begin:
                break
            place = max(place, end)
        offsets[key] = place
        total = max(total, place + _rounded(value.size))
    return offsets, total


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
