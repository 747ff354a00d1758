"""At which operator of a model something went wrong, read off the stack frames."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch.fx import Node

from penstock.compiler.fx.origins import module_path, source_line
from penstock.faults import Site


def locate(frames: list[FrameType]) -> Site | None:
    """The operator that the innermost of Penstock's ``frames`` was busy with, of those that name
    one. A node of a delegate's graph stands for the operator that it was lowered from."""
    for position, frame in enumerate(frames):
        for value in _candidates(frame):
            node = _operator(value, frames[position:])
            if node is not None:
                return Site(str(node.target), module_path(node), source_line(node))
    return None


def _candidates(frame: FrameType) -> Iterator[Any]:
    """The frame's local values, likely ones first."""
    values = frame.f_locals
    yield from (values[name] for name in ("node", "call", "user", "n") if name in values)
    yield from values.values()


def _operator(value: Any, frames: list[FrameType]) -> Node | None:
    if isinstance(value, Node):
        return value if value.op == "call_function" else None
    inner = getattr(value, "node", None) if type(value).__module__.startswith("penstock") else None
    if isinstance(inner, Node):  # a decision about a node
        return inner
    handle = getattr(value, "debug_handle", None)
    if isinstance(handle, int) and handle > 0:
        for frame in frames:
            group = frame.f_locals.get("group")
            if isinstance(group, (tuple, list)) and handle <= len(group):
                found = group[handle - 1]
                return found if isinstance(found, Node) else None
    return None
