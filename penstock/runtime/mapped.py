"""Files mapped into memory, whose pages can be given back once they were read."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Callable, Iterable

import numpy as np

from penstock.runtime.blocks import address

#: Of a smaller table all pages may be in memory.
_LARGE = 1 << 20
#: A row by the file costs a microsecond or two; so many pay even where few pages are in memory.
_MOST_ROWS = 1024


class MappedFile(mmap.mmap):
    """A file that we mapped ourselves, read-only: its pages can be dropped at any time, for the
    next read brings them back from the file. (Not true of just any ``mmap``.)"""

    #: the file, where rows are to be read from it; see :func:`take_rows`
    descriptor: int | None = None

    def keep_open(self, descriptor: int) -> None:
        """Keeps another descriptor of the file, as long as the mapping is there."""
        self.descriptor = os.dup(descriptor)
        weakref.finalize(self, os.close, self.descriptor)


def take_rows(table: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``np.take(table, where, 0)`` for indices in range.

    From a :class:`MappedFile` that is kept open, rows of a large table are read: where a page is
    touched, the system maps up to a megabyte around it, and 128 rows of an embedding of 28 MB would
    take 13 MB.
    """
    reader = row_reader(table, where.size)
    if reader is None:
        return np.take(table, where, 0)
    found, read = reader
    in_range = read(where)
    assert in_range
    return found.reshape(*where.shape, *table.shape[1:])


def row_reader(
    table: np.ndarray, count: int
) -> tuple[np.ndarray, Callable[[np.ndarray], bool]] | None:
    """For a table that :func:`take_rows` reads from its file: memory for ``count`` rows, and a
    function that reads those at ``count`` indices there. It does not where one is out of range, and
    says so. None for another table."""
    file = file_of(table) if table.nbytes >= _LARGE and count <= _MOST_ROWS else None
    descriptor = None if file is None else file.descriptor
    if file is None or descriptor is None or not table.flags.c_contiguous:
        return None
    rows = np.empty((count, *table.shape[1:]), table.dtype)
    start, size, height = (
        address(table) - address(np.frombuffer(file, np.uint8)), table[0].nbytes, table.shape[0],
    )  # fmt: skip
    views = [[row.data] for row in rows.view(np.uint8).reshape(count, size)]

    def read(where: np.ndarray, kept: object = table) -> bool:
        for view, index in zip(views, where.reshape(-1).tolist(), strict=True):
            if not 0 <= index < height:
                return False
            if os.preadv(descriptor, view, start + index * size) != size:
                raise OSError("the program's file was cut short while it was in use")
        return True

    return rows, read


def drop(data: np.ndarray) -> None:
    """Gives back the pages that lie wholly inside ``data`` if it is a part of a
    :class:`MappedFile`; they stay in the system's cache of files."""
    owner = file_of(data) if data.nbytes >= mmap.PAGESIZE else None
    if owner is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = address(data) - address(np.frombuffer(owner, np.uint8))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        with contextlib.suppress(OSError):  # pages that are locked stay
            owner.madvise(mmap.MADV_DONTNEED, first, last - first)


def drop_between(parts: Iterable[np.ndarray]) -> None:
    """Gives back the pages of files between the first and the last byte of ``parts``: one call to
    the system, where :func:`drop` takes one for each of them."""
    spans: dict[int, tuple[MappedFile, int, int]] = {}
    for part in parts:
        owner = file_of(part)
        if owner is not None:
            start = address(part)
            _, first, last = spans.get(id(owner), (owner, start, start))
            spans[id(owner)] = owner, min(first, start), max(last, start + part.nbytes)
    for owner, first, last in spans.values():
        whole = np.frombuffer(owner, np.uint8)
        begin = address(whole)
        drop(whole[first - begin : last - begin])


def file_of(data: object) -> MappedFile | None:
    """The file that ``data``, an array or a memoryview, is a part of."""
    while not isinstance(data, MappedFile):
        if isinstance(data, np.ndarray):
            data = data.base
        elif isinstance(data, memoryview):
            data = data.obj
        else:
            return None
    return data


def drop_files(parts: Iterable[object]) -> None:
    """Gives back all pages of the files that ``parts`` lie in."""
    files = {id(file): file for part in parts if (file := file_of(part)) is not None}
    for file in files.values():
        drop(np.frombuffer(file, np.uint8))
