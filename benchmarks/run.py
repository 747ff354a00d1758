"""``make bench``: speed, memory and size beside every peer -> docs/benchmarks.md.

    python -m benchmarks.run [MODEL ... | start]

Ours on our file, the stock runtime on the stock flow's file and on ours, ONNX Runtime and OpenVINO
(``pip install -e '.[bench]'``) on the same model as ONNX, each where it is installed and can
run the model. With names given only these are measured again; the others' figures are kept (they
lie in ``build/measured/bench.json``). The files of the stock flow and of ONNX are made once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.flows import both_flows, run_flow
from benchmarks.machine import describe
from benchmarks.page import page
from benchmarks.start import overhead, starts
from benchmarks.workers import LAUNCHES, ROOT, Contest, Worker, WorkerError, contest

FOLDER = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "benchmarks.md"
MODELS = (
    "mv2", "mv3", "resnet18", "resnet50", "efficientnet_b0", "ic3", "dl3", "vit", "convnext_tiny",
    "swin_t", "minilm",
)  # fmt: skip
PRECISIONS = ("fp32", "q8")
THREADS = (1, 2)
PEERS = ("onnxruntime", "openvino")
SECONDS = 2.5


def files(name: str, precision: str) -> dict[str, Any]:
    """Compiles for every runtime; for each flow what it says, or its error."""
    found = both_flows(FOLDER, FOLDER, name, precision)
    onnx = FOLDER / f"{name}_{precision}.onnx"
    if importlib.util.find_spec("onnxruntime") and not onnx.exists():
        command = [sys.executable, "-m", "benchmarks.onnx_flow", name, precision, str(onnx)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=ROOT, capture_output=True, timeout=1200, check=False)
    return found


def latency(name: str, precision: str, threads: int) -> dict[str, Any]:
    """Best and median milliseconds of each runtime, its memory, or its error."""
    ours, onnx = FOLDER / f"{name}_{precision}_ours.pte", FOLDER / f"{name}_{precision}.onnx"
    stock = FOLDER / f"{name}_{precision}_stock.pte"
    stands_in = precision == "q8" and not stock.exists()
    if stands_in:
        stock = FOLDER / f"{name}_fp32_stock.pte"
    entries = [("ours", "ours", ours), ("stock", "stock", stock), ("ported", "stock", ours)]
    entries += [(kind, kind, onnx) for kind in PEERS if importlib.util.find_spec(kind)]
    entries = [entry for entry in entries if entry[2].exists()]
    found: dict[str, Any] = {"stock stands in": stands_in}
    runs = [_launch(name, entries, threads, found) for _ in range(LAUNCHES)]
    timed = [label for label, _, _ in entries if all(label in run.rounds for run in runs)]
    times = Contest(
        {label: [t for run in runs for t in run.rounds[label]] for label in timed},
        {label: min(run.fastest[label] for run in runs) for label in timed},
    )
    for label in times.rounds:
        found[label] |= {"best": times.best(label), "median": times.median(label)}
        if "stock" in times.rounds and label != "stock":
            found[label]["spread"] = times.ratio("stock", label)
    return found


def _launch(
    name: str, entries: list[tuple[str, str, Path]], threads: int, found: dict[str, Any]
) -> Contest:
    """Times all in processes of their own by turns; notes memory and errors in ``found``."""
    contestants = []
    with contextlib.ExitStack() as stack:
        for label, kind, path in entries:
            if "error" in found.get(label, {}):
                continue
            worker = stack.enter_context(Worker(kind, threads))
            try:
                found[label] = worker.load(label, path, FOLDER / f"{name}.0.in.npz")
            except WorkerError as error:
                found[label] = {"error": str(error)}
                continue
            contestants.append((label, worker, label))
        return contest(contestants, seconds=SECONDS)


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "bench.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    results["machine"] = describe() | {"peers": _versions()}
    for name in [name for name in names or MODELS if name != "start"]:
        run_flow("eager", name, str(FOLDER))
        for precision in PRECISIONS:
            row: dict[str, Any] = {"files": files(name, precision)}
            for threads in THREADS if "error" not in row["files"]["ours"] else ():
                row[f"threads {threads}"] = latency(name, precision, threads)
            results.setdefault("models", {})[f"{name} {precision}"] = row
            store.write_text(json.dumps(results, indent=1))
            print(name, precision, _brief(row), flush=True)
    if not names or "start" in names:
        run_flow("eager", "add", str(FOLDER))
        files("add", "fp32")
        results["starts"] = starts(FOLDER / "mv2_fp32_ours.pte")
        results["overhead"] = overhead(latency("add", "fp32", 1))
        store.write_text(json.dumps(results, indent=1))
    PAGE.write_text(page(results))
    print(f"written: {os.path.relpath(PAGE, ROOT)}")


def _versions() -> str:
    found = [name for name in PEERS if importlib.util.find_spec(name)]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in found) or "none"


def _brief(row: dict[str, Any]) -> str:
    parts = []
    for threads in THREADS:
        found = row.get(f"threads {threads}", {})
        times = [
            f"{label} {entry['best']:.2f}"
            for label, entry in found.items()
            if isinstance(entry, dict) and "best" in entry
        ]
        parts.append(f"{threads}: " + ", ".join(times))
    return "; ".join(parts)


if __name__ == "__main__":
    main(sys.argv[1:])
