"""Serving: several callers at a time on one copy of a program's weights."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from penstock.errors import InputError
from penstock.runtime import forks
from penstock.runtime.engines.threads import default_threads, whole
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

    It pickles as its program and its options.

    Args:
        program: what to run. It may be called besides.
        size: how many may compute at a time; by default one for each CPU that the process may use.
        threads: how many threads each may use; 1 suits many callers best.

    Raises:
        InputError: ``size`` or ``threads`` is out of range, or ``program`` is none.
    """

    def __init__(
        self, program: LoadedProgram, size: int | None = None, *, threads: int = 1
    ) -> None:
        if not hasattr(program, "clone"):
            raise InputError(
                f"a pool is of a program that penstock.load gives, not a {type(program).__name__}"
            )
        count = default_threads() if size is None else whole(size)
        if count is None or not 1 <= count <= MAX_SIZE:
            raise InputError(f"the size of a pool is {size!r}; give one from 1 to {MAX_SIZE}")
        self.size = count
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

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Pool, threads=self._threads), (self._program, self.size)

    def __repr__(self) -> str:
        return f"Pool of {self.size}: {self._program!r}"

    @contextmanager
    def lent(self) -> Iterator[LoadedProgram]:
        """A clone for the caller alone, until the block ends."""
        clones, loan = self._clones, _Loan()
        try:
            yield clones.take(loan)
        finally:
            try:
                clones.give(loan)
            except BaseException:  # Ctrl-C, be it before the first line of it
                clones.give(loan)
                raise

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the default method on a free clone; see
        :meth:`LoadedProgram.__call__ <penstock.runtime.program.LoadedProgram.__call__>`."""
        # Not ``with self.lent()``: Ctrl-C within the standard library's part of that leaves the
        # clone lent until the traceback is dropped, and who handles it may call before.
        clones, loan = self._clones, _Loan()
        try:
            answer = clones.take(loan)(*args, **kwargs)
        finally:
            try:
                clones.give(loan)
            except BaseException:  # Ctrl-C, be it before the first line of it
                clones.give(loan)
                raise
        return answer

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The same for tasks of an event loop, which goes on meanwhile.

        A task that is cancelled while it waits for its turn does not compute; one that is cancelled
        while its clone computes leaves at once, and the clone is free when it is done.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="penstock")
        call = partial(self, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class _Loan:
    """What a caller has, or waits for: it is the caller's before the clone is, and so has it
    wherever the caller is interrupted."""

    __slots__ = ("clone", "turn")

    def __init__(self) -> None:
        self.clone: LoadedProgram | None = None
        #: of a caller that waits: held until it has got a clone
        self.turn: threading.Lock | None = None


class _Clones:
    """Those that are free, the last used first, for its memory is the warmest. One that is given
    back goes straight to the caller that waits longest: the queues of the standard library let the
    one who gave it back take it again at once, and others wait for many calls.

    Python handles Ctrl-C behind a call, where a function begins, and where a loop goes back. So
    between the lines that move a clone there is none of these, and the lock is taken by ``with``.
    """

    def __init__(self, clones: list[LoadedProgram]) -> None:
        self._free = clones
        self._waiting: deque[_Loan] = deque()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self, loan: _Loan) -> LoadedProgram:
        """A clone for ``loan``, at once or when its turn comes. :meth:`give` must follow, whatever
        this raises."""
        with self._lock:
            if self._free:
                loan.clone = self._free[-1]
                del self._free[-1]
            else:
                loan.turn = threading.Lock()
                loan.turn.acquire()
                self._waiting.append(loan)
        if loan.turn is not None:
            loan.turn.acquire()
        assert loan.clone is not None
        return loan.clone

    def give(self, loan: _Loan) -> None:
        """Ends ``loan``, whether it has a clone, waits for one, or has ended before."""
        if os.getpid() != self._process:
            return  # a child has clones of its own, and this lock may be held for ever
        with self._lock:
            clone = loan.clone
            if clone is None:
                with suppress(ValueError):
                    self._waiting.remove(loan)
            elif self._waiting:
                first = self._waiting[0]
                first.clone, loan.clone = clone, None
                del self._waiting[0]
                assert first.turn is not None
                first.turn.release()
            else:
                loan.clone = None
                self._free.append(clone)
