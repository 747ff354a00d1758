"""Blocks of bytes: aligned, readable past their ends."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from penstock.runtime.blocks import ALIGNMENT, OVERREAD, address, empty, machine_bytes, zeros


@pytest.mark.parametrize("size", [1, 15, 64, 4096, 100_001])
def test_blocks_are_aligned_and_may_be_read_past_the_end(size: int) -> None:
    for block in (zeros(size), empty(size)):
        assert block.dtype == np.uint8 and block.shape == (size,)
        assert address(block) % ALIGNMENT == 0
        whole = block.base
        assert isinstance(whole, np.ndarray)
        assert address(block) + size + OVERREAD <= address(whole) + whole.nbytes
        ctypes.string_at(address(block), size + OVERREAD)
    assert not zeros(size).any()


def test_addresses_of_all_sorts_of_arrays() -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)
    locked = array.copy()
    locked.flags.writeable = False
    for one in (
        array,
        array[2:],
        array[:, 1],
        array.T,
        locked,
        array[:0],
        np.frombuffer(b"xy", "u1"),
    ):
        assert address(one) == one.__array_interface__["data"][0]


def test_the_machine_has_memory_or_does_not_tell() -> None:
    found = machine_bytes()
    assert found is None or found > 1 << 26
