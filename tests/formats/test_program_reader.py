"""What the reader of programs checks beyond the format, so that a program can be relied on."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidProgramError
from penstock.formats.program import Allocation, Dynamism, Method, Program, ScalarType, Tensor
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import write_program


def planned(memory: int = 1, offset: int = 0, **rest: Any) -> Tensor:
    """A tensor of 24 bytes."""
    return Tensor(ScalarType.FLOAT, (2, 3), allocation=Allocation(memory, offset), **rest)


def read(values: list[Any], inputs: list[int], outputs: list[int]) -> Method:
    method = Method("forward", values, inputs, outputs, [], memory_sizes=[0, 64])
    return read_program(write_program(Program([method]))).methods[0]


@pytest.mark.parametrize(
    "tensor",
    [
        planned(offset=0),
        planned(offset=40),
        # Its size is not known: whoever runs it finds memory for it.
        planned(offset=64, dynamism=Dynamism.DYNAMIC_UNBOUND),
    ],
)
def test_allocations_within_their_memory(tensor: Tensor) -> None:
    assert read([tensor], [0], [0]).values == [tensor]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (planned(offset=41), r"\(24 bytes at 41\) ends beyond memory 1, which has 64 bytes"),
        (planned(offset=1 << 62), "ends beyond memory 1"),
        (planned(memory=0), "value 1 of method 'forward' lies in memory 0 of 2"),
        (planned(memory=2), "lies in memory 2 of 2"),
        (planned(offset=48, dynamism=Dynamism.DYNAMIC_BOUND), "24 bytes at 48"),
        (planned(offset=48, data=bytes(24)), "24 bytes at 48"),
    ],
)
def test_allocations_outside_are_refused(tensor: Tensor, message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        read([planned(), tensor], [0], [1])


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([0, 1, 0], [1], "the list of inputs of method 'forward' has a value twice"),
        ([2], [1], "an input of method 'forward' has the index 2, there are 2"),
        ([0], [-1], "an output of method 'forward' has the index -1, there are 2"),
    ],
)
def test_inputs_and_outputs_that_make_no_sense(
    inputs: list[int], outputs: list[int], message: str
) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        read([planned(), planned(offset=24)], inputs, outputs)


def test_shapes_that_make_no_sense() -> None:
    for shape in ((-1,), (1,) * 17):
        with pytest.raises(InvalidProgramError, match="value 0 of method 'forward' has the shape"):
            read([Tensor(ScalarType.FLOAT, shape)], [0], [0])
