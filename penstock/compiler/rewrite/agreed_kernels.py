"""Operators whose kernels on the stock runtime answer otherwise than PyTorch, for some arguments,
out of operators on which all agree."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from penstock.compiler.fx.arguments import arguments

aten = torch.ops.aten


def joins_types(node: Node) -> bool:
    """Bytes are copied there as they are, where both types have as many."""
    return len({item.meta["val"].dtype for item in arguments(node)["tensors"]}) > 1


def cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    dtype = reduce(torch.promote_types, (item.dtype for item in tensors))
    return torch.cat([item.to(dtype) for item in tensors], dim)


def is_of_signed_integers(node: Node) -> bool:
    """The remainder has the dividend's sign there, as in C."""
    dtype: torch.dtype = node.meta["val"].dtype
    return not dtype.is_floating_point and dtype.is_signed


def remainder(x: Any, divisor: Any) -> Tensor:
    """With the divisor's sign."""
    dtype = torch.result_type(x, divisor)
    if not isinstance(x, Tensor):
        x = torch.full_like(divisor, x, dtype=dtype)
    rest = torch.fmod(x.to(dtype), divisor)
    if isinstance(divisor, Tensor):
        other_sign = (rest < 0).logical_xor(divisor < 0) & (rest != 0)
    else:
        other_sign = rest < 0 if divisor > 0 else rest > 0
    return torch.where(other_sign, rest + divisor, rest)


def chooses_a_number_of_another_type(node: Node) -> bool:
    """A tensor without dimensions counts in the type of the result there."""
    values = [item.meta["val"] for item in node.args[1:3] if isinstance(item, Node)]
    return len({value.dtype for value in values}) > 1 and any(value.dim() == 0 for value in values)


def where(condition: Tensor, x: Tensor, other: Tensor) -> Tensor:
    dtype = torch.result_type(x, other)
    return torch.where(condition, x.to(dtype), other.to(dtype))


def adds_a_multiple_to_one(node: Node) -> bool:
    """The operands change places there, and ``alpha`` stays where it is."""
    x = node.args[0]
    if not isinstance(x, Node) or arguments(node)["alpha"] == 1:
        return False
    return bool(x.meta["val"].numel() == 1)


def add(x: Tensor, other: Tensor, *, alpha: float) -> Tensor:
    return torch.add(x, other * alpha)
