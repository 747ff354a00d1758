"""Serving: several callers at a time on one copy of a program's weights."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from penstock.errors import InputError
from penstock.runtime import forks
from penstock.runtime.engines.threads import default_threads
from penstock.runtime.program import LoadedProgram

#: Beyond this a size is a mistake.
MAX_SIZE = 1024


class Pool:
    """Clones of a program, each lent to one caller at a time; callers wait while all are lent, and
    get their turns in the order in which they came.

    ``pool(x)`` may be called from any number of threads, and ``await pool.acall(x)`` from any
    number of tasks. No lock is held while a clone computes. Weights are there once
    (:meth:`LoadedProgram.clone <penstock.runtime.program.LoadedProgram.clone>`).

    Mutable buffers belong to a clone, and which one a call meets is chance: a program that
    remembers from call to call is to be taken with :meth:`lent` for as long as it must remember.

    Args:
        program: what to run. It may be called besides.
        size: how many may compute at a time; by default one for each CPU that the process may use.
        threads: how many threads each may use; 1 suits many callers best.

    Raises:
        InputError: ``size`` or ``threads`` is out of range.
    """

    def __init__(
        self, program: LoadedProgram, size: int | None = None, *, threads: int = 1
    ) -> None:
        if size is None:
            size = default_threads()
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_SIZE:
            raise InputError(f"the size of a pool is {size!r}; give one from 1 to {MAX_SIZE}")
        self.size = size
        self._program = program
        self._threads = threads
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        clones = [self._program.clone(threads=self._threads) for _ in range(self.size)]
        self._clones = _Clones(clones)
        self._executor: ThreadPoolExecutor | None = None

    def after_fork(self) -> None:
        """In a child, which has none of the threads that clones may have been lent to."""
        self._begin()

    def __repr__(self) -> str:
        return f"Pool of {self.size}: {self._program!r}"

    @contextmanager
    def lent(self) -> Iterator[LoadedProgram]:
        """A clone for the caller alone, until the block ends."""
        clone = self._clones.take()
        try:
            yield clone
        finally:
            self._clones.give(clone)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the default method on a free clone; see
        :meth:`LoadedProgram.__call__ <penstock.runtime.program.LoadedProgram.__call__>`."""
        with self.lent() as clone:
            return clone(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The same for tasks of an event loop, which goes on meanwhile.

        A task that is cancelled while it waits for its turn does not compute; one that is cancelled
        while its clone computes leaves at once, and the clone is free when it is done.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="penstock")
        call = partial(self, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class _Turn:
    """A caller that waits: its lock is held until it has got a clone."""

    def __init__(self) -> None:
        self.clone: LoadedProgram | None = None
        self.lock = threading.Lock()
        self.lock.acquire()


class _Clones:
    """Those that are free, the last used first, for its memory is the warmest. One that is given
    back goes straight to the caller that waits longest: the queues of the standard library let the
    one who gave it back take it again at once, and others wait for many calls."""

    def __init__(self, clones: list[LoadedProgram]) -> None:
        self._free = clones
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def take(self) -> LoadedProgram:
        with self._lock:
            if self._free:
                return self._free.pop()
            turn = _Turn()
            self._waiting.append(turn)
        try:
            turn.lock.acquire()
        except BaseException:  # Ctrl-C
            with self._lock:
                if turn.clone is None:
                    self._waiting.remove(turn)
            if turn.clone is not None:
                self.give(turn.clone)
            raise
        assert turn.clone is not None
        return turn.clone

    def give(self, clone: LoadedProgram) -> None:
        with self._lock:
            if not self._waiting:
                self._free.append(clone)
                return
            turn = self._waiting.popleft()
            turn.clone = clone
        turn.lock.release()
