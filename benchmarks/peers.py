"""Every runtime on the models of the zoo, by turns -> docs/benchmarks-models.md.

    python -m benchmarks.peers [MODEL ...]

Ours on our file, the stock runtime on the stock flow's file and on ours, ONNX Runtime and OpenVINO
(``pip install 'penstock[bench]'``) on the same model as ONNX, each where it is installed and can
run the model. With names given only these are measured again; the others' figures are kept (they
lie in ``build/peers/results.json``). The files of the stock flow and of ONNX are made once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.flows import both_flows, run_flow
from benchmarks.machine import describe
from benchmarks.peers_page import page
from benchmarks.run import MODELS, PRECISIONS, THREADS
from benchmarks.workers import ROOT, Worker, WorkerError, contest

FOLDER = ROOT / "build" / "peers"
STOCK = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "benchmarks-models.md"
PEERS = ("onnxruntime", "openvino")
SECONDS = 3.0


def files(name: str, precision: str) -> dict[str, Any]:
    """Compiles for every runtime; for each flow what it says, or its error."""
    found = both_flows(FOLDER, STOCK, name, precision)
    onnx = FOLDER / f"{name}_{precision}.onnx"
    if importlib.util.find_spec("onnxruntime") and not onnx.exists():
        command = [sys.executable, "-m", "benchmarks.onnx_flow", name, precision, str(onnx)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=ROOT, capture_output=True, timeout=1200, check=False)
    return found


def latency(name: str, precision: str, threads: int) -> dict[str, Any]:
    """Best and median milliseconds of each runtime, and what loading added to its memory."""
    ours, onnx = FOLDER / f"{name}_{precision}_ours.pte", FOLDER / f"{name}_{precision}.onnx"
    stock = STOCK / f"{name}_{precision}_stock.pte"
    stands_in = precision == "q8" and not stock.exists()
    if stands_in:
        stock = STOCK / f"{name}_fp32_stock.pte"
    entries = [("ours", "ours", ours), ("stock", "stock", stock), ("ported", "stock", ours)]
    entries += [(kind, kind, onnx) for kind in PEERS if importlib.util.find_spec(kind)]
    found: dict[str, Any] = {"stock stands in": stands_in}
    contestants = []
    with contextlib.ExitStack() as stack:
        for label, kind, path in entries:
            if not path.exists():
                continue
            worker = stack.enter_context(Worker(kind, threads))
            try:
                loaded = worker.load(label, path, FOLDER / f"{name}.0.in.npz")
            except WorkerError as error:
                found[label] = {"error": str(error)}
                continue
            found[label] = {"growth_kib": loaded["growth_kib"]}
            contestants.append((label, worker, label))
        times = contest(contestants, seconds=SECONDS)
    for label, _, _ in contestants:
        found[label] |= {"best": times.best(label), "median": times.median(label)}
        if "stock" in times.rounds and label != "stock":
            found[label]["spread"] = times.ratio("stock", label)
    return found


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    STOCK.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "results.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    results["machine"] = describe() | {"peers": _versions()}
    for name in names or MODELS:
        run_flow("eager", name, str(FOLDER))
        for precision in PRECISIONS:
            row: dict[str, Any] = {"files": files(name, precision)}
            for threads in THREADS:
                row[f"threads {threads}"] = latency(name, precision, threads)
            results.setdefault("models", {})[f"{name} {precision}"] = row
            store.write_text(json.dumps(results, indent=1))
            print(name, precision, _brief(row), flush=True)
    PAGE.write_text(page(results))
    print(f"written: {os.path.relpath(PAGE, ROOT)}")


def _versions() -> str:
    import importlib.metadata

    found = [name for name in PEERS if importlib.util.find_spec(name)]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in found) or "none"


def _brief(row: dict[str, Any]) -> str:
    parts = []
    for threads in THREADS:
        found = row[f"threads {threads}"]
        times = [f"{k} {v['best']:.2f}" for k, v in found.items() if _timed(v)]
        parts.append(f"{threads}: " + ", ".join(times))
    return "; ".join(parts)


def _timed(entry: object) -> bool:
    return isinstance(entry, dict) and "best" in entry


if __name__ == "__main__":
    main(sys.argv[1:])
