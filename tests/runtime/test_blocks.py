"""Blocks of bytes: aligned, readable past their ends."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock.runtime.blocks import (
    ALIGNMENT,
    OVERREAD,
    Array,
    Reused,
    address,
    empty,
    has_room,
    large,
    machine_bytes,
    zeros,
    zeros_when_touched,
)


@pytest.mark.parametrize("size", [1, 15, 64, 4096, 100_001])
def test_blocks_are_aligned_and_may_be_read_past_the_end(size: int) -> None:
    for block in (zeros(size), empty(size)):
        assert block.dtype == np.uint8 and block.shape == (size,)
        assert address(block) % ALIGNMENT == 0
        whole = block
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        assert address(block) + size + OVERREAD <= address(whole) + whole.nbytes
        ctypes.string_at(address(block), size + OVERREAD)
    assert not zeros(size).any()


@pytest.mark.parametrize("size", [100, 1 << 24])
def test_blocks_of_zeros_that_cost_nothing_yet(size: int) -> None:
    block = zeros_when_touched(size)
    assert block.dtype == np.uint8 and block.shape == (size,) and not block.any()
    assert address(block) % ALIGNMENT == 0
    block[:] = 7
    assert block[-1] == 7


@pytest.mark.parametrize("allocate", [zeros, empty, zeros_when_touched, large])
@pytest.mark.parametrize("size", [4096, 1 << 23])
def test_an_engine_sees_that_it_can_read_behind_a_part_of_a_block(
    allocate: Callable[[int], Array], size: int
) -> None:
    """Wherever it ends: the end of a page tells nothing then."""
    block = allocate(size)
    assert type(block) is np.ndarray and has_room(block)
    pages = -address(block) % mmap.PAGESIZE
    for part in (block[: size // 2], block[:pages] if pages else block):
        assert has_room(part) and has_room(part.view(np.float32).reshape(2, -1)[1:])
    ctypes.string_at(address(block), size + OVERREAD)


def test_behind_a_part_of_a_callers_array_pages_may_be_protected() -> None:
    whole = np.zeros(1 << 16, np.uint8)
    assert not has_room(whole) and not has_room(whole[:4096])
    assert not has_room(zeros(4096).copy())
    assert not has_room(np.frombuffer(bytes(4096), np.uint8))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_only_the_touched_part_of_a_large_block_is_resident() -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    before = resident()
    block = zeros_when_touched(256 << 20)
    assert not block[:: 1 << 16].any()
    block[1 << 20 : 2 << 20] = 1
    assert resident() - before < 32 << 10  # KiB


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


@pytest.mark.parametrize("size", [1 << 20, (1 << 22) + 4096])
def test_memory_is_given_out_again_when_nothing_refers_to_it(size: int) -> None:
    places = Reused()
    first = places.block(size)
    assert first is not None and first.shape == (size,) and has_room(first)
    assert address(first) % ALIGNMENT == 0
    ctypes.string_at(address(first), size + OVERREAD)
    start = address(first)
    first[:] = 1
    part = first.view(np.float32).reshape(2, -1)[1:].T
    del first
    second = places.block(size)
    assert second is not None and not np.may_share_memory(second, part)
    second[:] = 2
    assert (part.view(np.uint8) == 1).all()
    exported = memoryview(part.T)
    del part
    third = places.block(size)
    assert third is not None and address(third) != start and (second == 2).all()
    third[:] = 3
    del third
    again = places.block(size)  # the content tells: pages that are new are zero
    assert again is not None and (again == 3).all()
    del again, exported, second
    # There are two places: of three that were in use the oldest is forgotten.
    both = [places.block(size), places.block(size)]
    assert all(block is not None and block[0] in (2, 3) for block in both)
    assert places.block((1 << 20) - 1) is None


def test_memory_of_another_size_is_new() -> None:
    places = Reused()
    small = places.block(1 << 20)
    assert small is not None
    small[:] = 3
    other = places.block(1 << 21)
    assert other is not None and other.shape == (1 << 21,)
    assert not np.may_share_memory(small, other) and (small == 3).all()
