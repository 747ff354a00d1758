"""Plans select what their indices say, in few pieces where those are regular."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.compiler.delegate.lowering.index_plan import (
    MOST_PIECES,
    Blocks,
    IrregularError,
    Join,
    Plan,
    Repeat,
    Run,
    planned,
)


def selected(plan: Plan, line: NDArray[np.int64]) -> NDArray[np.int64]:
    """What ``plan`` selects along the first dimension of ``line``."""
    match plan:
        case Run(start, count):
            assert start + count <= len(line)
            return line[start : start + count]
        case Repeat(of, times):
            return np.concatenate([selected(of, line)] * times)
        case Join(parts):
            return np.concatenate([selected(part, line) for part in parts])
        case Blocks(count, width, parts, backwards):
            taken = []
            for begin, part in parts:
                windows = line[begin : begin + count * width]
                missing = np.full((count * width - len(windows), *line.shape[1:]), -1)
                windows = np.concatenate([windows, missing])
                columns = windows.reshape(count, width, *line.shape[1:]).swapaxes(0, 1)
                taken.append(selected(part, columns))
            rows = np.concatenate(taken).swapaxes(0, 1)
            return (rows[::-1] if backwards else rows).reshape(-1, *line.shape[1:])


def pieces(plan: Plan) -> int:
    match plan:
        case Run():
            return 1
        case Repeat(of):
            return pieces(of)
        case Join(parts):
            return sum(map(pieces, parts))
        case Blocks(_, _, parts):
            return sum(pieces(part) for _, part in parts)


def nearest(old: int, new: int) -> list[int]:
    line = torch.arange(old, dtype=torch.float32)[None, None]
    found = torch.nn.functional.interpolate(line, size=new)
    return [int(value) for value in found[0, 0]]


REGULAR: list[tuple[Sequence[int], int, int]] = [
    (range(4000), 4000, 1),
    (range(3999, -1, -1), 4000, 1),
    (range(200, 0, -1), 480_000, 1),
    (range(1, 4000, 3), 4000, 1),
    ([0] * 5000, 16_000, 1),
    ([*range(700, 1000), *range(700)], 1000, 2),
    (nearest(100, 200), 100, 2),
    (nearest(100, 150), 100, 2),
    (nearest(100, 257), 100, 25),
    (nearest(1000, 1501), 1000, 12),
    (nearest(16_000, 22_050), 16_000, 80),
    (nearest(997, 1511), 997, 60),
    ([i * 160 + j for i in range(50) for j in range(400)], 50 * 160 + 240, 3),
    ([i + 64 * j for i in range(64) for j in range(32)], 2048, 32),
]


@pytest.mark.parametrize("indices, extent, most", REGULAR, ids=range(len(REGULAR)))
def test_regular_sequences_take_few_pieces(indices: Sequence[int], extent: int, most: int) -> None:
    plan = planned(indices, extent)
    np.testing.assert_array_equal(selected(plan, np.arange(extent)), indices)
    assert pieces(plan) <= most


def test_what_is_not_regular_is_refused() -> None:
    with pytest.raises(IrregularError):
        planned(np.random.default_rng(0).permutation(4000), 4000)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[int], int]:
    """Blocks within blocks, joined, with something irregular here and there."""
    line = draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 3))):
        step, times = draw(st.integers(-40, 40)), draw(st.integers(1, 6))
        line = [index + step * i for i in range(times) for index in line]
        if draw(st.booleans()):
            line += draw(st.lists(st.integers(0, 50), max_size=3))
    lowest = min(line)
    line = [index - lowest for index in line]
    return line, max(line) + 1 + draw(st.integers(0, 5))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(sequences())
def test_plans_select_what_the_indices_say(made: tuple[list[int], int]) -> None:
    indices, extent = made
    try:
        plan = planned(indices, extent)
    except IrregularError:
        runs = 1 + int(np.count_nonzero(np.diff(indices) != 1))
        assert runs > MOST_PIECES
        return
    np.testing.assert_array_equal(selected(plan, np.arange(extent)), indices)
