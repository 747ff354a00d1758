"""Pipelines as data: lists of :class:`Step`, and the loop that runs them.

Reading a list explains the order of what is in it. Under test, a pipeline is checked after every
step, and a fault names the step that made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Subject = TypeVar("Subject")

#: Set to check the subject after every step; the tests do.
VARIABLE = "PENSTOCK_CHECK_STEPS"


@dataclass(frozen=True)
class Step(Generic[Subject]):
    """One step of a pipeline: what it does, and why it stands where it stands. One that
    ``needs_fixed_sizes`` is left out where a dimension other than the first varies."""

    apply: Callable[[Subject], object]
    why: str
    needs_fixed_sizes: bool = False

    @property
    def name(self) -> str:
        """The module that the step is from, and its function where that is not ``apply``."""
        module = self.apply.__module__.rpartition(".")[2]
        function = self.apply.__name__
        return module if function == "apply" else f"{module}.{function}"


class StepError(Exception):
    """A step failed, or left its subject unsound: a fault of Penstock."""

    def __init__(self, step: str, before: str | None, cause: Exception) -> None:
        after = f" (after {before})" if before else ""
        super().__init__(f"{step}{after}: {type(cause).__name__}: {cause}")
        self.step = step


def run_steps(
    steps: Sequence[Step[Subject]],
    subject: Subject,
    remove_dead: Callable[[Subject], object],
    check: Callable[[Subject], object],
    *,
    fixed_sizes: bool = True,
) -> None:
    """Applies ``steps`` in order to ``subject``, which they change in place; ``remove_dead``
    follows each of them, so that none has to look at dead nodes. Where :data:`VARIABLE` is set,
    ``check`` is called after each step.

    Raises :class:`StepError` where a check fails; what a step itself raises is left alone.
    """
    checked = bool(os.environ.get(VARIABLE))
    before: str | None = None
    for step in steps:
        if step.needs_fixed_sizes and not fixed_sizes:
            continue
        step.apply(subject)
        remove_dead(subject)
        if checked:
            _check(step.name, before, check, subject)
        before = step.name


def _check(
    step: str, before: str | None, check: Callable[[Subject], object], subject: Subject
) -> None:
    try:
        check(subject)
    except Exception as error:
        raise StepError(step, before, error) from error
