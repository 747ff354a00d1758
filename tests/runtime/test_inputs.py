"""Inputs that a program writes to: where their new content goes, and what cannot take it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_harness import make, tensor
from torch import nn

import penstock
from penstock.errors import InputError, InvalidProgramError


class Adds(nn.Module):
    """``x += y``, through XNNPACK where ``outside`` is not set."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        return x * 2


@pytest.fixture(scope="module")
def adds() -> penstock.LoadedProgram:
    return penstock.load(penstock.lower(Adds(), (torch.ones(2, 3), torch.ones(3))).to_bytes())


Y = np.arange(3, dtype=np.float32)


def fresh() -> Any:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arrays_of_any_layout(adds: penstock.LoadedProgram) -> None:
    room = np.zeros((4, 9), np.float32)
    for x in (fresh(), fresh().T.copy().T, room[::2, 1:7:2], room[:2, :3][:, ::-1]):
        x[...] = fresh()
        around = room.sum() - x.sum()
        (doubled,) = adds(x, Y)
        np.testing.assert_array_equal(x, fresh() + Y)
        np.testing.assert_array_equal(doubled, 2 * (fresh() + Y))
        if x.base is room:
            assert room.sum() - x.sum() == around
        room[...] = 0


def test_outputs_of_the_file(adds: penstock.LoadedProgram) -> None:
    """The flat outputs have what was written first; the call gives what the model returns."""
    method = adds.method()
    assert method.written == (0,) and len(method.outputs) == 2
    x = fresh()
    written, doubled = method.run([x, Y])
    np.testing.assert_array_equal(written, x)
    np.testing.assert_array_equal(doubled, x * 2)
    x += 1
    np.testing.assert_array_equal(written, x - 1)


def test_torch_tensors(adds: penstock.LoadedProgram) -> None:
    x = torch.from_numpy(fresh())
    adds(x, torch.from_numpy(Y))
    np.testing.assert_array_equal(x.numpy(), fresh() + Y)
    leaf = torch.from_numpy(fresh()).requires_grad_()
    adds(leaf, Y)
    np.testing.assert_array_equal(leaf.detach().numpy(), fresh() + Y)
    part = torch.zeros(3, 4)
    adds(part.t()[1:3], Y)
    np.testing.assert_array_equal(part.numpy(), np.pad(np.outer(Y, [1, 1]), ((0, 0), (1, 1))))


def test_half_precision_of_torch() -> None:
    pytest.importorskip("ml_dtypes")
    example = torch.ones(2, 3, dtype=torch.bfloat16)
    lowered = penstock.lower(Adds(), (example, example[0]), delegate=False)
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    penstock.load(lowered.to_bytes())(x, x[0].clone())
    assert x.eq(2).all()


class Foreign:
    """Another library's array: of its memory, or of a copy."""

    def __init__(self, array: Any, shared: bool) -> None:
        self.array, self.shared = array, shared

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array if self.shared else self.array.copy()


def test_arrays_of_other_libraries(adds: penstock.LoadedProgram) -> None:
    x = fresh()
    adds(Foreign(x, True), Foreign(Y, False))
    np.testing.assert_array_equal(x, fresh() + Y)
    with pytest.raises(InputError, match=r"input 0 \(Foreign\) gives a copy of itself"):
        adds(Foreign(x, False), Y)


def test_errors_of_other_libraries_are_one_line(adds: penstock.LoadedProgram) -> None:
    """Such as of a tracer of JAX."""

    class Refuses:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise TypeError("traced\nthe error occurred while ...")

    with pytest.raises(InputError, match="^input 0 [(]Refuses[)] gives no array: traced the error"):
        adds(Refuses(), np.zeros((2, 3), np.float32))


def test_what_cannot_be_written_to(adds: penstock.LoadedProgram) -> None:
    locked = fresh()
    locked.flags.writeable = False
    with pytest.raises(InputError, match="input 0 is read-only, and the program writes to it"):
        adds(locked, Y)
    wide = torch.ones(2, 1).expand(2, 3)
    with pytest.raises(InputError, match="input 0 has several elements in one place"):
        adds(wide, Y)
    Y.flags.writeable = False
    adds(fresh(), Y)  # only read


def test_nothing_can_be_written_to() -> None:
    """The strides of an array without elements say nothing."""
    empty = np.zeros((2, 0), np.float32)
    program = penstock.load(penstock.lower(Adds(), (torch.ones(2, 0), torch.ones(2, 0))).to_bytes())
    program(np.lib.stride_tricks.as_strided(empty, strides=(0, 0)), empty)


def test_numbers_cannot_be_written_to() -> None:
    program = penstock.load(penstock.lower(Adds(), (torch.ones(()), torch.ones(()))).to_bytes())
    x = np.array(1, np.float32)
    program(x, 2.0)
    assert x == 3
    for number in (1.0, np.float32(1)):
        with pytest.raises(InputError, match=r"input 0 is a float(32)?, and the program writes"):
            program(number, 2.0)


def test_one_array_twice(adds: penstock.LoadedProgram) -> None:
    """It is read as two: what is written to the first is not seen in the second."""
    lowered = penstock.lower(Adds(), (torch.ones(3), torch.ones(3)))
    x = Y.copy()
    (doubled,) = penstock.load(lowered.to_bytes())(x, x)
    np.testing.assert_array_equal(x, 2 * Y)
    np.testing.assert_array_equal(doubled, 4 * Y)


def test_dynamic_sizes() -> None:
    rows = torch.export.Dim("rows", min=1, max=8)
    example = (torch.ones(4, 3), torch.ones(3))
    lowered = penstock.lower(Adds(), example, dynamic_shapes=({0: rows}, None))
    program = penstock.load(lowered.to_bytes())
    for count in (8, 1, 5):
        x = np.ones((count, 3), np.float32)
        program(x, Y)
        np.testing.assert_array_equal(x, 1 + np.broadcast_to(Y, (count, 3)))


def test_nothing_is_written_by_a_call_that_fails() -> None:
    values = [tensor(2, 3), tensor(2, 3), tensor(2, 3)]
    code = [("test::add.out", 0, 0, 1, 1), ("test::copy_", 0, 1, 0), ("test::bad.out", 0, 2, 2)]
    x = fresh()
    with pytest.raises(InvalidProgramError):
        make(values, [0], [0, 2], code).method().run([x])
    np.testing.assert_array_equal(x, fresh())


def test_examples_and_calibration_data_stay_as_they_are() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x.add_(y)
            return self.linear(x)

    example = (torch.ones(2, 3), torch.ones(3))
    data = [(torch.full((2, 3), 2.0), torch.ones(3))]
    penstock.lower(Model(), example, quantize="static", calibration=data)
    assert example[0].eq(1).all() and data[0][0].eq(2).all()
