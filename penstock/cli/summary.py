"""The end of a compile, for people (a table) and for machines (a dictionary)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from penstock.cli.pipeline import Outcome


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` prints."""
    delegation = outcome.lowered.delegation
    return {
        "model": outcome.name,
        "path": str(outcome.path),
        "bytes": outcome.size,
        "quantization": outcome.scheme,
        "pieces": len(delegation.subgraphs),
        "nodes_delegated": count(delegation.delegated),
        "nodes_outside": [
            {"node": str(node), "reason": str(reason)} for node, reason in delegation.undelegated
        ],
        "share_delegated": share(delegation),
        "seconds": {name: round(seconds, 4) for name, seconds in outcome.timings.items()},
        "agreement": [
            {"shape": list(a.shape), "sqnr_db": a.sqnr, "max_abs_difference": a.largest}
            for a in outcome.agreement
        ],
    }


def as_table(outcome: Outcome) -> Table:
    """What is printed otherwise."""
    delegation = outcome.lowered.delegation
    table = Table(title=str(outcome.path), show_header=False, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("size", megabytes(outcome.size))
    table.add_row("quantization", outcome.scheme or "none (float32)")
    table.add_row(
        "XNNPACK",
        f"{share(delegation):.1%} of the graph in {len(delegation.subgraphs)} "
        f"piece{'s' if len(delegation.subgraphs) != 1 else ''}",
    )
    for text in outside(delegation.undelegated):
        table.add_row("outside", text)
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


def share(delegation: Any) -> float:
    """The delegated part of the nodes, 0 to 1."""
    inside = count(delegation.delegated)
    whole = inside + len(delegation.undelegated)
    return inside / whole if whole else 0.0


def count(delegated: Any) -> int:
    return delegated if isinstance(delegated, int) else len(delegated)


def outside(undelegated: Any, limit: int = 12) -> list[str]:
    """``operator x count: reason``, the most frequent first."""
    groups = Counter((_operator(node), str(reason)) for node, reason in undelegated)
    lines = [
        f"{operator}{f' x {number}' if number > 1 else ''}: {reason}"
        for (operator, reason), number in groups.most_common(limit)
    ]
    if len(groups) > limit:
        lines.append(f"and {len(groups) - limit} kinds more (--json lists them)")
    return lines


def _operator(node: Any) -> str:
    target = getattr(node, "target", None)
    return str(target if target is not None else node)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 100_000 else f"{size} bytes"
