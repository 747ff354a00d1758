"""Blocks of bytes: aligned, with readable bytes after them; their addresses."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: Alignment of the blocks that we allocate: a cache line, and the widest vector register.
ALIGNMENT = 64
#: Bytes after a block that can be read too: engines and kernels may read a little past the end of
#: an array (XNNPACK 16 bytes, ``XNN_EXTRA_BYTES``).
OVERREAD = 16
#: A block of this size or more lies in huge pages. On one x86-64 machine ResNet-50, Swin and ViT
#: run 3 to 5 % faster so: kernels read a panel of weights from many pages in turn.
_HUGE = 1 << 22
_PAGE = 1 << 21
#: Of so many bytes or more, memory that was given out is taken again (:class:`Reused`).
_REUSED = 1 << 20


class _Room(np.ndarray):
    """What a block lies in: tells :func:`has_room` that the memory is ours."""


def address(array: Array) -> int:
    """Where the elements of ``array`` begin."""
    if array.flags.writeable:
        # Several times faster than what follows, of which to be refused takes as long again.
        try:
            return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
        except (TypeError, ValueError, BufferError):  # empty or not contiguous
            pass
    location: int = array.__array_interface__["data"][0]
    return location


def has_room(array: Array) -> bool:
    """Whether ``array`` is a block of ours or a part of one: then ``OVERREAD`` bytes after it can
    be read, wherever it ends. Of a caller's larger array nobody knows what protects its pages."""
    base = array.base
    return isinstance(base, _Room) or (type(base) is np.ndarray and isinstance(base.base, _Room))


def zeros(size: int) -> Array:
    """A block of ``size`` zero bytes (uint8)."""
    return _aligned(size, np.zeros)


def zeros_when_touched(size: int) -> Array:
    """As :func:`zeros`, but of a large block only those pages cost memory that are written to:
    the rows of a cache that are in use. (NumPy asks for huge pages.)"""
    if size < _HUGE:
        return zeros(size)
    return _part(np.frombuffer(_private(size + OVERREAD), np.uint8), 0, size)


def empty(size: int) -> Array:
    """A block of ``size`` bytes (uint8), their content undefined."""
    return _aligned(size, np.empty)


def _aligned(size: int, allocate: Callable[..., Array]) -> Array:
    room = allocate(size + ALIGNMENT + OVERREAD, np.uint8)
    return _part(room, -address(room) % ALIGNMENT, size)


def _part(room: Array, start: int, size: int) -> Array:
    # A view of a view has the first array of its own class as its base: here the block.
    return room.view(_Room)[start : start + size].view(np.ndarray)


def large(size: int) -> Array:
    """``size`` bytes or more, aligned, that cost nothing until they are touched; in huge pages
    where so many bytes fill some and the system has them."""
    if size < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return empty(size)
    size = -(-(size + OVERREAD) // _PAGE) * _PAGE
    whole = np.frombuffer(_huge_pages(size + _PAGE), np.uint8)
    return _part(whole, -address(whole) % _PAGE, size)


class Reused:
    """Blocks of one size after the other for arrays that are given away. Large memory that comes
    anew from the system costs a page fault for each of its pages: of the 8 MB of DeepLab's answers
    6 % of a call. So a block lies where an earlier one did, once nothing refers to that any more.
    There are two places: in a loop of ``answer = program(x)`` the last answer lives meanwhile.
    """

    def __init__(self) -> None:
        self._places: list[tuple[mmap.mmap, weakref.ref[Array]]] = []

    def block(self, size: int) -> Array | None:
        """``size`` bytes (uint8), their content undefined; None where they are too few to matter.

        Raises MemoryError.
        """
        if size < _REUSED:
            return None
        total = size + _PAGE + OVERREAD if size >= _HUGE else size + OVERREAD
        places = [(mapping, user) for mapping, user in self._places if len(mapping) == total]
        free = [place for place in places if place[1]() is None]
        mapping = free[0][0] if free else _huge_pages(total)
        # All arrays over the mapping, a caller's views too, keep this one alive.
        whole = np.frombuffer(mapping, np.uint8)
        others = [place for place in places if place[0] is not mapping]
        self._places = [*others[-1:], (mapping, weakref.ref(whole))]
        return _part(whole, -address(whole) % _PAGE if size >= _HUGE else 0, size)


def _huge_pages(size: int) -> mmap.mmap:
    """Memory in huge pages where the system has them. Raises MemoryError."""
    mapping = _private(size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that was built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def _private(size: int) -> mmap.mmap:
    """Zero pages of this process alone: the shared memory that ``mmap`` gives by default has small
    pages only. Raises MemoryError."""
    flags = {} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    try:
        return mmap.mmap(-1, size, **flags)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error


def machine_bytes() -> int | None:
    """The machine's memory in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
