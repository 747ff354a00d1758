"""What operators write to, by their schemas."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Node


def is_write(node: Node) -> bool:
    """Whether an operator changes one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def written_by(node: Node) -> Iterator[Node]:
    """The tensors that an operator writes to, members of lists included."""
    schema = node.target._schema  # type: ignore[union-attr]
    pairs = [*zip(schema.arguments, node.args, strict=False)]
    pairs += [(a, node.kwargs[a.name]) for a in schema.arguments if a.name in node.kwargs]
    for argument, value in pairs:
        if argument.alias_info is not None and argument.alias_info.is_write:
            items = value if isinstance(value, (list, tuple)) else (value,)
            yield from (item for item in items if isinstance(item, Node))
