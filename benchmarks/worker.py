"""A process that holds programs in one runtime and times them when it is told to.

    python -m benchmarks.worker ours|stock THREADS

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

        self._load = penstock.load
        self._threads = threads

    def load(self, path: str, inputs: Sequence[np.ndarray]) -> Callable[[], Sequence[Any]]:
        method = self._load(path, threads=self._threads).method("forward")
        given = list(inputs)
        return lambda: method.run(given)


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
        self._kept: list[Any] = []

    def load(self, path: str, inputs: Sequence[np.ndarray]) -> Callable[[], Sequence[Any]]:
        program = self._runtime.load_program(path)
        method = program.load_method("forward")
        self._kept.append(program)
        given = [self._torch.from_numpy(array) for array in inputs]
        return lambda: method.execute(given)


def _as_arrays(outputs: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(o.numpy() if hasattr(o, "numpy") else o) for o in outputs]


def serve(kind: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    runtime = {"ours": Ours, "stock": Stock}[kind](threads)
    programs: dict[str, Callable[[], Sequence[Any]]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, runtime, programs)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], runtime: Any, programs: dict[str, Any]) -> dict[str, Any]:
    key = request["key"]
    if request["do"] == "load":
        with np.load(request["inputs"]) as data:
            inputs = [data[name] for name in data.files]
        reset_peak()
        before = peak_kib()
        start = time.perf_counter()
        programs[key] = runtime.load(request["path"], inputs)
        outputs = programs[key]()
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "growth_kib": peak_kib() - before,
            "peak_kib": peak_kib(),
            "outputs": len(outputs),
        }
    if request["do"] == "time":
        run, clock = programs[key], time.perf_counter_ns
        times = []
        for _ in range(request["runs"]):
            start_ns = clock()
            run()
            times.append(clock() - start_ns)
        return {"ns": times}
    if request["do"] == "outputs":
        arrays = _as_arrays(programs[key]())
        np.savez(request["path"], **{f"out{i}": array for i, array in enumerate(arrays)})
        return {}
    if request["do"] == "unload":
        programs.pop(key, None)
        return {}
    raise ValueError(f"unknown request {request['do']!r}")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
