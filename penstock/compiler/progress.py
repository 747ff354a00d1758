"""How a compile tells what it is doing. The command line shows it; by default nothing is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Stage(Protocol):
    """One running stage."""

    def advance(self, steps: int = 1) -> None:
        """``steps`` more of the stage's ``total`` are done."""

    def note(self, text: str) -> None:
        """A short remark on what the stage found."""


class Progress(Protocol):
    """Receives the stages of a compile as they begin and end."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Begins a stage of ``total`` steps (``None`` when that is not known)."""


class _SilentStage:
    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Silent:
    """A :class:`Progress` that shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        yield _SilentStage()


@dataclass
class Timed:
    """Passes everything on to ``inner`` and keeps the seconds each stage took in ``timings``, and
    on an exception the stage that it comes of."""

    inner: Progress
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        start = time.perf_counter()
        try:
            with self.inner.stage(name, total) as stage:
                yield stage
        except Exception as error:
            if not hasattr(error, "penstock_stage"):
                error.penstock_stage = name  # type: ignore[attr-defined]
            raise
        finally:
            seconds = time.perf_counter() - start
            self.timings[name] = self.timings.get(name, 0.0) + seconds
