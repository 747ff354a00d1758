"""The results of ``benchmarks.zoo`` as ``docs/zoo.md``."""

from __future__ import annotations

from collections.abc import Callable
from math import isinf
from typing import Any

HEAD = (
    "model", "precision", "pieces, share in XNNPACK", "size, MB (stock)", "compile, s (stock)",
    "on ours", "on stock's runtime", "SQNR, dB (stock)", "ms, ours", "ms, stock's file", "ratio",
)  # fmt: skip
NONE = "–"


def page(results: dict[str, Any]) -> str:
    rows: dict[str, dict[str, Any]] = results["rows"]
    failures = [
        f"- {key}: `{message}`" for key, row in rows.items() if (message := stock_failure(row))
    ]
    return "\n".join(
        [
            "# The zoo",
            "",
            "Made by `make zoo`. Every model of the zoo with seeded random weights, "
            "EfficientNet-Lite0 with its trained ones, compiled by Penstock and by the stock "
            "flow of the `executorch` package from the same weights, example "
            "inputs and calibration data, and run on four samples.",
            "",
            *(f"- {key}: {value}" for key, value in results["machine"].items()),
            "",
            "The columns:",
            "",
            "- *compile*: CPU seconds with one thread of torch, imports and the model apart, while "
            "the other core compiles another file; the stock flow is stopped when a file is not "
            f"done after {results['stock limit']:.0f} s",
            "- *on ours*: largest difference from eager PyTorch, in parts of the output's range",
            "- *on stock's runtime*: our file there, against our file here",
            "- *SQNR*: against eager PyTorch, of the worst output; in brackets the stock flow's "
            "(*float* where its q8 file holds the weights in float)",
            "- *ms*: best of the turns of one interleaved run, 1 thread; *ratio*: stock's time "
            "over ours",
            "",
            "| " + " | ".join(HEAD) + " |",
            "|" + " --- |" * len(HEAD),
            *(line(key, rows) for key in rows),
            "",
            *(["Where the stock flow gives no answer:", "", *failures, ""] if failures else []),
        ]
    )


def line(key: str, rows: dict[str, dict[str, Any]]) -> str:
    """The row ``key`` of the table in Markdown; no cell is empty."""
    row = rows[key]
    ours, stock = row["ours"], row["stock"]
    name, precision = key.split()
    remark = ", float" if precision == "q8" and _as_large(stock, rows.get(f"{name} fp32")) else ""
    if "error" in ours:
        cells = [f"**fails**: {ours['error']}", *[NONE] * (len(HEAD) - 3)]
    else:
        cells = [
            f"{ours['pieces']}, {ours['share']:.0%}",
            f"{_megabytes(ours)} ({_of_stock(stock, _megabytes)})",
            f"{ours['cpu_seconds']:.1f} ({_of_stock(stock, _seconds)})",
            *_runs(row, remark),
            *_times(row),
        ]
    return "| " + " | ".join([name, precision, *cells]) + " |"


def _as_large(stock: dict[str, Any], floating: dict[str, Any] | None) -> bool:
    """Whether the stock flow's q8 file is about as large as its fp32 one, of more than a few KB."""
    if floating is None or "bytes" not in stock or "bytes" not in floating["stock"]:
        return False
    return bool(stock["bytes"] > max(1e5, 0.95 * floating["stock"]["bytes"]))


def stock_failure(row: dict[str, Any]) -> str | None:
    """Why there is no answer from the stock flow's file, if so."""
    message: str | None = row["stock"].get("error") or row.get("stock_run_error")
    return message


def _of_stock(stock: dict[str, Any], show: Callable[[dict[str, Any]], str]) -> str:
    error = stock.get("error")
    if error is None:
        return show(stock)
    return error.partition(",")[0] if error.startswith("not ") else "fails"


def _megabytes(flow: dict[str, Any]) -> str:
    return f"{flow['bytes'] / 1e6:.3g}" if flow["bytes"] < 1e6 else f"{flow['bytes'] / 1e6:.2f}"


def _seconds(flow: dict[str, Any]) -> str:
    return f"{flow['cpu_seconds']:.1f}"


def _runs(row: dict[str, Any], remark: str) -> list[str]:
    """How our file runs on ours and on stock's runtime, and the accuracy of both; ``remark`` on
    the stock flow's."""
    ours = row.get("ours_run_error") or f"error {row['ours_error']:.1e}"
    if "ported_run_error" in row:
        ported = f"**fails**: {row['ported_run_error']}"
    elif "same_bits" not in row:
        ported = NONE
    else:
        ported = "same bits" if row["same_bits"] else f"differs by {row['port_error']:.1e}"
    ratios = [_decibel(row.get(f"{label}_sqnr")) for label in ("ours", "stock")]
    return [ours, ported, f"{ratios[0]} ({ratios[1]}{remark})"]


def _decibel(ratio: float | None) -> str:
    if ratio is None:
        return NONE
    return "exact" if isinf(ratio) else f"{ratio:.1f}"


def _times(row: dict[str, Any]) -> list[str]:
    times = row.get("ms", {})
    ours, stock = times.get("ours"), times.get("stock")
    return [
        NONE if ours is None else _milliseconds(ours),
        NONE if stock is None else _milliseconds(stock),
        NONE if ours is None or stock is None else f"{stock / ours:.2f} x",
    ]


def _milliseconds(time: float) -> str:
    return f"{time:.2f}" if time >= 0.1 else f"{time:.4f}"
