"""Sizes in canonical form: the same numbers, and equal sizes the same expression."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._sympy.functions import CeilDiv, FloorDiv, Mod, ToFloat, TruncToInt

from penstock.compiler.fx import layout
from penstock.compiler.fx.size_expressions import canonical, floor_divide

S, T = sympy.symbols("s t", integer=True, positive=True)


def numbers(expression: Any) -> list[int]:
    """The expression at sizes drawn at random, always the same ones."""
    draw = random.Random(0)
    points = [(draw.randrange(1, 200), draw.randrange(1, 200)) for _ in range(40)]
    return [int(sympy.sympify(expression).subs({S: s, T: t})) for s, t in points]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (sympy.floor((S - 1) / 2) + 1, FloorDiv(S - 1, 2) + 1),
        (FloorDiv(S - 1, 2) + 1, FloorDiv(S + 1, 2)),
        (FloorDiv(FloorDiv(S - 1, 2), 2), FloorDiv(S - 1, 4)),
        (CeilDiv(S, 2), FloorDiv(S + 1, 2)),
        (-FloorDiv(-S, 2), FloorDiv(S + 1, 2)),
        (FloorDiv(4 * S + 6, 8), FloorDiv(2 * S + 3, 4)),
        (FloorDiv(16 * S - 1, 4), 4 * S - 1),
        (S - Mod(S, 4), 4 * FloorDiv(S, 4)),
        (FloorDiv(FloorDiv(S + 5, 2) - 3 + T, 2), FloorDiv(S - 1 + 2 * T, 4)),
        (TruncToInt(sympy.Float(0.75) * ToFloat(S)), FloorDiv(3 * S, 4)),
        ((S + 1) * (T + 1) - 1, S * T + S + T),
    ],
)
def test_equal_sizes_are_the_same(left: sympy.Expr, right: sympy.Expr) -> None:
    assert canonical(left) == canonical(right)
    assert layout.same(left, right)
    assert numbers(canonical(left)) == numbers(left) == numbers(right)


def test_other_sizes_are_not() -> None:
    assert not layout.same(FloorDiv(S, 2), FloorDiv(S + 1, 2))
    assert not layout.same(FloorDiv(S, 2), FloorDiv(S, 4))
    assert not layout.same(2 * FloorDiv(S, 2), S)
    assert not layout.same(FloorDiv(S, 2), FloorDiv(T, 2))


steps = st.lists(
    st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=4
)


@given(steps)
def test_nested_divisions_keep_their_value(steps: list[tuple[int, int, int]]) -> None:
    plain, found = S, S
    for scale, shift, divisor in steps:
        plain = FloorDiv(scale * plain + T + shift, divisor, evaluate=False)
        found = floor_divide(canonical(scale * found + T + shift), divisor)
    draw = random.Random(1)
    for _ in range(20):
        s, t = draw.randrange(1, 99), draw.randrange(1, 99)
        expected = s
        for scale, shift, divisor in steps:
            expected = (scale * expected + t + shift) // divisor
        assert int(found.subs({S: s, T: t})) == expected
        assert int(canonical(plain).subs({S: s, T: t})) == expected


def test_a_tower_of_strided_convolutions() -> None:
    size: layout.Dim = S
    for _ in range(5):
        size = layout.floor_divide(size - 1, 2) + 1
    assert layout.same(size, FloorDiv(S + 31, 32))
    assert layout.floor_divide(7, 2) == 3
