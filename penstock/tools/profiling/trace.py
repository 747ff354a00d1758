"""A profile as trace events, which Perfetto and chrome://tracing open.

The format: docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Complete events
(``X``) have their begin and their duration in microseconds; those of one thread nest. Durations
were measured, not begins: what is in a call lies end to end from its begin, and what is left at its
end belongs to none of its parts.

Perfetto counts whole nanoseconds, drops an event that goes even one of them beyond the one around
it, and takes one of no length for nested in the one before. So everything here is laid out in whole
nanoseconds, one at least.
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
    begin = 0
    for number, call in enumerate(calls[:MOST_CALLS]):
        profile, length = call.profile, _nanoseconds(call.seconds)
        events.append(_event(profile.method, "method", begin, length, {"call": number}))
        position, end = begin, begin + length
        for one in profile.instructions:
            length = min(_nanoseconds(one.seconds), end - position)
            if one.calls and length:
                events += _instruction(one, position, length, work)
                position += length
        begin = end
    text = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"program": report.path, "threads": report.threads, "engine": report.engine},
    }
    return json.dumps(text)


def _nanoseconds(seconds: float) -> int:
    return max(1, round(1e9 * seconds))


def _instruction(
    one: InstructionProfile, begin: int, length: int, work: Mapping[tuple[int, int], Row]
) -> Iterator[dict[str, Any]]:
    about = _about(UNKNOWN if one.nodes else one.origin, one.calls, None)
    yield _event(one.label, "instruction", begin, length, about)
    end = begin + length
    for node in one.nodes:
        number = f" #{node.position}" if node.position >= 0 else ""
        row = work.get((one.position, node.position))
        more = {**_about(node.origin, node.calls, row), "ran": ", ".join(node.operators)}
        length = min(_nanoseconds(node.seconds), end - begin)
        if length:
            yield _event(f"{node.kind}{number}", "node", begin, length, more)
            begin += length


def _about(origin: Origin, calls: int, row: Row | None) -> dict[str, Any]:
    named = {"module": origin.module, "source": origin.source, "operator": origin.operator}
    found: dict[str, Any] = {key: value for key, value in named.items() if value}
    if calls != 1:
        found["calls"] = calls
    if row is not None and row.work is not None:
        found |= {"engine": row.engine, "operations": row.work.operations, "bytes": row.bytes}
    return found


def _event(
    name: str, category: str, begin: int, length: int, args: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": begin / 1000,
        "dur": length / 1000,
        "pid": _PROCESS,
        "tid": _THREAD,
        "args": dict(args),
    }


def _named(what: str, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": _THREAD, "args": {"name": name}}
