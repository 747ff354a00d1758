"""Questions about the values of a graph that quantization asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.fx.arguments import arguments


def tensor_of(node: Node) -> torch.Tensor | None:
    """The fake tensor that stands for the node's result; ``None`` for other kinds of results."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def is_float32(node: Node) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and tensor.dtype == torch.float32


def is_constant(node: Node) -> bool:
    """Whether the node's value is known ahead of time: a parameter, a buffer or a constant."""
    return node.op == "get_attr"


def argument(node: Node, position: int) -> Any:
    """The argument at ``position`` of the operator's schema, defaults filled in."""
    values = list(arguments(node).values())
    return values[position] if position < len(values) else None


def nodes_in(value: Any) -> Iterator[Node]:
    """The nodes of an argument: itself, or those of a list of tensors."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from nodes_in(item)
