"""Scalar operators, against Python's arithmetic and the stock runtime's documented rules."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.runtime.kernels import registry
from penstock.runtime.kernels.registry import KernelError

INTS = st.integers(-(1 << 40), 1 << 40)
FLOATS = st.floats(-1e12, 1e12)
NUMBERS = INTS | FLOATS


def run(name: str, *args: Any) -> Any:
    found = registry.find(name)
    assert found is not None and found.outs == 0
    return found.function(*args)


def prim(name: str, *args: Any) -> Any:
    return run(f"executorch_prim::{name}", *args)


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_arithmetic(a: float, b: float) -> None:
    for name, function in {"add": operator.add, "sub": operator.sub}.items():
        assert prim(f"{name}.Scalar", a, b) == function(a, b)
    for name in ("eq", "gt", "lt", "ge", "le"):
        assert prim(f"{name}.Scalar", a, b) is getattr(operator, name)(a, b)
    if b:
        assert prim("truediv.Scalar", a, b) == float(a) / float(b)


@settings(deadline=None)
@given(INTS, INTS.filter(bool))
def test_integer_division(a: int, b: int) -> None:
    assert prim("floordiv.Scalar", a, b) == a // b
    # These two are C's: towards zero.
    assert prim("floordiv.int", a, b) == (a // b if a * b >= 0 else -(-a // b))
    assert prim("mod.int", a, b) == prim("mod.Scalar", a, b) == int(math.fmod(a, b))
    assert prim("sym_max.Scalar", a, b) == max(a, b)
    assert prim("sym_min.Scalar", a, b) == min(a, b)


@settings(deadline=None)
@given(FLOATS, FLOATS.filter(bool))
def test_float_floor_division(a: float, b: float) -> None:
    quotient = prim("floordiv.Scalar", a, b)
    assert quotient == pytest.approx(a // b, abs=1, rel=1e-9)


@settings(deadline=None)
@given(FLOATS)
def test_to_integer(a: float) -> None:
    assert prim("ceil.Scalar", a) == math.ceil(a)
    assert prim("round.Scalar", a) == round(a)
    assert prim("trunc.Scalar", a) == prim("sym_int.Scalar", a) == math.trunc(a)
    assert prim("neg.Scalar", a) == -a


def test_types() -> None:
    assert isinstance(prim("mul.Scalar", 2, 3), int)
    assert isinstance(prim("mul.Scalar", 2, 3.0), float)
    assert isinstance(prim("sym_float.Scalar", 2), float)
    assert prim("sym_int.Scalar", True) == 1
    assert prim("sym_not.Scalar", False) is True
    assert prim("sym_ite.Scalar", False, 1, 2.5) == 2.5
    assert prim("truediv.Scalar", 1.0, 0.0) == math.inf
    assert prim("truediv.Scalar", -1, 0) == -math.inf
    assert math.isnan(prim("truediv.Scalar", 0, 0))
    assert prim("floordiv.Scalar", -1.0, 0.0) == -math.inf
    assert prim("eq.Scalar", True, True) is True


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("floordiv.Scalar", (1, 0)),
        ("floordiv.int", (1, 0)),
        ("mod.int", (1, 0)),
        ("mod.Scalar", (1.5, 2)),
        ("add.Scalar", (1 << 62, 1 << 62)),
        ("mul.Scalar", (1 << 40, 1 << 40)),
        ("add.Scalar", ("a", "b")),
        ("sym_not.Scalar", (1,)),
        ("sym_ite.Scalar", (1, 2, 3)),
        ("eq.Scalar", (True, 1)),
        ("trunc.Scalar", (math.nan,)),
        ("ceil.Scalar", (math.inf,)),
        ("sym_max.Scalar", (1, 2.0)),
    ],
)
def test_refused(name: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(KernelError):
        prim(name, *args)


def test_of_tensors() -> None:
    x = np.arange(6).reshape(2, 3)
    assert [run("aten::sym_size.int", x, dim) for dim in (0, 1, -1)] == [2, 3, 3]
    assert run("aten::sym_numel", x) == 6
    for value in (np.array(3), np.array([2.5], np.float16), np.array(True)):
        scalar = run("aten::_local_scalar_dense", value)
        assert scalar == value.item() and type(scalar) is type(value.item())
    for args in ((x, 2), (np.array(1), 0)):
        with pytest.raises(KernelError):
            run("aten::sym_size.int", *args)
    with pytest.raises(KernelError):
        run("aten::_local_scalar_dense", np.zeros(0))
