"""What a sweep says at its end beside passed and failed: how many programs came out how. The
figures of ``docs/operators.md`` are from there."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts: dict[str, Counter[str]] = {}
    reports = (r for group in terminalreporter.stats.values() for r in group)
    for report in reports:
        if getattr(report, "when", None) == "call":
            for name, value in report.user_properties:
                counts.setdefault(name, Counter())[value] += 1
    for name, found in counts.items():
        terminalreporter.section(f"{found.total()} programs, {name}")
        for value, count in found.most_common():
            terminalreporter.line(f"{count:6} {value}")
