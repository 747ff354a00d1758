"""A process that answers requests: :class:`Child`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

#: Seconds that an idle child gets to end by itself.
PATIENCE = 5.0

_Self = TypeVar("_Self", bound="Child")


class WorkerError(RuntimeError):
    """A child could not do what it was told to; the message is one line."""


class Child:
    """``python -m MODULE ARGUMENTS`` in a process of its own, which reads requests, one JSON object
    a line, and answers each with one; an answer with ``error`` is one that failed.

    The process ends with the ``with`` block: at once where that ends with an exception.
    """

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self._name = arguments[0]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment() | environment,
            # Ctrl-C is for this end, which ends the child then.
            start_new_session=True,
        )

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        if kind is not None:
            self._process.kill()
        try:
            self._process.stdin.close()
            self._process.wait(PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer. Raises :class:`WorkerError`, also where the process ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise WorkerError(f"the process of {self._name} ended {end}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


def _environment() -> dict[str, str]:
    """This process's, so that a child finds the same Penstock."""
    home = Path(__file__).resolve().parents[3]
    if home.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [str(home), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
