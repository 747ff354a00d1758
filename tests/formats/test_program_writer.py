"""Programs that are written and read back: the same, each piece of data once, nothing copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from format_strategies import programs
from hypothesis import given, settings

from penstock.errors import InvalidProgramError
from penstock.formats import program as pte
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import program_chunks, write_program


@settings(max_examples=150)
@given(programs())
def test_program(program: pte.Program) -> None:
    data = write_program(program)
    again = read_program(data)
    assert again == program
    # -0.0 equals 0.0, so compare texts, too; and a file that was read is written the same.
    assert [m.values for m in again.methods] == [m.values for m in program.methods]
    assert write_program(again) == data


def test_negative_zero() -> None:
    program = read_program(write_program(_program([-0.0, pte.DoubleList((-0.0, 0.0))])))
    assert repr(program.methods[0].values) == "[-0.0, DoubleList(items=(-0.0, 0.0))]"


def test_equal_data_is_written_once() -> None:
    data = bytes(range(256)) * 64
    tensors = [
        pte.Tensor(pte.ScalarType.BYTE, (len(data),), data=copy)
        for copy in (data, data, bytearray(data), np.frombuffer(data, np.uint8).copy())
    ]
    program = _program([*tensors])
    program.named_data = {"a": data, "b": bytes(data)}
    program.methods[0].delegates = [pte.Delegate("x", data), pte.Delegate("y", bytes(data))]
    size = sum(len(chunk) for chunk in program_chunks(program))
    # Once as a constant, once as a segment of its own.
    assert 2 * len(data) < size < 2.1 * len(data)
    again = read_program(write_program(program))
    values: list[Any] = again.methods[0].values
    assert all(value.data is values[0].data for value in values)


def test_constants_are_not_copied() -> None:
    weights = np.ones((300, 1000), np.float32)
    tensor = pte.Tensor(pte.ScalarType.FLOAT, weights.shape, data=weights.data)
    chunks = program_chunks(_program([tensor]))
    assert any(
        np.shares_memory(np.frombuffer(chunk, np.uint8), weights) for chunk in chunks if len(chunk)
    )
    file = b"".join(chunks)
    values: list[Any] = read_program(file).methods[0].values
    array = np.frombuffer(values[0].data, np.float32)
    assert np.shares_memory(array, np.frombuffer(file, np.uint8))
    assert (array.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data) % 128 == 0


def test_data_must_fit_its_shape() -> None:
    tensor = pte.Tensor(pte.ScalarType.FLOAT, (2, 2), data=bytes(15))
    with pytest.raises(InvalidProgramError, match="value 0 .* needs 16 bytes of data and has 15"):
        write_program(_program([tensor]))


def _program(values: list[Any]) -> pte.Program:
    return pte.Program([pte.Method("forward", values, [], [], [])])


def test_named_data_that_is_a_constant_is_there_once() -> None:
    """The table of an embedding that is the last layer's weight."""
    table = bytes(range(256)) * 64
    tensor = pte.Tensor(pte.ScalarType.CHAR, (64, 256), data=table)
    method = pte.Method("forward", [tensor], [], [0], [], memory_sizes=[0])
    program = pte.Program([method], named_data={"weight": bytes(bytearray(table)), "other": b"12"})
    data = write_program(program)
    assert len(data) < len(table) + 2048
    again = read_program(data)
    value = again.methods[0].values[0]
    assert isinstance(value, pte.Tensor) and value.data is not None
    assert bytes(value.data) == bytes(again.named_data["weight"]) == table
    assert bytes(again.named_data["other"]) == b"12"
