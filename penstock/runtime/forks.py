"""What becomes of programs when a process forks while other threads run them.

The child has the thread that forked it and none of the others: a call that another one was in the
middle of never ends there, nor is the lock that it held ever released. So whoever would wait for
it is told instead.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

from penstock.errors import BackendUnavailableError


class Lock(Protocol):
    """One of ``threading``, or what a child has in the place of one that is never released."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> None: ...


class Survivor(Protocol):
    """Has a word to say in the child."""

    def after_fork(self) -> None:
        """Called there, at once."""


_survivors: weakref.WeakSet[Survivor] = weakref.WeakSet()


def watch(one: Survivor) -> None:
    """Have ``one`` called in every process that this one forks, as long as it lives."""
    _survivors.add(one)


def free_or_lost(lock: Lock) -> Lock:
    """In a child: ``lock``, or, where another thread of the parent held it, :class:`Lost`."""
    if lock.acquire(blocking=False):
        lock.release()
        return lock
    return Lost()


class Lost:
    """A lock that nobody gets any more."""

    def acquire(self, blocking: bool = True) -> bool:
        return False

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        raise BackendUnavailableError(
            "another thread was running this program when its process forked this one, where that"
            " thread is not; load the program again here"
        )

    def __exit__(self, *_: object) -> None:
        pass


def _in_the_child() -> None:
    for one in list(_survivors):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
