"""A process that holds programs in one runtime and times them when it is told to.

    python -m penstock.tools.bench.worker RUNTIME THREADS

reads one JSON object a line and answers with one; ``workers`` is the other end. Each runtime has
its own process, kept alive, so that several can be measured by turns. It ends when its input does.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from penstock.tools.samples import read_inputs

Run = Callable[[Sequence[Any]], Sequence[Any]]


class Runtime(Protocol):
    """What a module of ``runtimes`` has; made with the number of threads."""

    def load(self, path: str, data: Sequence[str]) -> Run:
        """The program in the file, ready to run. ``data`` are the data files of a ``.pte``."""

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        """NumPy arrays and scalars as the runtime takes them."""


#: Where the runtimes are, in modules that alone import their packages.
RUNTIMES = {
    "penstock": "own:Penstock",
    "penstock-xnnpack": "own:PenstockXnnpack",
    "penstock-native": "own:PenstockNative",
    "executorch": "executorch:ExecuTorch",
    "onnxruntime": "onnxruntime:OnnxRuntime",
    "openvino": "openvino:OpenVino",
    "torch": "torch:EagerTorch",
}


def runtime(name: str, threads: int) -> Runtime:
    """Imports a runtime and makes it; that may take seconds."""
    module_name, _, attribute = RUNTIMES[name].partition(":")
    module = importlib.import_module(f"penstock.tools.bench.runtimes.{module_name}")
    made: Runtime = getattr(module, attribute)(threads)
    return made


def peak_kib() -> int:
    """The largest resident size so far, since the start or the last :func:`reset_peak`."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    raise RuntimeError("no VmHWM in /proc/self/status")


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def serve(name: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    server: Server | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if server is None:
                server = Server(runtime(name, threads))
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Server:
    """The requests; each gives a dictionary."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._programs: dict[str, tuple[Run, list[Any]]] = {}

    def start(self) -> dict[str, Any]:
        """Nothing: the runtime is there."""
        return {}

    def load(self, key: str, path: str, inputs: str, data: Sequence[str]) -> dict[str, Any]:
        given = self._given(inputs)
        before = None
        if sys.platform == "linux":
            reset_peak()
            before = peak_kib()
        start = time.perf_counter()
        run = self._runtime.load(path, data)
        run(given)
        seconds = time.perf_counter() - start
        self._programs[key] = run, given
        if before is None:
            return {"seconds": seconds}
        peak = peak_kib()
        return {"seconds": seconds, "growth_kib": peak - before, "peak_kib": peak}

    def time(self, key: str, runs: int) -> dict[str, Any]:
        run, given = self._programs[key]
        clock = time.perf_counter_ns
        times = []
        for _ in range(runs):
            start = clock()
            run(given)
            times.append(clock() - start)
        return {"ns": times}

    def outputs(self, key: str, path: str, inputs: str | None) -> dict[str, Any]:
        run, given = self._programs[key]
        if inputs is not None:
            given = self._given(inputs)
        arrays = [_array(output) for output in run(given)]
        named: dict[str, Any] = {f"out{i}": array for i, array in enumerate(arrays)}
        np.savez(path, **named)
        return {}

    def _given(self, path: str) -> list[Any]:
        return self._runtime.given(read_inputs(path))


def _array(output: Any) -> np.ndarray:
    return np.array(output.numpy() if hasattr(output, "numpy") else output)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
