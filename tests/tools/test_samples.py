"""Inputs made up and kept in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.errors import InputError
from penstock.formats.program import Dynamism, Method, ScalarType, Tensor
from penstock.tools.samples import random_inputs, read_inputs, write_inputs


def method(*values: object) -> Method:
    return Method("forward", list(values), list(range(len(values))), [], [])  # type: ignore[arg-type]


def test_values_of_each_type() -> None:
    found = random_inputs(
        method(
            Tensor(ScalarType.FLOAT, (2, 3)), Tensor(ScalarType.LONG, (50,)),
            Tensor(ScalarType.BOOL, (50,)), 2.5, None,
        )
    )  # fmt: skip
    assert found[0].shape == (2, 3) and found[0].dtype == np.float32
    assert set(found[1]) == {0, 1} and found[1].dtype == np.int64
    assert found[2].dtype == np.bool_ and found[2].any() and not found[2].all()
    assert found[3:] == [2.5, None]


def test_seeds() -> None:
    one = method(Tensor(ScalarType.FLOAT, (8,)))
    assert np.array_equal(random_inputs(one, 3)[0], random_inputs(one, 3)[0])
    assert not np.array_equal(random_inputs(one, 3)[0], random_inputs(one, 4)[0])


def test_no_bound() -> None:
    endless = Tensor(ScalarType.FLOAT, (8,), dynamism=Dynamism.DYNAMIC_UNBOUND)
    with pytest.raises(InputError, match="any size"):
        random_inputs(method(endless))


def test_files(tmp_path: Path) -> None:
    values = [np.arange(3), 2.5, None, True, "text", np.ones((2, 2), np.float32)]
    write_inputs(tmp_path / "x.npz", values)
    again = read_inputs(tmp_path / "x.npz")
    assert again[1:5] == values[1:5]
    assert np.array_equal(again[0], np.arange(3)) and again[5].shape == (2, 2)
