"""Where the commands begin: what they import takes a second, and Ctrl-C may come in it.

Imports nothing but the standard library at the top, and nothing that takes time.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def quick_exit() -> Iterator[None]:
    """While imports run, Ctrl-C ends the process with one line and exit code 130.

    A KeyboardInterrupt there would be shown with a traceback, or be taken by a library for a
    package that is missing. Elsewhere than in the main thread, or where somebody else has an
    eye on interrupts, nothing is done.
    """
    try:
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _leave(*_: Any) -> None:
    with suppress(OSError):  # closed
        os.write(2, b"interrupted\n")
    os._exit(130)  # nothing was begun that would have to be ended


def penstock() -> None:
    """The command ``penstock``."""
    _run("penstock.cli.main", "main")


def xnn_executor_runner() -> None:
    """The command ``xnn_executor_runner``."""
    _run("penstock.cli.runners", "xnn_executor_runner")


def executor_runner() -> None:
    """The command ``executor_runner``."""
    _run("penstock.cli.runners", "executor_runner")


def _run(module: str, function: str) -> None:
    with quick_exit():
        command = getattr(importlib.import_module(module), function)
    command()
