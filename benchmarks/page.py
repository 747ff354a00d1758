"""The figures of ``benchmarks.run`` as ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    models = results["models"]
    parts = [
        "# Benchmarks",
        "",
        "Made by `make bench`. Penstock against the stock runtime and flow of the `executorch` "
        "package, both with the same XNNPACK library, from the same weights, inputs and "
        "calibration data. What is compared was measured by turns (A B B A ...) in one run, each "
        "runtime in a process of its own that is kept alive. A ratio is the stock time over ours: "
        "above 1 is faster than stock. Times are the best run's, and a ratio is that of the best "
        "runs; in brackets are the quartiles of the ratio from turn to turn, which other work on "
        "the machine widens.",
        "",
        *(f"- {key}: {value}" for key, value in machine.items()),
    ]
    for threads in (1, 2):
        rows = [_latency(key, row, threads) for key, row in models.items()]
        parts += [
            "",
            f"## Latency, {threads} thread{'s' if threads > 1 else ''}",
            "",
            *_table(
                (
                    "model", "", "ours, ms", "stock, ms", "ratio",
                    "our file on the stock runtime, ms", "ratio",
                ),
                rows,
            ),
        ]  # fmt: skip
    parts += [
        "",
        "## Compiling",
        "",
        "CPU seconds in one process with one thread of torch, imports and the making of the model "
        "apart; growth of the process's peak memory while it compiles.",
        "",
        *_table(
            (
                "model", "", "pieces, nodes outside", "stock's", "ours, s", "stock, s", "ratio",
                "memory, MB (stock)", "file, MB (stock)",
            ),
            [_compile(key, row) for key, row in models.items()],
        ),
        "",
        "## Memory of a run",
        "",
        "Peak resident size of a process that loads the file and runs it once, on one thread, and "
        "how much of that loading and running added. The stock runtime's Python package brings "
        "torch with it.",
        "",
        *_table(
            ("model", "", "ours, MB", "added, MB", "stock, MB", "added, MB"),
            [_memory(key, row) for key, row in models.items()],
        ),
    ]  # fmt: skip
    if "starts" in results:
        starts, overhead = results["starts"], results["overhead"]
        parts += [
            "",
            "## Start and overhead",
            "",
            f"- From the start of `xnn_executor_runner` to MobileNetV2's answer: "
            f"{starts['ours']['best']:.2f} s at best, {starts['ours']['cpu']:.2f} s of CPU; the "
            f"same with the stock runtime from Python: {starts['stock']['best']:.2f} s and "
            f"{starts['stock']['cpu']:.2f} s.",
            f"- One whole call of a program that adds two numbers, the overhead and little else: "
            f"{overhead['ours']:.1f} µs; with the stock runtime {overhead['stock']:.1f} µs.",
        ]
    return "\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _latency(key: str, row: dict[str, Any], threads: int) -> list[str]:
    name, precision = key.split()
    found = row.get(f"threads {threads}", {})
    cells = [name, precision]
    for label in ("ours", "stock"):
        cells.append(f"{found[label]['best']:.2f}" if label in found else "fails")
    cells.append(_ratio(found.get("ours", {})))
    ported = found.get("ported", {})
    cells += [f"{ported['best']:.2f}" if ported else "fails", _ratio(ported)]
    return cells


def _ratio(found: dict[str, Any]) -> str:
    if "ratio" not in found:
        return ""
    low, high = found["spread"]
    return f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _compile(key: str, row: dict[str, Any]) -> list[str]:
    ours, stock = row["files"]["ours"], row["files"]["stock"]
    ok = "error" not in ours, "error" not in stock
    return [
        *key.split(),
        f"{ours['pieces']}, {ours['outside']}" if ok[0] else "fails",
        f"{stock['pieces']}, {stock['outside']}" if ok[1] else "fails",
        f"{ours['cpu_seconds']:.1f}" if ok[0] else "fails",
        f"{stock['cpu_seconds']:.1f}" if ok[1] else "fails",
        f"{stock['cpu_seconds'] / ours['cpu_seconds']:.1f}" if all(ok) else "",
        _pair(ours, stock, ok, "growth_kib", 1024 / 1e6, 0),
        _pair(ours, stock, ok, "bytes", 1e-6, 2),
    ]


def _pair(
    ours: dict[str, Any], stock: dict[str, Any], ok: tuple[bool, bool], field: str, unit: float,
    digits: int,
) -> str:  # fmt: skip
    first, second = (
        f"{found[field] * unit:.{digits}f}" if fine else "fails"
        for found, fine in zip((ours, stock), ok, strict=True)
    )
    return f"{first} ({second})"


def _memory(key: str, row: dict[str, Any]) -> list[str]:
    memory = row.get("threads 1", {}).get("memory", {})
    cells = key.split()
    for label in ("ours", "stock"):
        for field in ("peak_kib", "growth_kib"):
            cells.append(f"{memory[label][field] * 1024 / 1e6:.0f}" if label in memory else "fails")
    return cells
