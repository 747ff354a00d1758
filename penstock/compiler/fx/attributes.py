"""Parameters, buffers and constants of a graph module, by the names that get_attr nodes have."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from penstock.errors import UnsupportedError


def attribute(module: torch.nn.Module, target: str) -> torch.Tensor:
    """The parameter, buffer or constant that a get_attr node names."""
    result: Any = module
    for part in target.split("."):
        result = getattr(result, part)
    if not isinstance(result, torch.Tensor):
        raise UnsupportedError(f"{target} is a {type(result).__name__}, not a tensor")
    return result


_ZEROS = {
    torch.ops.aten.zeros.default, torch.ops.aten.zeros_like.default,
    torch.ops.aten.new_zeros.default,
}  # fmt: skip


def is_zero(module: torch.nn.Module, node: Node) -> bool:
    """Whether a tensor is known to be zero everywhere."""
    if node.op == "get_attr":
        return not bool(attribute(module, str(node.target)).any())
    if node.target is torch.ops.aten.full.default:
        return bool(node.args[1] == 0)
    return node.target in _ZEROS
