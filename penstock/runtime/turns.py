"""Calls of one program take turns: what one of them writes to, the others write to as well."""

from __future__ import annotations

import threading

from penstock.errors import InputError
from penstock.runtime import forks


class Turns:
    """Whose turn it is to run the methods of a program.

    A call holds ``lock``, and has ``taken`` set while it computes. So other threads wait. The
    thread that computes would get the lock once more, where a signal handler, a finalizer or an
    input that computes itself calls the program in the middle of a call: such a call is refused,
    for it would leave the interrupted one with its own intermediate values.

    Whoever sets ``taken`` does so inside of ``try``, and ``finally`` takes it back: between these
    lines Python does not look for signals. (A context manager would, and costs a tenth of a small
    call.)
    """

    __slots__ = ("__weakref__", "lock", "taken")

    def __init__(self) -> None:
        self.lock: forks.Lock = threading.RLock()
        self.taken = False
        forks.watch(self)

    def after_fork(self) -> None:
        """See :mod:`penstock.runtime.forks`."""
        self.lock = forks.free_or_lost(self.lock)


def refusal(what: str = "the program", instead: str = "call a clone of it there") -> InputError:
    """The error of a call of ``what`` in the middle of another one."""
    return InputError(
        f"{what} was called in the middle of a call of it, by the same thread (in a signal handler,"
        f" a finalizer, or a function that the call itself calls); {instead}"
    )
