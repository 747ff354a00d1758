"""Parameters, buffers and constants of a graph module, by the names that get_attr nodes have."""

from __future__ import annotations

from typing import Any

import torch

from penstock.errors import UnsupportedError


def attribute(module: torch.nn.Module, target: str) -> torch.Tensor:
    """The parameter, buffer or constant that a get_attr node names."""
    result: Any = module
    for part in target.split("."):
        result = getattr(result, part)
    if not isinstance(result, torch.Tensor):
        raise UnsupportedError(f"{target} is a {type(result).__name__}, not a tensor")
    return result
