"""What the command line shows while it works: stages with a spinner, and errors in one line."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, cast

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from penstock.cli.safe_console import SafeConsole
from penstock.errors import InputError, PenstockError, for_missing_package, shorten
from penstock.faults import fault
from penstock.text import one_line

_INTERRUPTED = 130


class Stage:
    """A stage on the screen; the compiler tells it how far it is and what it found."""

    def __init__(self, bar: Bar | None, task: int) -> None:
        self._bar = bar
        self._task = task
        self.remark = ""

    def advance(self, steps: int = 1) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, steps)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        self.remark = text


class Stages:
    """Shows each stage of a compile on stderr: a spinner while it runs, its seconds when it ends.

    It is a ``penstock.compiler.progress.Progress``. With ``quiet`` it shows nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = SafeConsole(stderr=True, quiet=quiet, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Stage]:
        start = time.perf_counter()
        bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *((BarColumn(), MofNCompleteColumn()) if total is not None else ()),
            # What is left of it, where that is known; else how long it has been going on.
            TimeRemainingColumn() if total is not None else TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or self.console.quiet,
        )
        with bar:
            stage = Stage(bar, bar.add_task(name, total=total, completed=done))
            yield stage
        remark = f"  [dim]{escape(stage.remark)}[/dim]" if stage.remark else ""
        seconds = time.perf_counter() - start
        self.console.print(f"[green]✓[/green] {name:<12} {seconds:7.2f} s{remark}")

    def say(self, text: str) -> None:
        """A line between the stages."""
        self.console.print(text, markup=False, soft_wrap=True)


def provide_streams() -> None:
    """Makes stdout and stderr fit to be printed to.

    Where stderr is closed, what goes there goes nowhere: ``print`` would take stdout, and the next
    file that is opened the descriptor. Characters that the encoding of stdout lacks are escaped,
    as Python does on stderr: names and answers of language models have any.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (to the end of the process)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors != "backslashreplace":
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the program with one line on stderr and exit code 1 when an error is raised; one that
    nobody meant says that it is a fault of Penstock."""
    provide_streams()
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(1) from None
    except (Exception, KeyboardInterrupt) as error:
        if is_interrupt(error):
            print("interrupted", file=sys.stderr)
            raise SystemExit(_INTERRUPTED) from None
        assert isinstance(error, Exception)
        print(f"error: {one_line(str(known_error(error)))}", file=sys.stderr)
        raise SystemExit(1) from None


#: What typer raises about a command line: click's base class, which newer versions bring along.
_USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])


def run_app(app: typer.Typer, name: str | None = None) -> NoReturn:
    """Runs the commands of ``app`` and ends the process: whatever goes wrong is one line on stderr.
    The exit code is 1, for a command line that cannot be read 2, after Ctrl-C 130."""
    with errors_in_one_line():
        try:
            code = app(prog_name=name, standalone_mode=False)
        except _USAGE_ERROR as error:
            text = one_line(error.format_message()).rstrip(".")
            context = getattr(error, "ctx", None)
            hint = "" if context is None else f" (see {context.command_path} --help)"
            if text:  # else nothing was given, and the help is printed already
                print(f"error: {text}{hint}", file=sys.stderr)
            raise SystemExit(2) from None
        except typer.Abort:
            raise KeyboardInterrupt from None
        if code == _INTERRUPTED:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
    raise SystemExit(code if isinstance(code, int) else 0)


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or what was made of it: a RuntimeError where a class was being made,
    before Python 3.12, as those of libraries are while they are imported."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause is not None


#: What writing to a terminal or a pipe fails with, besides a pipe that nobody reads.
_ENDS_OF_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EBADF)


def known_error(error: Exception) -> PenstockError:
    """``error``, or what it means to a person."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return InputError(f"cannot use {shorten(error.filename, 300)}: {error.strerror}")
    if isinstance(error, OSError) and error.errno in _ENDS_OF_OUTPUT:
        return InputError(f"cannot write the output: {error.strerror}")
    missing = for_missing_package(error) if isinstance(error, ModuleNotFoundError) else None
    return missing or fault(error, "command line")


def hush_libraries() -> None:
    """Keeps the remarks that torch and its companions make about themselves off the screen."""
    with suppress(ImportError):
        import torch  # noqa: F401  (which sets the levels of its loggers when it is imported)
    warnings.filterwarnings("ignore")
    for name in ("torch", "torchao", "transformers", "timm"):
        logging.getLogger(name).setLevel(logging.ERROR)
