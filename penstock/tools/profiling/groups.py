"""Rows of a profile grouped: by operator, by line of source, by module of the user's model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from penstock.tools.profiling.report import ProfileReport, Row

#: What rows of unknown origin are called when modules or lines are asked for.
NOWHERE = "(no module)"
NO_LINE = "(no line)"


@dataclass(frozen=True)
class Group:
    """Rows together. ``depth`` is that of a module below the model, whose name is empty; times,
    operations and bytes are of one call, ``least_seconds`` of those rows where it is known, which
    took ``known_seconds``."""

    name: str
    depth: int
    rows: int
    seconds: float
    share: float
    operations: int
    bytes: int
    least_seconds: float
    known_seconds: float


def by_node(report: ProfileReport) -> list[Group]:
    """Each row by itself, the longest first."""
    rows = sorted(report.rows, key=lambda row: -row.seconds)
    return [_group(row_name(row), 0, [row]) for row in rows]


def by_operator(report: ProfileReport) -> list[Group]:
    """By the operator of the user's model, or what ran where that is not known."""
    return _sorted(report.rows, lambda row: row.operator)


def by_source(report: ProfileReport) -> list[Group]:
    """By the line of the user's source."""
    return _sorted(report.rows, lambda row: row.origin.source or NO_LINE)


def by_module(report: ProfileReport, depth: int | None = None) -> list[Group]:
    """The hierarchy of the user's modules, each with all that is below it, the longest first among
    its siblings; ``depth`` levels of it."""
    children: dict[str, dict[str, list[Row]]] = {}
    for row in report.rows:
        path = row.origin.module
        known = bool(path or row.origin.operator)
        parts = path.split(".") if path else []
        if not known:
            children.setdefault("", {}).setdefault(NOWHERE, []).append(row)
        for end in range(1, len(parts) + 1):
            parent, name = ".".join(parts[: end - 1]), ".".join(parts[:end])
            children.setdefault(parent, {}).setdefault(name, []).append(row)

    def below(parent: str, level: int) -> Iterable[Group]:
        groups = [_group(name, level, rows) for name, rows in children.get(parent, {}).items()]
        for group in sorted(groups, key=lambda group: -group.seconds):
            yield group
            if depth is None or level < depth:
                yield from below(group.name, level + 1)

    return [_group("", 0, report.rows), *below("", 1)]


GROUPINGS: dict[str, Callable[[ProfileReport], list[Group]]] = {
    "node": by_node,
    "operator": by_operator,
    "module": by_module,
    "source": by_source,
}


def row_name(row: Row) -> str:
    """What a row is called in a table: ``CONV_2D #12 (+2)`` for a node that two more ran with."""
    number = f" #{row.node}" if row.node >= 0 else ""
    more = f" (+{len(row.with_nodes)})" if row.with_nodes else ""
    return f"{row.label}{number}{more}"


def _sorted(rows: Iterable[Row], key: Callable[[Row], str]) -> list[Group]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    groups = [_group(name, 0, members) for name, members in found.items()]
    return sorted(groups, key=lambda group: -group.seconds)


def _group(name: str, depth: int, rows: Iterable[Row]) -> Group:
    rows = list(rows)
    known = [row for row in rows if row.least_seconds is not None]
    return Group(
        name,
        depth,
        len(rows),
        sum(row.seconds for row in rows),
        sum(row.share for row in rows),
        sum(round(row.work.operations * row.calls) for row in rows if row.work is not None),
        sum(round(row.bytes * row.calls) for row in rows),
        sum(row.least_seconds or 0.0 for row in known),
        sum(row.seconds for row in known),
    )
