"""Files mapped into memory, whose pages can be given back once they were read."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from penstock.runtime.blocks import address


class MappedFile(mmap.mmap):
    """A file that we mapped ourselves, read-only: its pages can be dropped at any time, for the
    next read brings them back from the file. (Not true of just any ``mmap``.)"""


def drop(data: np.ndarray) -> None:
    """Gives back the pages that lie wholly inside ``data`` if it is a part of a
    :class:`MappedFile`; they stay in the system's cache of files."""
    if data.nbytes < mmap.PAGESIZE:
        return
    owner: object = data
    while not isinstance(owner, MappedFile):
        if isinstance(owner, np.ndarray):
            owner = owner.base
        elif isinstance(owner, memoryview):
            owner = owner.obj
        else:
            return
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = address(data) - address(np.frombuffer(owner, np.uint8))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        with contextlib.suppress(OSError):  # pages that are locked stay
            owner.madvise(mmap.MADV_DONTNEED, first, last - first)
