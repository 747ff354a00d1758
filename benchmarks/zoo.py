"""``make zoo``: every model of the zoo, fp32 and q8, ours beside the stock flow -> docs/zoo.md.

    python -m benchmarks.zoo [MODEL ...]

Results are kept in ``build/measured/zoo.json``; with names given only these are made again.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.arguments import names_given
from benchmarks.flows import (
    answers,
    both_flows,
    relative_error,
    run_flow,
    same_bits,
    samples,
    sqnr,
)
from benchmarks.machine import describe
from benchmarks.whole_pages import write_page
from benchmarks.zoo_page import line, page
from penstock import zoo
from penstock.tools.bench.child import WorkerError
from penstock.tools.bench.contest import contest
from penstock.tools.bench.workers import Worker

FOLDER = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "zoo.md"
PRECISIONS = ("fp32", "q8")
THREADS = 1

#: Files that are compiled at a time, by processes of one thread each.
COMPILERS = 2

#: Seconds that the stock flow gets for one file. Most take it less than a quarter of that; one that
#: is not done then would take the whole table beyond its 45 minutes.
STOCK_LIMIT = 300.0

#: What is run: our file by our runtime, our file by the stock one, the stock file by the stock one.
RUNS = {
    "ours": ("penstock", "ours"),
    "ported": ("executorch", "ours"),
    "stock": ("executorch", "stock"),
}


def compiled(names: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Runs eager PyTorch and both flows for every model: for each file what the flows say."""
    with ThreadPoolExecutor(COMPILERS) as pool:
        found = list(pool.map(_compile, names))
    return {
        (name, precision): row
        for name, rows in zip(names, found, strict=True)
        for precision, row in zip(PRECISIONS, rows, strict=True)
    }


def _compile(name: str) -> list[dict[str, Any]]:
    start = time.perf_counter()
    run_flow("eager", name, str(FOLDER))
    rows = [both_flows(FOLDER, FOLDER, name, p, stock_limit=STOCK_LIMIT) for p in PRECISIONS]
    print(f"{name} compiled, {time.perf_counter() - start:.0f} s", flush=True)
    return rows


def measure(name: str, precision: str, files: dict[str, Any]) -> dict[str, Any]:
    """One row of the table; ``files`` is what the flows say."""
    row = dict(files)
    inputs, eager = samples(FOLDER, name)
    found: dict[str, list[list[np.ndarray]]] = {}
    with ExitStack() as stack:
        contestants = []
        workers = {
            label: stack.enter_context(Worker(runtime, THREADS))
            for label, (runtime, flow) in RUNS.items()
            if "error" not in row[flow]
        }
        for label, worker in workers.items():
            flow = RUNS[label][1]
            try:
                worker.load(label, FOLDER / f"{name}_{precision}_{flow}.pte", inputs[0])
                found[label] = answers(worker, label, inputs)
            except WorkerError as error:
                row[f"{label}_run_error"] = str(error)
                continue
            row[f"{label}_sqnr"] = sqnr(eager, found[label])
            row[f"{label}_error"] = relative_error(eager, found[label])
            contestants.append((label, worker, label))
        if {"ours", "ported"} <= found.keys():
            row["same_bits"] = same_bits(found["ours"], found["ported"])
            row["port_error"] = relative_error(found["ported"], found["ours"])
        found.clear()
        if contestants:
            times = contest(contestants, seconds=3.0, block=0.05)
            row["ms"] = {label: times.best(label) for label, _, _ in contestants}
    return row


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "zoo.json"
    results: dict[str, Any] = json.loads(store.read_text()) if names and store.exists() else {}
    results["machine"] = describe()
    results["stock limit"] = STOCK_LIMIT
    rows = results.setdefault("rows", {})
    for (name, precision), files in compiled(names or zoo.names()).items():
        key = f"{name} {precision}"
        rows[key] = measure(name, precision, files)
        results["rows"] = rows = in_order(rows)
        store.write_text(json.dumps(results, indent=1))
        print(line(key, rows), flush=True)
    write_page(PAGE, page(results), [f"{n} {p}" for n in zoo.names() for p in PRECISIONS])


def in_order(rows: dict[str, Any]) -> dict[str, Any]:
    """The rows as the zoo names its models; those of models that are no more are dropped."""
    keys = [f"{name} {precision}" for name in zoo.names() for precision in PRECISIONS]
    return {key: rows[key] for key in keys if key in rows}


if __name__ == "__main__":
    main(names_given(__doc__, "MODEL", zoo.names()))
