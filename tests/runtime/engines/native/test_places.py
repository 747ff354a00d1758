"""Where a plan puts values: nothing is written over what is read later, whatever shares a place."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.engines.native.plan import Field, Over, _allocated


class Step(NamedTuple):
    """Makes the value of its own number from ``inputs``. ``how``: "over" the first of them, the
    "same" bytes as it, or "apart"."""

    inputs: tuple[int, ...]
    how: str
    size: int


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Steps that read what was made before; the first makes a value from nothing."""
    steps = [Step((), "apart", draw(st.integers(1, 300)))]
    for number in range(1, draw(st.integers(2, 14))):
        inputs = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True))
        how = draw(st.sampled_from(("apart", "over", "same")))
        size = draw(st.integers(1, 300)) if how == "apart" else steps[inputs[0]].size
        steps.append(Step(tuple(inputs), how, size))
    return steps


@given(programs())
def test_what_is_read_is_what_was_written(steps: list[Step]) -> None:
    fields = [
        (Field(value, 0, number), number)
        for number, step in enumerate(steps)
        for value in (*step.inputs, number)
    ]
    overs = [
        Over(number, step.inputs[0], number, step.how == "same")
        for number, step in enumerate(steps)
        if step.how != "apart"
    ]
    sizes: dict[Hashable, int] = {number: step.size for number, step in enumerate(steps)}
    places, block = _allocated(fields, (), sizes, overs)
    start = min(places.values())
    memory = np.full(max(places[n] + size for n, size in sizes.items()) - start, -1)
    at = {n: slice(places[n] - start, places[n] - start + size) for n, size in sizes.items()}
    holds: dict[int, int] = {}  # what each value's bytes are
    for number, step in enumerate(steps):
        for value in step.inputs:
            assert (memory[at[value]] == holds[value]).all()
        if step.how == "same":
            assert places[number] == places[step.inputs[0]]
            holds[number] = holds[step.inputs[0]]
        else:
            holds[number] = number
            memory[at[number]] = number
    del block


def test_an_output_takes_the_place_of_what_nothing_reads_again() -> None:
    fields = [(Field(v, 0, step), step) for step, v in ((0, "a"), (1, "a"), (1, "b"), (2, "b"))]
    places, _ = _allocated(fields, (), {"a": 64, "b": 64}, [Over("b", "a", 1)])
    assert places["a"] == places["b"]
    fields.append((Field("a", 0, 2), 2))
    places, _ = _allocated(fields, (), {"a": 64, "b": 64}, [Over("b", "a", 1)])
    assert places["a"] != places["b"]
    places, _ = _allocated(fields, (), {"a": 64, "b": 64}, [Over("b", "a", 1, same=True)])
    assert places["a"] == places["b"]
