"""Taking turns: runtimes that share a workspace write to the same memory."""

from __future__ import annotations

import ctypes
import threading


class Turn:
    """The right to use a workspace: executables that write to the same one take turns.

    A runtime that is garbage is deleted at once if it is nobody's turn, else at its end. Waiting
    for the end could be forever, for garbage is collected anywhere, within another turn too.
    """

    def __init__(self, xnn: ctypes.CDLL) -> None:
        self._xnn = xnn
        self._lock = threading.Lock()
        self._garbage: list[tuple[int, object]] = []

    def delete(self, runtime: int, *used: object) -> None:
        """Delete ``runtime`` as soon as it is nobody's turn, then let go what it ``used``."""
        self._garbage.append((runtime, used))
        if self._lock.acquire(blocking=False):
            self._end()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        while self._garbage:
            runtime, used = self._garbage.pop()
            self._xnn.xnn_delete_runtime(runtime)
            del used
        self._lock.release()
