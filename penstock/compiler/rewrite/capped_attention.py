"""Attention whose scores are bounded, as Gemma 2 writes it out: ``softmax(cap * tanh(query @
key.T * scale / cap) + mask) @ value``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.fx.finiteness import SOFTMAXES

aten = torch.ops.aten

_TIMES = (aten.mul.Tensor, aten.mul.Scalar)
_OVER = (aten.div.Tensor, aten.div.Scalar)


@dataclass(frozen=True)
class CappedAttention:
    """``scale`` is that of the products, ``cap`` the bound; ``mask`` is additive."""

    query: Node
    key: Node
    value: Node
    mask: Node
    scale: float
    cap: float


def capped_attention(node: Node) -> CappedAttention | None:
    """What ``node``, a product of matrices, computes, if it is such attention."""
    chances, value = _args(node)[:2]
    if not _is(chances, *SOFTMAXES) or not isinstance(value, Node):
        return None
    total, dim = _args(chances)[:2]
    if dim not in (-1, chances.meta["val"].dim() - 1) or not _is(total, aten.add.Tensor):
        return None
    if total.kwargs.get("alpha", 1) != 1:
        return None
    first, second = _args(total)[:2]
    for scores, mask in ((first, second), (second, first)):
        bent, cap = _scaled(scores)
        if not isinstance(mask, Node) or not _is(bent, aten.tanh.default) or not cap > 0:
            continue
        product, factor = _scaled(_args(bent)[0])
        if not _is(product, aten.matmul.default):
            continue
        query, columns = _args(product)[:2]
        key = _transposed(columns)
        if isinstance(query, Node) and key is not None and math.isfinite(factor):
            return CappedAttention(query, key, value, mask, factor * cap, cap)
    return None


def _args(node: Node) -> tuple[Any, ...]:
    return tuple(node.args)


def _is(node: Any, *targets: object) -> bool:
    return isinstance(node, Node) and node.target in targets


def _scaled(node: Any) -> tuple[Any, float]:
    """What ``node`` multiplies by numbers, and their product."""
    factor = 1.0
    while _is(node, *_TIMES, *_OVER):
        source, number = _args(node)[:2]
        if not isinstance(number, (int, float)) or number == 0:
            break
        factor = factor / number if node.target in _OVER else factor * number
        node = source
    return node, factor


def _transposed(node: Any) -> Node | None:
    """What ``node`` is with its last two dimensions exchanged."""
    if not _is(node, aten.transpose.int, aten.permute.default):
        return None
    source, *order = _args(node)
    rank = node.meta["val"].dim()
    exchanged = [*range(rank - 2), rank - 1, rank - 2]
    if node.target is aten.transpose.int:
        fits = sorted(int(d) % rank for d in order) == [rank - 2, rank - 1]
    else:
        fits = [int(d) % rank for d in order[0]] == exchanged
    return source if fits and isinstance(source, Node) else None
