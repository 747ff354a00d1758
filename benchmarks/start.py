"""The time from the start of a process to an answer, the self-tests' share of it, and what a call
costs beside its work."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from penstock.runtime.engines.native import engine, library
from penstock.runtime.engines.xnnpack.engine import check_library
from penstock.runtime.engines.xnnpack.library import shared

STOCK = (
    "import sys, torch, executorch.kernels.quantized\n"
    "from executorch.runtime import Runtime\n"
    "m = Runtime.get().load_program(sys.argv[1]).load_method('forward')\n"
    "print(m.execute([torch.ones(1, 3, 224, 224)])[0][0, 0])\n"
)
OURS = "from penstock.cli.runners import xnn_executor_runner as r; r()"


def starts(file: Path) -> dict[str, Any]:
    """Seconds from the start of a process to the answer of mv2's ``file``, by turns."""
    commands = {
        "ours": [sys.executable, "-c", OURS, "--model_path", str(file)],
        "stock": [sys.executable, "-c", STOCK, str(file)],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(3):
        for name, command in commands.items():
            start, cpu = time.perf_counter(), _children_cpu()
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
            times[name].append((time.perf_counter() - start, _children_cpu() - cpu))
    return {
        name: {"best": min(t for t, _ in found), "cpu": statistics.median(c for _, c in found)}
        for name, found in times.items()
    }


def _children_cpu() -> float:
    """CPU seconds of the processes that were waited for so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def self_tests() -> dict[str, float]:
    """CPU milliseconds of the self-tests of XNNPACK's library and ours, the best of 30."""
    checks = {
        "xnnpack": lambda: check_library(shared()),
        "native": lambda: engine.check_library(library.shared_library()),
    }
    return {name: min(_cpu_of(check) for _ in range(30)) for name, check in checks.items()}


def _cpu_of(check: Callable[[], None]) -> float:
    start = time.process_time()
    check()
    return 1e3 * (time.process_time() - start)


def overhead(found: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of a whole call, of the latencies of a program that adds two numbers."""
    return {label: 1e3 * found[label]["best"] for label in ("ours", "stock")}
