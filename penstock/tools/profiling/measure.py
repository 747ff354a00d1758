"""Calls of a method, each measured by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import InputError
from penstock.runtime.method import Method
from penstock.runtime.profile import Profile
from penstock.runtime.program import LoadedProgram
from penstock.runtime.specs import TensorSpec

#: Where seconds decide, as many calls are enough.
MOST_CALLS = 1000
WARM_UP = 2


@dataclass(frozen=True)
class Call:
    """One call of a method: its whole time, and the profile of it alone."""

    seconds: float
    profile: Profile


def require_fixed_sizes(program: LoadedProgram, method: str | None) -> None:
    """Raises InputError if the sizes of a method's inputs vary from call to call."""
    for position, spec in enumerate(program.method(method).inputs):
        if isinstance(spec, TensorSpec) and spec.dynamic:
            raise InputError(
                f"input {position} has no fixed size ({spec}), and its time depends on it: give"
                " inputs with --inputs"
            )


def ordinary_seconds(
    program: LoadedProgram, method: str | None, inputs: Sequence[Any], *, runs: int | None = None,
    seconds: float = 0.5,
) -> float:  # fmt: skip
    """The first decile of whole calls of a ``program`` that was loaded without ``profile``: what a
    call takes where nothing inside is measured. Ends as :func:`measure` does.

    Raises InputError for inputs that do not fit.
    """
    prepared = _warm(program, method, inputs)
    times = sorted(took for took, _ in _timed(prepared, inputs, runs, seconds))
    return times[len(times) // 10]


def measure(
    program: LoadedProgram,
    method: str | None,
    inputs: Sequence[Any],
    *,
    runs: int | None = None,
    seconds: float = 2.0,
    on_call: Callable[[float], None] = lambda share: None,
) -> list[Call]:
    """Calls ``method`` ``runs`` times, or for ``seconds`` (and three times at least), after a few
    calls that do not count. ``program`` was loaded with ``profile=True``. ``on_call`` hears after
    each call which share of all is done.

    Raises InputError for inputs that do not fit, or fewer runs than 1.
    """
    if runs is not None and runs < 1:
        raise InputError(f"runs is {runs}, it must be at least 1")
    if not seconds > 0:
        raise InputError(f"seconds is {seconds:g}, it must be more than 0")
    prepared = _warm(program, method, inputs)
    prepared.profile(reset=True)
    calls: list[Call] = []
    for took, done in _timed(prepared, inputs, runs, seconds):
        calls.append(Call(took, prepared.profile(reset=True)))
        on_call(min(done, 1.0))
    return calls


def _warm(program: LoadedProgram, method: str | None, inputs: Sequence[Any]) -> Method:
    """The method, after calls that do not count."""
    prepared = program.method(method)
    for _ in range(WARM_UP):
        prepared.run(inputs)
    return prepared


def _timed(
    method: Method, inputs: Sequence[Any], runs: int | None, seconds: float
) -> Iterator[tuple[float, float]]:
    """Calls the method as :func:`measure` says; of each call its seconds, and which share of all is
    done (1 or more with the last)."""
    count, done = 0, 0.0
    begin = time.perf_counter()
    while done < 1:
        start = time.perf_counter()
        method.run(inputs)
        end = time.perf_counter()
        count += 1
        if runs is not None:
            done = count / runs
        else:
            done = min(max((end - begin) / seconds, count / MOST_CALLS), count / 3)
        yield end - start, done
