"""A process that holds programs in one runtime and times them when it is told to.

    python -m benchmarks.worker ours|stock|onnxruntime|openvino THREADS

reads one JSON object a line and answers with one. ``benchmarks.workers`` is the other end. Each
runtime has its own process, kept alive, so that two of them can be measured by turns.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[Sequence[Any]], Sequence[Any]]


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


class Ours:
    def __init__(self, threads: int) -> None:
        import penstock
        from penstock.runtime.engines.xnnpack.engine import shared_library

        shared_library()  # the other runtimes come with their libraries at import
        self._load = penstock.load
        self._threads = threads

    def load(self, path: str) -> Run:
        return self._load(path, threads=self._threads).method("forward").run

    def given(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        return list(inputs)


class Stock:
    def __init__(self, threads: int) -> None:
        import executorch.kernels.quantized  # noqa: F401  (registers the quantized operators)
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(threads)
        torch.set_num_threads(1)
        self._torch = torch
        self._runtime = Runtime.get()

    def load(self, path: str) -> Run:
        method = self._runtime.load_program(path).load_method("forward")
        return lambda inputs: method.execute(inputs)

    def given(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        return [self._torch.from_numpy(array) for array in inputs]


def _as_arrays(outputs: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(o.numpy() if hasattr(o, "numpy") else o) for o in outputs]


def runtime(kind: str) -> Callable[[int], Any]:
    if kind in ("ours", "stock"):
        return Ours if kind == "ours" else Stock
    from benchmarks.peer_runtimes import RUNTIMES

    return RUNTIMES[kind]


def serve(kind: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    server = Server(runtime(kind)(threads))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Server:
    """The requests; each gives a dictionary."""

    def __init__(self, runtime: Ours | Stock) -> None:
        self._runtime = runtime
        self._programs: dict[str, tuple[Run, list[Any]]] = {}

    def load(self, key: str, path: str, inputs: str) -> dict[str, Any]:
        given = self._given(inputs)
        reset_peak()
        before = peak_kib()
        start = time.perf_counter()
        run = self._runtime.load(path)
        run(given)
        seconds = time.perf_counter() - start
        self._programs[key] = run, given
        return {"seconds": seconds, "growth_kib": peak_kib() - before, "peak_kib": peak_kib()}

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
        arrays = [np.array(o.numpy() if hasattr(o, "numpy") else o) for o in run(given)]
        named: dict[str, Any] = {f"out{i}": array for i, array in enumerate(arrays)}
        np.savez(path, **named)
        return {}

    def unload(self, key: str) -> dict[str, Any]:
        self._programs.pop(key, None)
        return {}

    def _given(self, path: str) -> list[Any]:
        with np.load(path) as data:
            return self._runtime.given([data[name] for name in data.files])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
