"""Taking turns: runtimes that share a workspace write to the same memory."""

from __future__ import annotations

import ctypes
import threading

from penstock.runtime.engines.xnnpack.interrupts import interrupts_held


class Turn:
    """The right to use a workspace: executables that write to the same one take turns, each while
    it holds ``lock``, and then call :meth:`clean` if there is ``garbage``.

    A runtime that is garbage is deleted at once if it is nobody's turn, else at its end. Waiting
    for the end could be forever, for garbage is collected anywhere, within another turn too.
    """

    def __init__(self, xnn: ctypes.CDLL) -> None:
        self._xnn = xnn
        #: To be taken by ``with`` alone: Python raises a KeyboardInterrupt between any two lines,
        #: and would leave what a method of ours has acquired held for ever.
        self.lock = threading.Lock()
        self.garbage: list[tuple[int, object]] = []

    def delete(self, runtime: int, *used: object) -> None:
        """Delete ``runtime`` as soon as it is nobody's turn, then let go what it ``used``."""
        self.garbage.append((runtime, used))
        self.clean()

    def clean(self) -> None:
        """Delete the garbage, unless it is somebody's turn, who does it after that."""
        with interrupts_held():
            # Once more where there is new garbage: who made it found the lock taken.
            while self.garbage and self.lock.acquire(blocking=False):
                try:
                    while self.garbage:
                        runtime, used = self.garbage.pop()
                        self._xnn.xnn_delete_runtime(runtime)
                        del used
                finally:
                    self.lock.release()
