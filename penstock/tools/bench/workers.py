"""The measuring end of the worker processes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.tools.bench.child import Child


class Worker(Child):
    """One runtime in a process of its own; see ``penstock.tools.bench.worker``.

    Each method raises :class:`~penstock.tools.bench.child.WorkerError` where the runtime fails.
    """

    def __init__(self, runtime: str, threads: int) -> None:
        super().__init__("penstock.tools.bench.worker", runtime, str(threads))
        self.runtime = runtime
        self.threads = threads

    def start(self) -> None:
        """Waits until the runtime is there."""
        self.ask(do="start")

    def load(self, key: str, path: Path, inputs: Path, data: Sequence[Path] = ()) -> dict[str, Any]:
        """Loads a program, with its ``data`` files, and runs it once: ``seconds`` and, on Linux,
        ``growth_kib`` and ``peak_kib`` of the process's memory."""
        names = {"path": str(path.resolve()), "inputs": str(inputs.resolve())}
        return self.ask(do="load", key=key, **names, data=[str(file.resolve()) for file in data])

    def time(self, key: str, runs: int) -> list[int]:
        """Nanoseconds of each of ``runs`` runs."""
        times: list[int] = self.ask(do="time", key=key, runs=runs)["ns"]
        return times

    def outputs(self, key: str, inputs: Path | None = None) -> list[np.ndarray]:
        """What the program answers to ``inputs`` (those it was loaded with)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            given = None if inputs is None else str(inputs.resolve())
            self.ask(do="outputs", key=key, path=str(path), inputs=given)
            with np.load(path) as data:
                return [data[name] for name in data.files]
