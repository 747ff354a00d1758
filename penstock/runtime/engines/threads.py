"""The threads of a program: one pool, shared by the engines that run its delegates."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from penstock.errors import InputError

if TYPE_CHECKING:
    from penstock.runtime.engines.xnnpack.pools import Pools

#: Beyond this a count is a mistake, and a pool of it would exhaust the machine.
MAX_THREADS = 1024


def default_threads() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def whole(value: object) -> int | None:
    """The value of an integer, NumPy's too; None for anything else, truth values among them."""
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


class Pool(NamedTuple):
    """A running ``pthreadpool``, as native code takes it."""

    #: the ``pthreadpool_t``
    handle: int
    #: the address of ``pthreadpool_parallelize_1d``; 0 where the library hides it
    parallelize_1d: int


class Threads:
    """A number of threads, the caller's among them, and the pool of the others.

    The pool is made when an engine first asks for it and ends with this object, which whatever
    uses the pool therefore keeps. A pool does not survive a fork: :meth:`pool` makes another one
    in the child.

    Args:
        count: how many; by default one for each CPU that the process may use.

    Raises:
        InputError: the count is out of range.
    """

    def __init__(self, count: int | None = None) -> None:
        found = default_threads() if count is None else whole(count)
        if found is None or not 1 <= found <= MAX_THREADS:
            raise InputError(f"number of threads is {count!r}; give one from 1 to {MAX_THREADS}")
        self.count = found
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"Threads({self.count})"

    def pool(self) -> Pool | None:
        """The pool; None (the caller's thread alone) for one thread.

        Raises:
            InputError: the system refuses that many threads.
            BackendUnavailableError: XNNPACK's library, which brings ``pthreadpool``, is missing.
        """
        if self.count == 1:
            return None
        with self._lock:
            if self._pool is None or self._process != os.getpid():
                self._pool, self._process = self._made(), os.getpid()
            return self._pool

    def _made(self) -> Pool:
        # A program without delegates does not need the library.
        from penstock.runtime.engines.xnnpack.library import shared

        pools = shared().pools
        handle = pools.create(self.count)
        if not handle:
            raise InputError(f"the system refuses {self.count} threads; ask for fewer")
        end = weakref.finalize(self, _end, pools, handle, os.getpid())
        end.atexit = False  # the system frees faster, and other threads may still run
        return Pool(handle, pools.parallelize_1d)


def _end(pools: Pools, handle: int, process: int) -> None:
    """Ends a pool and waits for its threads, which a child of a fork does not have."""
    if process == os.getpid():
        pools.destroy(handle)
