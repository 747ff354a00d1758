"""Instructions on programs made in memory: kernel calls, views, moves, jumps, lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from method_harness import BOOL, ONES, make, run, tensor

from penstock.errors import InvalidProgramError
from penstock.formats.program import (
    Dynamism,
    FreeCall,
    IntList,
    JumpFalseCall,
    MoveCall,
    OptionalTensorList,
    TensorList,
)
from penstock.runtime import interpreter


@pytest.mark.parametrize("operator", ["test::add.out", "test::add_into.out"])
@pytest.mark.parametrize("places", [(None, None, None), (0, 24, 48), (0, 24, 0)])
def test_kernel(operator: str, places: tuple[int | None, ...]) -> None:
    values = [tensor(2, 3, at=place) for place in places]
    program = make(values, [0, 1], [2], [(operator, 0, 1, 2, 2)])
    a, b = ONES.copy(), ONES * 2
    (first,) = run(program, a, b)
    (second,) = run(program, b, b)
    np.testing.assert_array_equal(first, ONES * 3)
    np.testing.assert_array_equal(second, ONES * 4)
    np.testing.assert_array_equal(a, ONES)
    assert first.flags.owndata or first.base.flags.owndata


def test_elided_view_of_an_input_sees_the_input() -> None:
    """Value 1 has the input's bytes in another shape, and no instruction writes it."""
    values = [tensor(2, 3, at=0), tensor(6, at=0), tensor(6, at=64)]
    program = make(values, [0], [2], [("test::add.out", 1, 1, 2, 2)])
    np.testing.assert_array_equal(run(program, ONES)[0], np.full(6, 2))
    np.testing.assert_array_equal(run(program, ONES * 4)[0], np.full(6, 8))


def test_elided_view_as_output() -> None:
    values = [tensor(2, 3), tensor(2, 3, at=64), tensor(6, at=64), tensor(3, 2, at=64)]
    program = make(values, [0], [2, 3], [("test::add.out", 0, 0, 1, 1)])
    flat, tall = run(program, ONES)
    np.testing.assert_array_equal(flat, np.full(6, 2))
    np.testing.assert_array_equal(tall, np.full((3, 2), 2))


def test_view_and_its_source_share_memory() -> None:
    size = IntList((3, 4))
    values = [tensor(2, 3), tensor(6, at=0), size, -1, 1, tensor(6, 1, at=0), tensor(6, 1)]
    program = make(
        values,
        [0],
        [5, 6],
        [
            ("executorch_prim::et_view.default", 0, 2, 5),
            ("test::add.out", 5, 5, 6, 6),
        ],
    )
    seen, doubled = run(program, ONES)
    np.testing.assert_array_equal(seen, np.ones((6, 1)))
    np.testing.assert_array_equal(doubled, np.full((6, 1), 2))
    assert not np.shares_memory(seen, ONES)


def test_loop_over_rows() -> None:
    """map: row i of the output = row i of the input, doubled; the loop ends with i == 4."""
    x, rows, i, row, doubled, one, four, done, zero = range(9)
    values = [
        tensor(4, 3),
        tensor(4, 3, at=0, dynamism=Dynamism.DYNAMIC_BOUND),
        0,
        tensor(3, at=64),
        tensor(3, at=128),
        1,
        4,
        False,
        0,
    ]
    code = [
        ("test::row.out", x, i, row, row),
        ("test::add.out", row, row, doubled, doubled),
        ("executorch_prim::et_copy_index.tensor", rows, doubled, i),
        ("test::plus", i, one, i),
        ("test::equal", i, four, done),
        JumpFalseCall(done, 0),
        ("test::times", i, zero, i),
    ]
    program = make(values, [x], [rows], code)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for _ in range(2):  # the counter is set back by the last instruction
        np.testing.assert_array_equal(run(program, x)[0], 2 * x)


def test_jump_and_move() -> None:
    """Both ways of a condition, given as a bool tensor."""
    values = [
        tensor(dtype=BOOL),
        tensor(2, 3),
        tensor(2, 3, at=0),
        tensor(2, 3, at=64),
        tensor(2, 3, at=128),
        False,
    ]
    code = [
        JumpFalseCall(0, 4),
        ("test::add.out", 1, 1, 2, 2),
        MoveCall(2, 4),
        JumpFalseCall(5, 6),
        ("test::same.out", 1, 3, 3),
        MoveCall(3, 4),
    ]
    program = make(values, [0, 1], [4], code)
    for _ in range(2):
        np.testing.assert_array_equal(run(program, np.array(True), ONES)[0], ONES * 2)
        np.testing.assert_array_equal(run(program, np.array(False), ONES)[0], ONES)


def test_endless_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "MAX_BACKWARD_JUMPS", 100)
    program = make([False], [], [], [JumpFalseCall(0, 0)])
    with pytest.raises(InvalidProgramError, match="for ever"):
        run(program)


def test_numbers_stay_within_64_bits() -> None:
    program = make([1 << 62, 4], [], [0], [("test::times", 0, 1, 0)])
    with pytest.raises(InvalidProgramError, match="64 bits"):
        run(program)
    assert program.method()._state.values[0] == 1 << 62


def test_lists_and_several_outputs() -> None:
    values = [
        tensor(4),
        tensor(2, at=0),
        tensor(2, at=64),
        TensorList((1, 2)),
        OptionalTensorList((1, -1, 2)),
        None,
        tensor(2),
        tensor(2),
        tensor(2),
    ]
    program = make(
        values,
        [0],
        [6, 7, 8],
        [
            ("test::halves.out", 0, 3, 3),
            ("test::total.out", 4, 6, 6),
            ("test::two.out", 6, 7, 8, 3),
        ],
    )
    total, low, high = run(program, np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(total, [2, 4])
    np.testing.assert_array_equal(low, [1, 3])
    np.testing.assert_array_equal(high, [3, 5])


def test_unbounded_output() -> None:
    values = [
        IntList((1, 2)),
        3,
        5,
        2.5,
        tensor(1, 1, dynamism=Dynamism.DYNAMIC_UNBOUND, at=0),
        tensor(1, 1, dynamism=Dynamism.DYNAMIC_UNBOUND),
    ]
    program = make(
        values,
        [],
        [5],
        [("test::sized.out", 0, 3, 4, 4), ("test::add.out", 4, 4, 5, 5), FreeCall(4)],
    )
    for _ in range(2):
        np.testing.assert_array_equal(run(program)[0], np.full((3, 5), 5.0))


@pytest.mark.parametrize(
    "call",
    [
        ("test::add.out", 0, 0, 1, 2),  # float32 for a bool tensor
        ("test::add.out", 0, 0, 1, 3),  # of another rank
        ("test::add.out", 0, 0, 1, 4),  # for a number
        ("test::plus", 4, 4, 1),  # a number for a tensor
        ("test::plus", 4, 4, 5),  # for a list
    ],
)
def test_what_a_kernel_returns_stays_of_its_kind(call: tuple[Any, ...]) -> None:
    values = [tensor(2, 3), tensor(2, 3), tensor(2, 3, dtype=BOOL), tensor(6), 7, IntList((4,))]
    with pytest.raises(InvalidProgramError, match="of another kind"):
        make(values, [0, 2], [1], [call]).method()
