"""Which values need the memory that was planned for them, and how much of it is taken."""

from __future__ import annotations

import pytest
from method_harness import tensor

from penstock.errors import InvalidProgramError
from penstock.formats.program import JumpFalseCall, Method
from penstock.runtime.planned_memory import Access, arenas, check_total, private_values
from penstock.runtime.slots import Layout


def private(
    values: list[object],
    inputs: list[int],
    outputs: list[int],
    *accesses: Access,
    jumps: bool = False,
) -> set[int]:
    code = [JumpFalseCall(0, 0)] if jumps else []
    method = Method("forward", values, inputs, outputs, code, memory_sizes=[0, 4096])  # type: ignore[arg-type]
    layouts = {i: Layout(value, f"value {i}") for i, value in enumerate(values)}  # type: ignore[arg-type]
    return private_values(method, layouts, accesses)


def test_inputs_and_outputs_that_stand_for_themselves_may_live_anywhere() -> None:
    values = [tensor(4, at=0), tensor(4, at=64), tensor(4)]
    step = Access(reads=(0,), writes=(1,))
    assert private([*values], [0], [1], step) == {0, 1, 2}


def test_what_is_between_needs_its_memory() -> None:
    values = [tensor(4, at=0), tensor(4, at=64), tensor(4, at=128)]
    steps = [Access((0,), (1,)), Access((1,), (2,))]
    assert private([*values], [0], [2], *steps) == {0, 2}


def test_values_that_take_turns_are_private_and_views_are_not() -> None:
    values = [tensor(4, at=0), tensor(4, at=0)]
    assert private([*values], [0], [1], Access((0,), (1,))) == {0, 1}, "written before it is read"
    assert private([*values], [0], [1], Access((1,), ())) == set(), "read as what it overlaps with"


def test_initial_states_and_jumps_keep_everything_in_place() -> None:
    buffer = tensor(4, at=0, data=bytes(16))
    assert private([buffer], [], [0], Access((0,), ())) == set()
    values = [tensor(4, at=0), tensor(4, at=64), tensor(4)]
    assert private([*values], [0], [1], Access((0,), (1,)), jumps=True) == {2}


def test_memory_is_taken_for_what_needs_it() -> None:
    values = [tensor(4, at=0), tensor(4, at=64), tensor(400, at=1024)]
    method = Method("forward", [*values], [], [], [], memory_sizes=[0, 4096])
    layouts = {i: Layout(value, "x") for i, value in enumerate(values)}
    assert {i: len(block) for i, block in arenas(method, layouts, {0, 1}).items()} == {1: 80}
    assert arenas(method, layouts, set()) == {}


def test_more_than_the_machine_has_is_refused() -> None:
    check_total("forward", 1 << 20)
    with pytest.raises(InvalidProgramError, match="asks for 1152921504606846976 bytes of memory"):
        check_total("forward", 1 << 60)
