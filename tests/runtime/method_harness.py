"""Kernels of the tests, and programs made in memory out of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.formats.program import (
    Allocation,
    KernelCall,
    Method,
    Operator,
    Program,
    ScalarType,
    Tensor,
)
from penstock.runtime.kernels.registry import kernel, reserve
from penstock.runtime.program import LoadedProgram

F32, I64, BOOL = ScalarType.FLOAT, ScalarType.LONG, ScalarType.BOOL
ONES = np.ones((2, 3), np.float32)


@kernel("test::add.out")
def _add(a: Any, b: Any, out: Any) -> Any:
    return np.add(a, b)


@kernel("test::add_into.out")
def _add_into(a: Any, b: Any, out: Any) -> Any:
    return np.add(a, b, out=out)


@kernel("test::same.out")
def _same(a: Any, out: Any) -> Any:
    return a


@kernel("test::sized.out")
def _sized(size: list[int], value: float, out: Any) -> Any:
    return np.full(reserve(size, out), value)


@kernel("test::two.out", outs=2)
def _two(a: Any, low: Any, high: Any) -> Any:
    return a - 1, a + 1


@kernel("test::halves.out")
def _halves(a: Any, out: Any) -> Any:
    assert isinstance(out, list)
    return np.split(a, len(out))


@kernel("test::total.out")
def _total(tensors: Any, out: Any) -> Any:
    return sum(t for t in tensors if t is not None)


@kernel("test::copy_", in_place=True)
def _copy(self: Any, source: Any) -> Any:
    return np.broadcast_to(source, self.shape)


@kernel("test::plus", outs=0)
def _plus(a: Any, b: Any) -> Any:
    return a + b


@kernel("test::equal", outs=0)
def _equal(a: Any, b: Any) -> Any:
    return a == b


@kernel("test::row.out")
def _row(a: Any, index: int, out: Any) -> Any:
    return a[index]


@kernel("test::times", outs=0)
def _times(a: Any, b: Any) -> Any:
    return a * b


@kernel("test::bad.out")
def _bad(a: Any, out: Any) -> Any:
    raise IndexError("what\na mess")


def tensor(*shape: int, dtype: ScalarType = F32, at: int | None = None, **rest: Any) -> Tensor:
    allocation = None if at is None else Allocation(1, at)
    return Tensor(dtype, shape, allocation=allocation, **rest)


def make(
    values: list[Any],
    inputs: list[int],
    outputs: list[int],
    code: list[Any],
    memory: int = 1 << 12,
    **rest: Any,
) -> LoadedProgram:
    """``code`` has (operator, value, ...) tuples beside instructions."""
    operators: list[Operator] = []
    instructions: list[Any] = []
    for one in code:
        if isinstance(one, tuple):
            name, _, overload = one[0].partition(".")
            instructions.append(KernelCall(len(operators), one[1:]))
            operators.append(Operator(name, overload))
        else:
            instructions.append(one)
    method = Method(
        "forward",
        values,
        inputs,
        outputs,
        instructions,
        operators,
        memory_sizes=[0, memory],
        **rest,
    )
    return LoadedProgram(Program([method]))


def run(program: LoadedProgram, *inputs: Any) -> list[Any]:
    return program.method().run(inputs)
