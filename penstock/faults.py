"""What becomes of exceptions that nobody meant: whatever goes wrong inside ends as one line.

The public functions run within :func:`faults`. What a person can do something about is raised as
what it is, with a message of its own; anything else is a fault of ours, and says that it is one,
where it is, and what to report. Nothing on the way has to catch anything for that: where it
happened is read off the traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Protocol

from penstock.errors import InputError, InternalError, OutOfMemoryError, PenstockError, shorten

PACKAGE = Path(__file__).parent
_PREFIX = str(PACKAGE) + os.sep
_LIBRARIES = tuple(
    path + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)  # fmt: skip
_MAX_REASON = 300
#: For what a damaged file can bring about, and a fault of ours as well.
IF_SOUND = "if the file is sound, this is a fault of Penstock: report this line, with the file"


@dataclass(frozen=True)
class Site:
    """At what it happened: an ATen overload, the path of its ``nn.Module``, a line of the model."""

    operator: str = ""
    module: str = ""
    source: str = ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.module, self.source) if part)
        return f" at {self.operator or 'a node'}{f' ({where})' if where else ''}"


class Locate(Protocol):
    """Finds out at what it happened, from the stack frames of Penstock, innermost first."""

    def __call__(self, frames: list[FrameType]) -> Site | None: ...


@contextmanager
def faults(stage: str, locate: Locate | None = None) -> Iterator[None]:
    """Turns what nobody meant into a :class:`PenstockError` of one line.

    Running out of memory becomes :class:`OutOfMemoryError`. What comes of the caller's own Python
    code (an operator's entry, calibration data) becomes :class:`InputError` that names its line.
    Everything else is :class:`InternalError`. What ends a program (``KeyboardInterrupt``) goes by,
    and so does what a signal handler raises, a time limit for instance.
    """
    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        if from_handler(error):
            raise
        raise fault(error, stage, locate) from error


def from_handler(error: Exception) -> bool:
    """Whether a signal handler raised it: it is meant for who set the handler, not about what was
    being done."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {code for handler in handlers if (code := _code(handler)) is not None}
    return any(frame.f_code in codes for frame, _ in _frames(error))


def _code(function: object) -> CodeType | None:
    """What a Python function, method, partial or object with ``__call__`` runs."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None and callable(function):
        code = getattr(type(function).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def fault(error: Exception, stage: str, locate: Locate | None = None) -> PenstockError:
    """The error to raise for one that nobody meant."""
    frames = _frames(error)
    stage = str(getattr(error, "penstock_stage", stage))
    step = next((name for frame, _ in frames if (name := _step(frame))), "")
    site = locate([frame for frame, _ in frames if _is_ours(frame)]) if locate else None
    doing = f"in the stage {stage!r}" + (f", step {step!r}" if step else "") + str(site or "")
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return OutOfMemoryError(
            f"out of memory {doing}: {one_line(error)}; use a machine with more"
        )
    theirs = next((_place(f, line) for f, line in frames if _is_theirs(f)), None)
    if theirs is not None and any(_is_ours(frame) for frame, _ in frames):
        return InputError(
            f"code of yours failed {doing}: {one_line(error)} ({theirs}); mend it there"
        )
    ours = next((_place(f, line) for f, line in frames if _is_ours(f)), "unknown")
    site = site or Site()
    return InternalError(
        f"Penstock failed {doing}: {one_line(error)} ({ours}). This is a fault of Penstock, not of"
        f" what you gave it: please report this line, with the model or the file ({versions()})",
        stage=stage, operator=site.operator, module=site.module, source=site.source,
    )  # fmt: skip


def one_line(error: BaseException) -> str:
    """The error's type and what it says, shortened."""
    text = shorten(error, _MAX_REASON)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def versions() -> str:
    """Those that a report needs."""
    known = {name: getattr(sys.modules.get(name), "__version__", None)
             for name in ("penstock", "torch", "numpy")}  # fmt: skip
    python = ".".join(map(str, sys.version_info[:3]))
    found = [f"{name} {version}" for name, version in known.items() if version]
    return ", ".join([*found, f"Python {python}"])


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames that the exception came through, with their lines, innermost first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames[::-1]


def _step(frame: FrameType) -> str:
    """The name of the step of a pipeline that the frame runs."""
    step = frame.f_locals.get("step") if _is_ours(frame) else None
    name = getattr(step, "name", "")
    return name if isinstance(name, str) else ""


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PREFIX)


def _is_theirs(frame: FrameType) -> bool:
    """Whether the frame is of code that was called from Penstock and belongs to nobody's library.
    (The frames that called Penstock are not among an exception's, up to where it is caught.)"""
    file = frame.f_code.co_filename
    known = _is_ours(frame) or file.startswith(_LIBRARIES) or "site-packages" in file
    return not known and not file.startswith("<")


def _place(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    if file.startswith(_PREFIX):
        file = str(Path("penstock") / Path(file).relative_to(PACKAGE))
    return f"{file}:{line}"
