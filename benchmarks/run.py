"""``make bench``: speed, memory and size against the stock package -> docs/benchmarks.md.

    python -m benchmarks.run [MODEL ...]

With names given only these are measured again; the others' figures are kept (they lie in
``build/measured/bench.json``). Everything that is compared is measured by turns in one run.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.flows import both_flows, run_flow
from benchmarks.machine import describe
from benchmarks.workers import ROOT, Worker, WorkerError, contest

FOLDER = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "benchmarks.md"
MODELS = (
    "mv2", "mv3", "resnet18", "resnet50", "efficientnet_b0", "ic3", "dl3", "vit", "convnext_tiny",
    "swin_t", "minilm",
)  # fmt: skip
PRECISIONS = ("fp32", "q8")
THREADS = (1, 2)


def files(name: str, precision: str) -> dict[str, Any]:
    """Compiles by both flows (by the stock one only if that was not done before)."""
    return both_flows(FOLDER, FOLDER, name, precision)


def latency(name: str, precision: str, threads: int) -> dict[str, Any]:
    """Times both runtimes on their own file, and the stock one on ours, by turns."""
    inputs = FOLDER / f"{name}.0.in.npz"
    ours, stock = (FOLDER / f"{name}_{precision}_{kind}.pte" for kind in ("ours", "stock"))
    found: dict[str, Any] = {"memory": {}}
    with Worker("ours", threads) as a, Worker("stock", threads) as b, Worker("stock", threads) as c:
        contestants = []
        for label, worker, path in (("ours", a, ours), ("stock", b, stock), ("ported", c, ours)):
            try:
                loaded = worker.load(label, path, inputs)
            except WorkerError as error:
                found[f"{label}_error"] = str(error)
                continue
            found["memory"][label] = loaded
            contestants.append((label, worker, label))
        times = contest(contestants)
    for label, _, _ in contestants:
        found[label] = {"best": times.best(label), "median": times.median(label)}
        if "stock" in times.rounds and label != "stock":
            found[label]["ratio"] = times.best("stock") / times.best(label)
            found[label]["spread"] = times.ratio("stock", label)[1:]
    return found


def starts() -> dict[str, Any]:
    """Seconds from the start of a process to mv2's answer, by turns."""
    stock = (
        "import sys, torch, executorch.kernels.quantized\n"
        "from executorch.runtime import Runtime\n"
        "m = Runtime.get().load_program(sys.argv[1]).load_method('forward')\n"
        "print(m.execute([torch.ones(1, 3, 224, 224)])[0][0, 0])\n"
    )
    runner = "from penstock.cli.runners import xnn_executor_runner as r; r()"
    file = str(FOLDER / "mv2_fp32_ours.pte")
    commands = {
        "ours": [sys.executable, "-c", runner, "--model_path", file],
        "stock": [sys.executable, "-c", stock, file],
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


def overhead() -> dict[str, Any]:
    """Microseconds of a whole call of a program that adds two numbers."""
    run_flow("eager", "add", str(FOLDER))
    files("add", "fp32")
    found = latency("add", "fp32", 1)
    return {label: 1e3 * found[label]["best"] for label in ("ours", "stock")}


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "bench.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    results["machine"] = describe()
    for name in [name for name in names or MODELS if name != "start"]:
        run_flow("eager", name, str(FOLDER))
        for precision in PRECISIONS:
            row: dict[str, Any] = {"files": files(name, precision)}
            if "error" not in row["files"]["ours"]:
                for threads in THREADS:
                    row[f"threads {threads}"] = latency(name, precision, threads)
            results.setdefault("models", {})[f"{name} {precision}"] = row
            print(name, precision, _brief(row), flush=True)
            store.write_text(json.dumps(results, indent=1))
    if not names or "start" in names:
        results["starts"] = starts()
        results["overhead"] = overhead()
        store.write_text(json.dumps(results, indent=1))
    from benchmarks.page import page

    PAGE.write_text(page(results))
    print(f"written: {os.path.relpath(PAGE, ROOT)}")


def _brief(row: dict[str, Any]) -> str:
    parts = []
    for threads in THREADS:
        found = row.get(f"threads {threads}", {})
        for label in ("ours", "ported"):
            if "ratio" in found.get(label, {}):
                parts.append(f"{label} at {threads}: {found[label]['ratio']:.2f} x stock")
    return ", ".join(parts) or json.dumps(row)[:300]


if __name__ == "__main__":
    main(sys.argv[1:])
