"""The arguments of an ATen call by name."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node


def arguments(node: Node) -> dict[str, Any]:
    """Every argument of the call by its schema's name, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    result: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if not argument.kwarg_only and position < len(node.args):
            result[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            result[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            result[argument.name] = argument.default_value
    return result


def pair(value: int | list[int] | tuple[int, ...] | None, default: int = 1) -> tuple[int, int]:
    """A two-dimensional parameter that ATen also takes as one number or a list of one."""
    if value is None:
        return (default, default)
    if isinstance(value, int):
        return (value, value)
    if len(value) == 0:
        return (default, default)
    return (int(value[0]), int(value[-1]))


def as_list(value: Any) -> list[Any]:
    """An argument that ATen also takes as one number instead of a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
