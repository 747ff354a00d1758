"""Plans by live ranges: what is alive at one time does not overlap, and little is wasted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.blocks import ALIGNMENT
from penstock.runtime.engines.arena import Live, plan


@st.composite
def lives(draw: st.DrawFn) -> Live:
    first = draw(st.integers(0, 9))
    return Live(draw(st.integers(0, 500)), first, draw(st.integers(first, 9)))


@given(st.dictionaries(st.integers(0, 50), lives(), max_size=12))
def test_what_lives_together_lies_apart(values: dict[int, Live]) -> None:
    offsets, total = plan(values)
    assert set(offsets) == set(values)
    for key, value in values.items():
        begin, end = offsets[key], offsets[key] + value.size
        assert begin % ALIGNMENT == 0 and begin >= 0 and end <= total
        for other, another in values.items():
            together = value.first <= another.last and another.first <= value.last
            apart = end <= offsets[other] or offsets[other] + another.size <= begin
            assert other == key or apart or not together
    at_once = max(
        (sum(v.size for v in values.values() if v.first <= t <= v.last) for t in range(10)),
        default=0,
    )
    assert at_once <= total <= sum(value.size + ALIGNMENT for value in values.values())


def test_values_that_take_turns_share_their_place() -> None:
    chain = {i: Live(1000, i, i + 1) for i in range(10)}
    assert plan(chain)[1] == 2 * 1024
