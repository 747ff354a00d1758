"""Thread pools: one for each number of threads, shared by all that ask for that number."""

from __future__ import annotations

import os
import threading

from penstock.errors import InputError
from penstock.runtime.engines.xnnpack.library import Library

#: Beyond this a count is a mistake, and a pool of it would exhaust the machine.
MAX_THREADS = 1024

_pools: dict[int, int] = {}
_lock = threading.Lock()


def default_threads() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def pool(library: Library, threads: int) -> int | None:
    """The ``pthreadpool_t`` for ``threads`` threads; ``None`` (the caller's thread alone) for one.

    Pools live as long as the process: their threads sleep when there is no work.

    Raises:
        InputError: the count is out of range, or the system refuses that many threads.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"number of threads is {threads}; give one from 1 to {MAX_THREADS}")
    if threads == 1:
        return None
    with _lock:
        if threads not in _pools:
            handle = library.threads.pthreadpool_create(threads)
            if not handle:
                raise InputError(f"the system refuses {threads} threads; ask for fewer")
            _pools[threads] = handle
        return _pools[threads]


# The threads of a pool do not survive a fork; a child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
