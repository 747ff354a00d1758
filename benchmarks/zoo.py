"""``make zoo``: every model of the zoo, fp32 and q8, ours beside the stock flow -> docs/zoo.md.

    python -m benchmarks.zoo [MODEL ...]

Results are kept in ``build/measured/zoo.json``; with names given only these are made again.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.flows import (
    FlowError,
    answers,
    relative_error,
    run_flow,
    same_bits,
    samples,
    sqnr,
    stock_flow,
)
from benchmarks.workers import ROOT, Worker, WorkerError, contest
from penstock import zoo

FOLDER = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "zoo.md"
THREADS = 1


def measure(name: str, precision: str) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {}
    ours, stock = (FOLDER / f"{name}_{precision}_{kind}.pte" for kind in ("ours", "stock"))
    try:
        row["ours"] = run_flow("ours", name, precision, str(ours))
    except FlowError as error:
        row["ours"] = {"error": str(error)}
    try:
        row["stock"] = stock_flow(FOLDER, name, precision)
    except FlowError as error:
        row["stock"] = {"error": str(error)}
    inputs, eager = samples(FOLDER, name)
    with Worker("ours", THREADS) as a, Worker("stock", THREADS) as b:
        found: dict[str, list[list[np.ndarray]]] = {}
        contestants = []
        for label, worker, path in (("ours", a, ours), ("ported", b, ours), ("stock", b, stock)):
            source = row["stock" if label == "stock" else "ours"]
            if "error" in source:
                continue
            try:
                worker.load(label, path, inputs[0])
                found[label] = answers(worker, label, inputs)
                contestants.append((label, worker, label))
            except WorkerError as error:
                row[f"{label}_run_error"] = str(error)
                if label != "ours":
                    b.__exit__()
                    b = Worker("stock", THREADS)
        for label, outputs in found.items():
            row[f"{label}_sqnr"] = sqnr(eager, outputs)
            row[f"{label}_error"] = relative_error(eager, outputs)
        if {"ours", "ported"} <= found.keys():
            row["same_bits"] = same_bits(found["ours"], found["ported"])
            row["port_error"] = relative_error(found["ported"], found["ours"])
        if contestants:
            times = contest(contestants, seconds=3.0, block=0.05)
            row["ms"] = {label: times.best(label) for label, _, _ in contestants}
        b.__exit__()
    return row


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "zoo.json"
    results = json.loads(store.read_text()) if names and store.exists() else {}
    for name in names or zoo.names():
        start = time.perf_counter()
        run_flow("eager", name, str(FOLDER))
        for precision in ("fp32", "q8"):
            results[f"{name} {precision}"] = measure(name, precision)
            store.write_text(json.dumps(results, indent=1))
            PAGE.write_text(page(results))
            print(f"{line(name, precision, results[f'{name} {precision}'])}", flush=True)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    print(f"written: {PAGE.relative_to(ROOT)}")


HEADER = (
    "model", "", "one piece of", "size, MB", "compile, s (stock)", "on ours", "on stock's runtime",
    "SQNR, dB (stock)", "ms, ours", "ms, stock's file", "ratio",
)  # fmt: skip


def line(name: str, precision: str, row: dict[str, Any]) -> str:
    """A row of the table in Markdown."""
    ours, stock = row["ours"], row["stock"]
    if "error" in ours:
        cells = [f"**fails**: {ours['error']}"] + [""] * 8
        return "| " + " | ".join([name, precision, *cells]) + " |"
    times = row.get("ms", {})
    stock_seconds = f"{stock['cpu_seconds']:.0f}" if "cpu_seconds" in stock else "fails"
    error = row.get("ours_error")
    runs = row.get("ours_run_error") or (f"error {error:.1e}" if error is not None else "")
    if "ported_run_error" in row:
        ported = row["ported_run_error"]
    elif row.get("same_bits"):
        ported = "same bits"
    else:
        ported = f"differs by {row.get('port_error', float('nan')):.1e}"
    stock_sqnr = f"{row['stock_sqnr']:.1f}" if "stock_sqnr" in row else "fails"
    cells = [
        f"{ours['pieces']}, {ours['share']:.0%}",
        f"{ours['bytes'] / 1e6:.2f}",
        f"{ours['cpu_seconds']:.1f} ({stock_seconds})",
        runs,
        ported,
        f"{row.get('ours_sqnr', float('nan')):.1f} ({stock_sqnr})",
        f"{times['ours']:.2f}" if "ours" in times else "",
        f"{times['stock']:.2f}" if "stock" in times else "stock fails",
        f"{times['stock'] / times['ours']:.2f} x" if {"stock", "ours"} <= times.keys() else "",
    ]
    return "| " + " | ".join([name, precision, *cells]) + " |"


def page(results: dict[str, Any]) -> str:
    rows = [line(*key.split(), row) for key, row in sorted(results.items())]
    failures = [
        f"- {key}: the stock flow fails: `{message}`"
        for key, row in sorted(results.items())
        if (message := row["stock"].get("error") or row.get("stock_run_error"))
    ]
    head = ("model", "", "pieces, share in XNNPACK", *HEADER[3:])
    return "\n".join(
        [
            "# The zoo",
            "",
            "Made by `make zoo`. Every model of the zoo with seeded random weights, compiled by "
            "Penstock and by the stock flow of executorch 1.5.1 from the same weights, example "
            "inputs and calibration data, and run on four samples. These rows were measured on a "
            "machine busy with other work: times are the best single runs.",
            "",
            "- *compile*: CPU seconds with one thread of torch, imports and the model apart",
            "- *on ours*: largest difference from eager PyTorch, in parts of the output's range",
            "- *on stock's runtime*: our file there, against our file here",
            "- *SQNR*: against eager PyTorch, of the worst output; in brackets the stock flow's",
            f"- *ms*: best of the turns of one interleaved run, {THREADS} thread; *ratio*: stock's "
            "time over ours",
            "",
            "| " + " | ".join(head) + " |",
            "|" + " --- |" * len(head),
            *rows,
            "",
            *(["Where the stock flow fails:", "", *failures, ""] if failures else []),
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
