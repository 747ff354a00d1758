"""The end of a compile, for people (a table) and for machines (a dictionary)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from penstock.cli.pipeline import Outcome
from penstock.text import counted

if TYPE_CHECKING:
    from penstock.compiler.quantize.accuracy import BudgetOutcome


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` prints."""
    delegation = outcome.lowered.delegation
    budget = _budget(outcome)
    return {
        "model": outcome.name,
        "path": str(outcome.path),
        "bytes": outcome.size,
        "etrecord": str(outcome.etrecord) if outcome.etrecord is not None else None,
        "quantization": outcome.scheme,
        "calibration": _calibration(outcome) or None,
        "accuracy_budget": None if budget is None else budget.as_dict(),
        "pieces": len(delegation.subgraphs),
        "nodes_delegated": len(delegation.delegated),
        "nodes_outside": [
            {**asdict(node), "reason": str(reason)} for node, reason in delegation.undelegated
        ],
        "share_delegated": delegation.share,
        "notices": [asdict(notice) for notice in outcome.lowered.notices],
        "seconds": {name: round(seconds, 4) for name, seconds in outcome.timings.items()},
        "agreement": [
            {"shape": list(a.shape), "sqnr_db": a.sqnr, "max_abs_difference": a.largest}
            for a in outcome.agreement
        ],
    }


def as_table(outcome: Outcome) -> Table:
    """What is printed otherwise."""
    delegation = outcome.lowered.delegation
    table = Table(title=escape(str(outcome.path)), show_header=False, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("size", megabytes(outcome.size))
    if outcome.etrecord is not None:
        table.add_row("ETRecord", escape(str(outcome.etrecord)))
    table.add_row("quantization", outcome.scheme or "none (float32)")
    if calibration := _calibration(outcome):
        table.add_row("calibration", calibration)
    if (budget := _budget(outcome)) is not None:
        first, *others = str(budget).splitlines()
        table.add_row("accuracy", escape("\n".join([first, *(line.strip() for line in others)])))
    pieces = counted(len(delegation.subgraphs), "piece")
    table.add_row("XNNPACK", f"{delegation.share:.1%} of the graph in {pieces}")
    for text in delegation.lines():
        table.add_row("outside", escape(text))
    report = outcome.lowered.quantization
    for notice in outcome.lowered.notices:
        if report is not None and notice.text == report.calibration:
            continue  # its row says so
        table.add_row("notice", escape(str(notice)))
    for a in outcome.agreement:
        shape = "x".join(map(str, a.shape)) or "scalar"
        table.add_row(
            "against eager", f"{shape}: SQNR {a.sqnr:.1f} dB, largest difference {a.largest:.3g}"
        )
    total = sum(outcome.timings.values())
    longest = sorted(outcome.timings.items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest)
    table.add_row("time", f"{total:.1f} s ({parts})")
    return table


def _budget(outcome: Outcome) -> BudgetOutcome | None:
    report = outcome.lowered.quantization
    return None if report is None else report.budget


def _calibration(outcome: Outcome) -> str:
    """What the int8 ranges come from."""
    report = outcome.lowered.quantization
    return "" if report is None else report.calibration.removeprefix("calibrated on ")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 100_000 else f"{size} bytes"
