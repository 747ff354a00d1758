"""A profile as trace events, which Perfetto and chrome://tracing open.

The format: docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Complete events
(``X``) have their begin and their duration in microseconds; those of one thread nest. Durations
were measured, not begins: what is in a call lies end to end from its begin, and what is left at its
end belongs to none of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.formats.sources import UNKNOWN, Origin
from penstock.runtime.profile import InstructionProfile
from penstock.tools.profiling.measure import Call
from penstock.tools.profiling.report import ProfileReport, Row

#: Calls beyond so many say nothing new.
MOST_CALLS = 100
_PROCESS = _THREAD = 1


def trace(report: ProfileReport, calls: Sequence[Call]) -> str:
    """The JSON text of the first calls: method, instructions, nodes of delegates."""
    work = {(row.instruction, row.node): row for row in report.rows}
    events: list[dict[str, Any]] = [
        _named("process_name", f"penstock {report.path}"),
        _named("thread_name", f"method {report.method}"),
    ]
    begin = 0.0
    for number, call in enumerate(calls[:MOST_CALLS]):
        profile = call.profile
        events.append(_event(profile.method, "method", begin, call.seconds, {"call": number}))
        position = begin
        for one in profile.instructions:
            events += _instruction(one, position, work)
            position += one.seconds
        begin += call.seconds
    text = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"program": report.path, "threads": report.threads, "engine": report.engine},
    }
    return json.dumps(text)


def _instruction(
    one: InstructionProfile, begin: float, work: Mapping[tuple[int, int], Row]
) -> Iterator[dict[str, Any]]:
    if not one.calls:
        return
    about = _about(UNKNOWN if one.nodes else one.origin, one.calls, None)
    yield _event(one.label, "instruction", begin, one.seconds, about)
    end = begin + one.seconds
    for node in one.nodes:
        number = f" #{node.position}" if node.position >= 0 else ""
        row = work.get((one.position, node.position))
        more = {**_about(node.origin, node.calls, row), "ran": ", ".join(node.operators)}
        seconds = min(node.seconds, end - begin)
        yield _event(f"{node.kind}{number}", "node", begin, seconds, more)
        begin += seconds


def _about(origin: Origin, calls: int, row: Row | None) -> dict[str, Any]:
    named = {"module": origin.module, "source": origin.source, "operator": origin.operator}
    found: dict[str, Any] = {key: value for key, value in named.items() if value}
    if calls != 1:
        found["calls"] = calls
    if row is not None and row.work is not None:
        found |= {"engine": row.engine, "operations": row.work.operations, "bytes": row.bytes}
    return found


def _event(
    name: str, category: str, begin: float, seconds: float, args: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": round(1e6 * begin, 3),
        "dur": round(1e6 * seconds, 3),
        "pid": _PROCESS,
        "tid": _THREAD,
        "args": dict(args),
    }


def _named(what: str, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": _THREAD, "args": {"name": name}}
