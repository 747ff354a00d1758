"""How constant indices are selected without a table of them: plans of slices, repetitions and
reversals.

Sequences of indices that operators make are regular: they count up or down, step, repeat, or do so
in blocks (resizing by 3/2 takes 0 0 1, 2 2 3, 4 4 5 …). A plan says a sequence in such terms, and
its size follows from how regular the sequence is, not from how long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = "NDArray[np.int64]"

#: A sequence of more pieces than these is left to a kernel outside. On one x86-64 core a slice of
#: one element takes 0.1 us with its share of the concatenation, a call of a kernel 10 us.
MOST_PIECES = 128
#: Up to so many runs are sliced one by one, whatever else they have in common.
FEW_RUNS = 4
#: The longest block that is looked for. A block is itself a plan.
LONGEST_BLOCK = 128
#: How deep blocks stand in blocks.
DEEPEST = 4
#: Elements of the table in which repetition is looked for; longer sequences get shorter blocks.
_TABLE = 2**23


@dataclass(frozen=True)
class Run:
    """``count`` indices from ``start`` on, one after the other."""

    start: int
    count: int


@dataclass(frozen=True)
class Repeat:
    """All that ``of`` selects, ``times`` times."""

    of: Plan
    times: int


@dataclass(frozen=True)
class Blocks:
    """The same selection from each of ``count`` windows of ``width`` indices, side by side
    (``backwards``: the last window first). Each of ``parts`` says where the first window begins
    and what is selected from each."""

    count: int
    width: int
    parts: tuple[tuple[int, Plan], ...]
    backwards: bool = False


@dataclass(frozen=True)
class Join:
    """Several selections, one after the other."""

    parts: tuple[Plan, ...]


Plan: TypeAlias = "Run | Repeat | Blocks | Join"


class IrregularError(Exception):
    """The indices would take more slices than :data:`MOST_PIECES`."""


def planned(indices: Sequence[int] | Indices, extent: int) -> Plan:
    """The plan of a sequence of indices, each at least 0 and below ``extent``. Raises
    :class:`IrregularError` where it would have more than :data:`MOST_PIECES` pieces."""
    return _planned(np.asarray(indices, np.int64), extent, 0)


def _planned(indices: Indices, extent: int, depth: int) -> Plan:
    borders = np.flatnonzero(np.diff(indices) != 1) + 1
    if len(borders) < FEW_RUNS:
        return _runs(indices, borders)
    period = _period(indices) if depth < DEEPEST else None
    if period is not None:
        return _fewer(indices, borders, period, extent, depth)
    changes = _Changes(indices, LONGEST_BLOCK if depth < DEEPEST else 1)
    parts: list[Plan] = []
    position = 0
    while position < len(indices):
        if len(parts) == MOST_PIECES:
            raise IrregularError
        period, length = changes.best(position)
        parts.append(_blocks(indices[position : position + length], period, extent, depth))
        position += length
    return _joined(parts)


def _fewer(indices: Indices, borders: Indices, period: int, extent: int, depth: int) -> Plan:
    """Blocks of ``period``, or runs where those are not more."""
    try:
        blocks = _blocks(indices, period, extent, depth)
    except IrregularError:
        if len(borders) >= MOST_PIECES:
            raise
        return _runs(indices, borders)
    return _runs(indices, borders) if len(borders) < pieces(blocks) else blocks


def pieces(plan: Plan) -> int:
    """How many slices a plan takes."""
    if isinstance(plan, Run):
        return 1
    if isinstance(plan, Repeat):
        return pieces(plan.of)
    if isinstance(plan, Join):
        return sum(map(pieces, plan.parts))
    return sum(pieces(part) for _, part in plan.parts)


def _runs(indices: Indices, borders: Indices) -> Plan:
    """Runs that begin at ``borders``."""
    starts, ends = [0, *borders.tolist()], [*borders.tolist(), len(indices)]
    return _joined(
        [Run(int(indices[start]), end - start) for start, end in zip(starts, ends, strict=True)]
    )


def _joined(parts: list[Plan]) -> Plan:
    return parts[0] if len(parts) == 1 else Join(tuple(parts))


def _period(indices: Indices) -> int | None:
    """The shortest period of the whole sequence: its blocks are a constant step apart."""
    count = len(indices)
    for period in range(1, count // 2 + 1):
        if count % period == 0:
            steps = indices[period:] - indices[:-period]
            if bool((steps == steps[0]).all()):
                return period
    return None


class _Changes:
    """Where a sequence stops to go on as it did ``period`` indices before, for each period."""

    def __init__(self, indices: Indices, longest: int) -> None:
        self.indices = indices
        longest = max(1, min(longest, len(indices) // 2, _TABLE // len(indices)))
        self.ends: list[Indices] = []
        for period in range(1, longest + 1):
            steps = indices[period:] - indices[:-period]
            self.ends.append(np.flatnonzero(np.diff(steps)) + 1)

    def best(self, position: int) -> tuple[int, int]:
        """The period that says the most indices from ``position`` on for each slice that it takes,
        and how many those are, whole blocks all of them."""
        best, most = (1, 1), 1.0
        for period, ends in enumerate(self.ends, 1):
            if position + 2 * period > len(self.indices):
                break
            after = int(np.searchsorted(ends, position, side="right"))
            last = int(ends[after]) if after < len(ends) else len(self.indices) - period
            length = (last - position + period) // period * period
            if length >= 2 * period:
                share = length / self._cost(position, period)
                if share > most:
                    most, best = share, (period, length)
        return best

    def _cost(self, position: int, period: int) -> float:
        """About how many slices the blocks take: reshapes count like them."""
        step = int(self.indices[position + period] - self.indices[position])
        if period == 1 and step in (0, 1):
            return 1.0
        inside = np.diff(self.indices[position : position + period])
        return 3.0 + float(np.count_nonzero(inside != 1)) + (8.0 if step < 0 else 0.0)


def _blocks(indices: Indices, period: int, extent: int, depth: int) -> Plan:
    """Whole blocks of ``period`` indices, each a constant step after the one before."""
    count, first = len(indices) // period, indices[:period]
    step = int(indices[period] - indices[0]) if count > 1 else 1
    if period == 1 and step == 1:
        return Run(int(first[0]), count)
    if step == 0:
        return Repeat(_planned(first, extent, depth + 1), count)
    width = abs(step)
    lowest = first if step > 0 else indices[-period:]
    start = int(lowest.min())
    quotients, rests = np.divmod(lowest - start, width)
    borders = [0, *(np.flatnonzero(np.diff(quotients)) + 1).tolist(), period]
    parts: list[tuple[int, Plan]] = []
    for head, end in zip(borders[:-1], borders[1:], strict=True):
        begin = start + int(quotients[head]) * width
        # The last window is not to hang over the end, where that can be helped.
        shift = min(begin, max(0, begin + count * width - extent))
        parts.append((begin - shift, _planned(rests[head:end] + shift, width, depth + 1)))
    return Blocks(count, width, tuple(parts), step < 0)
