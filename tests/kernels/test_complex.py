"""Kernels on complex tensors, as programs of the stock flow call them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import C64, F32, Case, check, values

C128 = np.dtype("complex128")
RNG = np.random.default_rng(0)


def _numbers(*shape: int, dtype: Any = C64) -> np.ndarray:
    return values(RNG, shape, dtype)


CASES: list[tuple[str, list[Any]]] = [
    *((f"aten::{name}.out", [_numbers(2, 3, dtype=dtype), _numbers(*shape, dtype=dtype)])
      for name in ("mul", "div") for dtype in (C64, C128) for shape in ((2, 3), (3,), ())),
    *((f"aten::{name}.out", [_numbers(2, 3), _numbers(3), alpha])
      for name in ("add", "sub") for alpha in (1, 2)),
    ("aten::mul.out", [_numbers(2, 3), values(RNG, (2, 3), F32)]),
    ("aten::abs.out", [_numbers(2, 3, dtype=C128)]),
    ("aten::bmm.out", [_numbers(2, 3, 4), _numbers(2, 4, 5)]),
    ("aten::mm.out", [_numbers(3, 4), _numbers(4, 5)]),
    ("aten::cat.out", [[_numbers(2, 3), _numbers(2, 1)], 1]),
    ("aten::stack.out", [[_numbers(2, 3), _numbers(2, 3)], 1]),
    ("aten::sum.IntList_out", [_numbers(2, 3), [1], True, None]),
    ("aten::sum.IntList_out", [_numbers(2, 3), None, False, None]),
    ("aten::permute_copy.out", [_numbers(2, 3, 4), [2, 0, 1]]),
    ("aten::transpose_copy.int_out", [_numbers(2, 3), 0, 1]),
    ("aten::view_copy.out", [_numbers(2, 3), [3, 2]]),
    ("aten::select_copy.int_out", [_numbers(2, 3), 1, 1]),
    ("aten::slice_copy.Tensor_out", [_numbers(2, 5), 1, 0, 5, 2]),
    ("aten::expand_copy.out", [_numbers(2, 1), [2, 3], False]),
    ("aten::unsqueeze_copy.out", [_numbers(2, 3), 1]),
    ("aten::squeeze_copy.dims_out", [_numbers(2, 1), [1]]),
    ("aten::clone.out", [_numbers(2, 3), None]),
    ("aten::index_select.out", [_numbers(2, 3), 1, np.array([2, 0])]),
    ("aten::neg.out", [_numbers(2, 3)]),
    ("aten::repeat.out", [_numbers(2, 3), [2, 1]]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number][0])
def test_against_eager(number: int) -> None:
    name, args = CASES[number]
    assert check(name, Case(args, same_type=True)), "eager refused the arguments"
