"""``make bench``: speed, memory and size beside every peer -> docs/benchmarks.md, or
docs/benchmarks-avx2.md where the processor has no more than AVX2.

    python -m benchmarks.run [MODEL ... | start] [--launches N]

Ours on our file, the stock runtime on the stock flow's file and on ours, ONNX Runtime and OpenVINO
(``pip install -e '.[bench]'``) on the same model as ONNX, each where it is installed and can
run the model. With names given only these are measured again; the others' figures are kept (they
lie in ``build/measured/bench.json``; without those of every row of the page, it is left as it is).
The files of the stock flow and of ONNX are made once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.arguments import check_names, parser_of
from benchmarks.flows import both_flows, run_flow, samples
from benchmarks.machine import describe, page_for
from benchmarks.page import STARTS, page
from benchmarks.start import overhead, self_tests, starts
from benchmarks.whole_pages import write_page
from penstock import zoo
from penstock.tools.bench.child import WorkerError
from penstock.tools.bench.contest import LAUNCHES, Contest, contest
from penstock.tools.bench.run import answer_sqnr
from penstock.tools.bench.workers import Worker

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
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            _write_onnx(name, precision, onnx)
    return found


def _write_onnx(name: str, precision: str, output: Path) -> None:
    """Quantized by ONNX Runtime's own tools, by the scheme that the zoo names, with the calibration
    data that the other flows get. Raises OSError where nothing came of it."""
    dynamic = zoo.entry(name).quantization == "dynamic_per_channel"
    kind = "float" if precision == "fp32" else "dynamic int8" if dynamic else "static int8"
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        subprocess.run(
            [sys.executable, "-m", "penstock.cli.bench_files", name, folder],
            input=json.dumps({"job": f".onnx {kind}"}), text=True, cwd=ROOT, capture_output=True,
            timeout=1200, check=False,
        )  # fmt: skip
        (Path(folder) / f"{kind.replace(' ', '_')}.onnx").replace(output)


def latency(name: str, precision: str, threads: int, launches: int = LAUNCHES) -> dict[str, Any]:
    """Best and median milliseconds of each runtime, its memory, its signal to noise against eager
    on the worst of the samples, in dB; or its error."""
    ours, onnx = FOLDER / f"{name}_{precision}_ours.pte", FOLDER / f"{name}_{precision}.onnx"
    stock = FOLDER / f"{name}_{precision}_stock.pte"
    stands_in = precision == "q8" and not stock.exists()
    if stands_in:
        stock = FOLDER / f"{name}_fp32_stock.pte"
    entries = [
        ("ours", "penstock", ours),
        ("stock", "executorch", stock),
        ("ported", "executorch", ours),
    ]
    entries += [(kind, kind, onnx) for kind in PEERS if importlib.util.find_spec(kind)]
    entries = [entry for entry in entries if entry[2].exists()]
    found: dict[str, Any] = {"stock stands in": stands_in}
    times = Contest.merged([_launch(name, entries, threads, found) for _ in range(launches)])
    for label in times.rounds:
        found[label] |= {"best": times.best(label), "median": times.median(label)}
        if "stock" in times.rounds and label != "stock":
            ratio = times.ratio("stock", label)
            found[label]["spread"] = [ratio.median, ratio.low, ratio.high]
    return found


def _launch(
    name: str, entries: list[tuple[str, str, Path]], threads: int, found: dict[str, Any]
) -> Contest:
    """Times all in processes of their own by turns; notes memory, accuracy and errors in
    ``found``."""
    contestants = []
    inputs, eager = samples(FOLDER, name)
    with contextlib.ExitStack() as stack:
        for label, kind, path in entries:
            if "error" in found.get(label, {}):
                continue
            worker = stack.enter_context(Worker(kind, threads))
            try:
                loaded = worker.load(label, path, inputs[0])
                if "sqnr" not in found.get(label, {}):
                    loaded["sqnr"] = answer_sqnr(worker, label, inputs, eager)
                found[label] = found.get(label, {}) | loaded
            except (WorkerError, ValueError) as error:
                found[label] = {"error": str(error)}
                continue
            contestants.append((label, worker, label))
        return contest(contestants, seconds=SECONDS)


def main(names: list[str], launches: int) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "bench.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    results["machine"] = describe() | {"peers": _versions()}
    for name in [name for name in names or MODELS if name != "start"]:
        run_flow("eager", name, str(FOLDER))
        for precision in PRECISIONS:
            row: dict[str, Any] = {"date": results["machine"]["date"], "launches": launches}
            row["files"] = files(name, precision)
            for threads in THREADS if "error" not in row["files"]["ours"] else ():
                row[f"threads {threads}"] = latency(name, precision, threads, launches)
            results.setdefault("models", {})[f"{name} {precision}"] = row
            store.write_text(json.dumps(results, indent=1))
            print(name, precision, _brief(row), flush=True)
    if not names or "start" in names:
        run_flow("eager", "add", str(FOLDER))
        files("add", "fp32")
        results["starts"] = starts(FOLDER / "mv2_fp32_ours.pte")
        results["self-tests"] = self_tests()
        results["overhead"] = overhead(latency("add", "fp32", 1))
        store.write_text(json.dumps(results, indent=1))
    rows = [f"{name} {precision}" for name in MODELS for precision in PRECISIONS]
    measured = results.get("models", {})
    results["models"] = {key: measured[key] for key in sorted(measured, key=place_in(rows))}
    page_at = page_for("benchmarks", results["machine"])
    write_page(page_at, page(results), [*rows, STARTS])


def place_in(rows: list[str]) -> Callable[[str], tuple[int, str]]:
    """Where a row goes: those of the page in its order, others behind them."""
    return lambda key: (rows.index(key) if key in rows else len(rows), key)


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


def _given() -> tuple[list[str], int]:
    parser, known = parser_of(__doc__), [*zoo.names(), "start"]
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(known)}")
    parser.add_argument(
        "--launches", type=int, default=LAUNCHES, metavar="N",
        help="how many times each runtime's process is started",
    )  # fmt: skip
    given = parser.parse_args()
    check_names(parser, "model", given.names, known)
    if given.launches < 1:
        parser.exit(2, f"error: --launches is {given.launches}; it is at least 1\n")
    return given.names, given.launches


if __name__ == "__main__":
    main(*_given())
