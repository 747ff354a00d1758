"""Layouts and the memory of tensor values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from method_harness import tensor

from penstock.formats.program import Dynamism
from penstock.runtime import blocks
from penstock.runtime.slots import Layout, Slot

LAST = (0, 2, 3, 1)


def slot(*shape: int, memory: bool = True, **rest: Any) -> Slot:
    layout = Layout(tensor(*shape, **rest), "a value")
    return Slot(layout, blocks.zeros(layout.nbytes) if memory else None)


def test_a_channels_last_tensor_keeps_its_shape() -> None:
    one = slot(2, 3, 4, 5, dim_order=LAST)
    array = one.target()
    assert array.shape == (2, 3, 4, 5)
    physical = one.layout.physical(array)
    assert physical.shape == (2, 4, 5, 3) and physical.flags.c_contiguous
    assert np.shares_memory(physical, array)
    assert one.layout.logical_shape((2, 4, 5, 3)) == (2, 3, 4, 5)
    assert one.layout.physical_shape((2, 3, 4, 5)) == (2, 4, 5, 3)


def test_contiguous_order_is_no_order() -> None:
    assert Layout(tensor(2, 3, dim_order=(0, 1)), "a value").order is None


def test_a_smaller_shape_lies_at_the_beginning() -> None:
    one = slot(4, 6, dynamism=Dynamism.DYNAMIC_BOUND)
    array = one.array((2, 3))
    assert array.flags.c_contiguous and array.ctypes.data == one.target().ctypes.data
    assert one.array((4, 6)) is one.full
    with pytest.raises(ValueError, match=r"\(5, 6\) is beyond the bound \(4, 6\)"):
        one.array((5, 6))
    with pytest.raises(ValueError, match="for a tensor of rank 2"):
        one.array((24,))


def test_a_fixed_shape_is_fixed() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for a tensor of shape \(2, 3\)"):
        slot(2, 3).array((2, 2))


def test_a_fresh_slot_gives_new_arrays() -> None:
    one = slot(2, 3, memory=False)
    first, second = one.array((2, 3)), one.array((2, 3))
    assert not np.shares_memory(first, second) and one.given is second


def test_results_are_stored_and_converted() -> None:
    one = slot(2, 3)
    stored = one.store(np.arange(6).reshape(2, 3))
    assert stored.dtype == np.float32 and stored is one.full
    np.testing.assert_array_equal(stored, [[0, 1, 2], [3, 4, 5]])
    assert one.store(stored) is stored
    with pytest.raises(ValueError, match="returned nothing"):
        one.store(None)


def test_unbounded_tensors_begin_empty() -> None:
    one = slot(4, 6, memory=False, dynamism=Dynamism.DYNAMIC_UNBOUND)
    assert one.target().shape == (0, 0)
    assert one.array((100, 100)).shape == (100, 100)
