"""Times for a description, out of the JSON that ``penstock profile --json`` prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import InputError
from penstock.files import readable
from penstock.tools.describe.program import MethodDescription, ProgramDescription

#: Of half a million nodes.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Timing:
    """What a node (or an instruction, where ``node`` is -1) cost in a call. ``with_nodes`` are
    nodes that ran with it, whose time is in its."""

    instruction: int
    node: int
    seconds: float
    share: float
    engine: str = ""
    operators: tuple[str, ...] = ()
    with_nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Timings:
    """The times of a call of ``method``, which took ``seconds`` with so many ``threads``."""

    method: str
    seconds: float
    threads: int
    engine: str
    rows: tuple[Timing, ...]


def read_timings(path: str | Path, program: ProgramDescription) -> Timings:
    """The times in the file ``path``, which are of ``program``.

    Raises InputError if the file cannot be read, is no profile, or is of another program.
    """
    data: Any = None
    try:
        if (file := readable(path, "profile")).stat().st_size <= _MOST_BYTES:
            data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the profile {path}: {error.strerror or error}; make one with"
            f" penstock profile {program.path} --json"
        ) from None
    except (ValueError, RecursionError):
        pass
    try:
        found = _timings(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(
            f"{path} is not a profile; make one with penstock profile {program.path} --json"
        ) from None
    method = next((m for m in program.methods if m.name == found.method), None)
    if method is None or not all(_fits(row, method) for row in found.rows):
        raise InputError(
            f"the profile {path} is not of {program.path}, whose instructions or nodes are others;"
            f" make one with penstock profile {program.path} --json"
        )
    return found


def _timings(data: Mapping[str, Any]) -> Timings:
    rows = tuple(
        Timing(
            int(row["instruction"]),
            int(row["node"]),
            _finite(row["seconds"]),
            _finite(row["share"]),
            str(row.get("engine", "")),
            tuple(map(str, row.get("operators", ()))),
            tuple(map(int, row.get("with_nodes", ()))),
        )
        for row in data["rows"]
        if row["instruction"] >= 0
    )
    return Timings(
        str(data["method"]), _finite(data["seconds"]), int(data["threads"]), str(data["engine"]),
        rows,
    )  # fmt: skip


def _finite(value: Any) -> float:
    """JSON of Python's has infinities, and pages cannot read them."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _fits(row: Timing, method: MethodDescription) -> bool:
    if row.instruction >= len(method.instructions):
        return False
    delegate = method.instructions[row.instruction].delegate
    nodes = (row.node, *row.with_nodes)
    if nodes == (-1,):
        return True
    count = 0 if delegate is None else len(method.delegates[delegate].nodes)
    return all(0 <= node < count for node in nodes)
