"""The measuring end: worker processes, and timing several of them by turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
#: Where a process's memory happens to lie makes 1 to 2 %: each runtime is started so often, for
#: every model.
LAUNCHES = 3


class WorkerError(RuntimeError):
    """A runtime could not do what it was told to."""


class Worker:
    """One runtime in a process of its own; see ``benchmarks.worker``."""

    def __init__(self, kind: str, threads: int) -> None:
        self.kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", kind, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def load(self, key: str, path: Path, inputs: Path) -> dict[str, Any]:
        """Loads a program and runs it once: seconds, growth and peak of the memory in KiB."""
        return self._ask(do="load", key=key, path=str(path.resolve()), inputs=str(inputs.resolve()))

    def time(self, key: str, runs: int) -> list[int]:
        """Nanoseconds of each of ``runs`` runs."""
        times: list[int] = self._ask(do="time", key=key, runs=runs)["ns"]
        return times

    def outputs(self, key: str, inputs: Path | None = None) -> list[np.ndarray]:
        """What the program answers to ``inputs`` (those it was loaded with)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            given = None if inputs is None else str(inputs.resolve())
            self._ask(do="outputs", key=key, path=str(path), inputs=given)
            with np.load(path) as data:
                return [data[name] for name in data.files]

    def unload(self, key: str) -> None:
        self._ask(do="unload", key=key)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"the {self.kind} runtime died with {self._process.poll()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


@dataclass(frozen=True)
class Contest:
    """Times of several contestants in one interleaved run, in milliseconds: the median of each
    round, and the best single run of all."""

    rounds: dict[str, list[float]]
    fastest: dict[str, float]

    def best(self, name: str) -> float:
        return self.fastest[name]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, against: str) -> tuple[float, float, float]:
        """Median, lower and upper quartile of the rounds' ratios."""
        pairs = zip(self.rounds[name], self.rounds[against], strict=True)
        ratios = sorted(a / b for a, b in pairs)
        if len(ratios) < 4:
            return statistics.median(ratios), ratios[0], ratios[-1]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return middle, low, high


def contest(
    contestants: Sequence[tuple[str, Worker, str]], *, seconds: float = 8.0, block: float = 0.03
) -> Contest:
    """Times ``(name, worker, key)`` by turns: A B A B ... for about ``seconds``.

    A turn is as many runs as fit into ``block`` seconds, at least one; its median counts.
    """
    runs = {}
    for name, worker, key in contestants:
        worker.time(key, 2)
        once = statistics.median(worker.time(key, 3)) / 1e9
        runs[name] = max(1, int(block / once))
    turn = sum(
        statistics.median(worker.time(key, 1)) / 1e9 * runs[name]
        for name, worker, key in contestants
    )
    rounds: dict[str, list[float]] = {name: [] for name, _, _ in contestants}
    fastest = dict.fromkeys(rounds, float("inf"))
    for index in range(max(5, int(seconds / turn))):
        # Every second round goes the other way, so that no one always follows the same one.
        for name, worker, key in contestants if index % 2 == 0 else reversed(contestants):
            times = worker.time(key, runs[name])
            rounds[name].append(statistics.median(times) / 1e6)
            fastest[name] = min(fastest[name], min(times) / 1e6)
    return Contest(rounds, fastest)
