"""What was measured, as plain data: :class:`BenchReport`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.notebook import Table, render
from penstock.tools.bench.contest import Spread

#: A runtime whose turns differ by more (the quartiles' distance, of the median) was disturbed.
STEADY = 0.15
#: A float file that is farther from eager than this, in dB, is of another model.
ALIEN = 20.0


@dataclass(frozen=True)
class Row:
    """A file in a runtime. ``times_ms`` are those of its turns; ``ratio`` is its time over that of
    the first row with as many threads. ``growth_mb`` is what loading and one run add to the
    process's peak memory ``peak_mb``; ``sqnr_db`` is against eager, of the worst output on the
    worst sample. What is not known is None; ``error`` says why there are no times."""

    runtime: str
    title: str
    file: str
    precision: str
    threads: int
    best_ms: float | None
    times_ms: Spread | None
    ratio: Spread | None
    turns: int
    load_ms: float | None
    growth_mb: float | None
    peak_mb: float | None
    sqnr_db: float | None
    error: str | None = None


@dataclass(frozen=True)
class BenchReport:
    """All rows, what they were measured on, and what to mind. ``seconds`` went to the turns of each
    of the ``launches``; ``samples`` were given to each runtime."""

    machine: dict[str, str]
    seconds: float
    launches: int
    samples: int
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def _repr_html_(self) -> str:
        headings = ("runtime", "file", "", "threads", "ms", "times the first row's", "load, ms")
        rows = [
            (
                row.title, row.file, row.precision, row.threads, _number(row.best_ms),
                row.error or _ratio(row.ratio), _number(row.load_ms),
            )
            for row in self.rows
        ]  # fmt: skip
        return render(Table("Bench", headings, rows, "; ".join(self.warnings)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def warnings_about(rows: Sequence[Row]) -> list[str]:
    """Lines about rows that say less than they seem to."""
    spreads = [(t.high - t.low) / t.median for row in rows if (t := row.times_ms) is not None]
    found = []
    if max(spreads, default=0.0) > STEADY:
        found.append(
            f"from turn to turn a time varied by up to {max(spreads):.0%} (quartiles' distance): "
            "something else used the machine"
        )
    alien = {
        row.file: row.sqnr_db
        for row in rows
        if row.precision == "float" and row.sqnr_db is not None and row.sqnr_db < ALIEN
    }
    found += [
        f"{file} is {ratio:.1f} dB from the model: was it compiled from other weights?"
        for file, ratio in alien.items()
    ]
    return found
