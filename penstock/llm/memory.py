"""Memory: what a conversation takes; what was freed, back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

from penstock.errors import OutOfMemoryError
from penstock.runtime.free_memory import available_memory


def require_memory(size: int, what: str, advice: str) -> None:
    """Raises :class:`OutOfMemoryError` where ``size`` bytes are not to be had: before they are
    taken, for a system may end the process that takes them."""
    there = available_memory()
    if size > there:
        raise OutOfMemoryError(
            f"{what} takes {size >> 20:,} MiB, and {there >> 20:,} are free; {advice}"
        )


def give_back_memory() -> None:
    """Lets go of what the C library keeps of freed memory, where it can (glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """While thousands of objects are made that all stay, looking for garbage among them again and
    again is a fifteenth of the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
