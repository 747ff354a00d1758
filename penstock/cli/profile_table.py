"""A profile as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import print_table
from penstock.text import counted, printable
from penstock.tools.profiling.groups import GROUPINGS, Group, by_module, row_name
from penstock.tools.profiling.machine import Peaks
from penstock.tools.profiling.report import ProfileReport

#: XNNPACK's clock counts microseconds: of shorter times there are no rates.
CLOCK = 2e-6


def show(report: ProfileReport, by: str, *, top: int | None, depth: int) -> None:
    """Prints ``report``, ``top`` rows of it, grouped ``by``; ``depth`` levels of modules."""
    console = SafeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # what reads it has no edge
    low, middle, high = (f"{1e3 * time:.3f}" for time in report.quartiles)
    ordinary = "" if report.ordinary is None else f"; not measured: {1e3 * report.ordinary:.3f} ms"
    console.print(
        printable(
            f"{report.path}, method {report.method}: {1e3 * report.seconds:.3f} ms a call, the sum"
            f" of the parts' first deciles over {counted(report.calls, 'call')} (quartiles of"
            f" whole calls: {low}, {middle}, {high} ms{ordinary}); threads: {report.threads},"
            f" engine: {report.engine}"
        ),
        markup=False,
    )
    if report.mind:
        console.print(f"note: {report.mind}", markup=False)
    console.print(machine_line(report.peaks), markup=False)
    groups = by_module(report, depth) if by == "module" else GROUPINGS[by](report)
    names = _names(report, by)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ms", "share", "GFLOP/s", "GB/s", "of roof"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(by, no_wrap=True)
    if by == "node":
        table.add_column("module", no_wrap=True)
        table.add_column("ran as", no_wrap=True)
    shown = groups if top is None else groups[:top]
    for position, group in enumerate(shown):
        table.add_row(*_figures(group), *map(_plain, names(position, group)))
    print_table(console, table, ("node", "module", "operator", "source", "ran as"))
    if len(groups) > len(shown):
        rest = sum(group.share for group in groups[len(shown) :]) if by != "module" else None
        share = "" if rest is None else f", {rest:.1%} of the time"
        console.print(f"and {len(groups) - len(shown)} more{share} (--top 0 shows all)")
    if not any(row.origin.operator for row in report.rows):
        console.print(
            "The file does not say which modules it was made of: Penstock's compiler writes that."
        )


def machine_line(peaks: Peaks) -> str:
    """What the machine can do, in one line."""
    parts = [
        f"{name} {value / 1e9:.0f} {unit}"
        for name, value, unit in (
            ("fp32", peaks.fp32, "GFLOP/s"),
            ("int8", peaks.int8, "GOP/s"),
            ("memory", peaks.memory, "GB/s"),
            ("cache", peaks.cache, "GB/s"),
        )
        if value is not None
    ]
    busy = " (measured while it was busy)" if peaks.busy else ""
    return f"{peaks.processor}, threads: {peaks.threads}, can do{busy}: {', '.join(parts)}"


def _figures(group: Group) -> list[str]:
    seconds = group.seconds
    figures = [f"{1e3 * seconds:.3f}", f"{group.share:.1%}"]
    if seconds < CLOCK:
        return [*figures, "", "", ""]
    return [
        *figures,
        f"{group.operations / seconds / 1e9:.1f}" if group.operations else "",
        f"{group.bytes / seconds / 1e9:.1f}" if group.bytes else "",
        f"{group.least_seconds / group.known_seconds:.0%}" if group.known_seconds else "",
    ]


def _names(report: ProfileReport, by: str) -> Callable[[int, Group], list[str]]:
    """What the last columns say of the group at a position."""
    rows = sorted(report.rows, key=lambda row: -row.seconds)

    def of_node(position: int, group: Group) -> list[str]:
        row = rows[position]
        ran = f"{row.engine}: {', '.join(row.operators)}" if row.operators else row.engine
        return [row_name(row), row.origin.module, ran]

    def of_module(position: int, group: Group) -> list[str]:
        name = group.name or "the model"
        return ["  " * group.depth + (name.rpartition(".")[2] if group.depth > 1 else name)]

    named = {"node": of_node, "module": of_module}
    return named.get(by, lambda position, group: [group.name])


def _plain(text: str) -> str:
    return escape(printable(text))
