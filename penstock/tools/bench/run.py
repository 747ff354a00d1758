"""Measuring files in runtimes beside each other: :func:`bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from penstock.tools.agreement import worst_sqnr
from penstock.tools.bench import machine
from penstock.tools.bench.child import WorkerError
from penstock.tools.bench.contest import Clock, Contest, contest
from penstock.tools.bench.report import BenchReport, Row, warnings_about
from penstock.tools.bench.workers import Worker


@dataclass(frozen=True)
class Samples:
    """Files with inputs, the first of which is timed, and eager's outputs for each, if known."""

    inputs: tuple[Path, ...]
    eager: tuple[list[np.ndarray], ...] = ()


@dataclass(frozen=True)
class Contestant:
    """A file in a runtime. ``name`` is what it is called in the table, ``file`` the name of the
    file or model."""

    runtime: str
    title: str
    file: str
    path: Path
    precision: str
    samples: Samples
    #: The program's data files.
    data: tuple[Path, ...] = ()


class Progress(Protocol):
    """What :func:`bench` tells of its work."""

    def doing(self, text: str) -> None:
        """What begins now."""

    def measured(self, seconds: float) -> None:
        """So much of the time of all turns is done."""


@dataclass
class _Found:
    """What is known of one contestant so far."""

    loads: list[dict[str, Any]] = field(default_factory=list)
    sqnr: float | None = None
    error: str | None = None


def bench(
    contestants: Sequence[Contestant],
    *,
    threads: Sequence[int],
    seconds: float,
    launches: int,
    progress: Progress,
) -> BenchReport:
    """Times all contestants by turns, each in a process of its own, with each number of
    ``threads`` for about ``launches * seconds``.

    One that fails has an error in its row; the others go on."""
    busy = machine.busy()
    rows = [
        row
        for count in threads
        for row in _with_threads(contestants, count, seconds, launches, progress)
    ]
    found = warnings_about(rows)
    return BenchReport(
        machine=machine.describe(_packages(contestants)),
        seconds=seconds,
        launches=launches,
        samples=len(contestants[0].samples.inputs) if contestants else 0,
        rows=tuple(rows),
        warnings=(*([busy] if busy else []), *found),
    )


def _packages(contestants: Sequence[Contestant]) -> list[str]:
    names = dict.fromkeys(one.runtime.partition("-")[0] for one in contestants)
    return ["penstock-xnnpack" if name == "penstock" else name for name in names]


def _with_threads(
    contestants: Sequence[Contestant],
    threads: int,
    seconds: float,
    launches: int,
    progress: Progress,
) -> list[Row]:
    found = [_Found() for _ in contestants]
    runs = [
        _launch(contestants, found, threads, seconds, progress, answers=number == 0)
        for number in range(launches)
    ]
    times = Contest.merged(runs)
    first = next(iter(times.rounds), None)
    return [
        _row(one, known, threads, times, str(index), first)
        for index, (one, known) in enumerate(zip(contestants, found, strict=True))
    ]


def _launch(
    contestants: Sequence[Contestant],
    found: Sequence[_Found],
    threads: int,
    seconds: float,
    progress: Progress,
    *,
    answers: bool,
) -> Contest:
    """One start of all that did not fail so far; with ``answers`` these are compared too."""
    running: list[tuple[str, Worker, str]] = []
    with ExitStack() as stack:
        for index, (one, known) in enumerate(zip(contestants, found, strict=True)):
            if known.error is not None:
                continue
            progress.doing(f"start {one.title} ({one.file})")
            worker = stack.enter_context(Worker(one.runtime, threads))
            try:
                worker.start()
                known.loads.append(worker.load("it", one.path, one.samples.inputs[0], one.data))
                if answers:
                    known.sqnr = answer_sqnr(worker, "it", one.samples.inputs, one.samples.eager)
            except (WorkerError, ValueError) as error:
                known.error = str(error)
                continue
            running.append((str(index), worker, "it"))
        progress.doing(f"measure, {threads} thread{'s' if threads > 1 else ''}")
        clock: Clock = progress.measured
        return _contest(running, found, seconds, clock)


def _contest(
    running: list[tuple[str, Worker, str]],
    found: Sequence[_Found],
    seconds: float,
    clock: Callable[[float], None],
) -> Contest:
    """The contest; without those whose runtime fails in it."""
    while True:
        try:
            return contest(running, seconds=seconds, clock=clock)
        except WorkerError as error:
            failed = [name for name, worker, _ in running if _gone(worker)]
            if not failed:
                raise
            for name in failed:
                found[int(name)].error = str(error)
            running = [one for one in running if one[0] not in failed]


def _gone(worker: Worker) -> bool:
    try:
        worker.time("it", 1)
    except WorkerError:
        return True
    return False


def answer_sqnr(
    worker: Worker, key: str, inputs: Sequence[Path], eager: Sequence[Sequence[np.ndarray]]
) -> float | None:
    """Signal to noise of a program's answers to ``inputs`` against eager's: of the worst output
    on the worst sample, in dB. ``None`` where eager's are not known."""
    if not eager:
        return None
    count = len(eager[0])
    # A program that writes to its inputs lists these first.
    got = [worker.outputs(key, path)[-count:] for path in inputs[: len(eager)]]
    return worst_sqnr(eager, got)


def _row(
    one: Contestant, known: _Found, threads: int, times: Contest, name: str, first: str | None
) -> Row:
    timed = name in times.rounds and known.error is None
    loads = known.loads
    growth = [load["growth_kib"] for load in loads if "growth_kib" in load]
    peak = [load["peak_kib"] for load in loads if "peak_kib" in load]
    return Row(
        runtime=one.runtime,
        title=one.title,
        file=one.file,
        precision=one.precision,
        threads=threads,
        best_ms=times.best(name) if timed else None,
        times_ms=times.spread(name) if timed else None,
        ratio=times.ratio(name, first) if timed and first is not None else None,
        turns=len(times.rounds[name]) if timed else 0,
        load_ms=min(load["seconds"] for load in loads) * 1e3 if loads else None,
        growth_mb=max(growth) * 1024 / 1e6 if growth else None,
        peak_mb=max(peak) * 1024 / 1e6 if peak else None,
        sqnr_db=known.sqnr,
        error=known.error,
    )
