"""Make type promotion explicit: operands of mixed types get casts of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.edit import call

aten = torch.ops.aten

#: Arithmetic and comparisons by PyTorch's rules of promotion.
PROMOTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.div.Tensor_mode,
    aten.maximum.default, aten.minimum.default, aten.pow.Tensor_Tensor, aten.atan2.default,
    aten.remainder.Tensor, aten.fmod.Tensor, aten.where.self, aten.floor_divide.default,
    aten.gt.Tensor, aten.lt.Tensor, aten.ge.Tensor, aten.le.Tensor, aten.eq.Tensor,
    aten.ne.Tensor,
}  # fmt: skip


def apply(module: GraphModule) -> int:
    """Given ``mul(x, mask)`` with ``x`` of float32 and ``mask`` of integers or booleans → Result
    ``mul(x, to(mask, float32))``, the same numbers: the cast stays where the integers are, the
    arithmetic can go to XNNPACK. A cast that several operators need is made once.
    Given a product of two booleans → Result ``logical_and``, which choices inside XNNPACK read."""
    casts: dict[Node, Node] = {}
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten.mul.Tensor and all(map(_is_boolean, node.args)):
            node.target = aten.logical_and.default
            changes += 1
        elif node.target in PROMOTING:
            for source in _to_be_cast(node):
                if source not in casts:
                    casts[source] = _cast(module, source)
                node.args = tuple(casts[source] if item is source else item for item in node.args)
                changes += 1
    return changes


def _is_boolean(item: Any) -> bool:
    return isinstance(item, Node) and item.meta["val"].dtype is torch.bool


def _to_be_cast(node: Node) -> list[Node]:
    operands = node.args[1:3] if node.target is aten.where.self else node.args[:2]
    tensors = [item for item in operands if isinstance(item, Node)]
    values: list[Any] = [item.meta.get("val") for item in tensors]
    if len(tensors) < 2 or not all(isinstance(value, torch.Tensor) for value in values):
        return []
    if torch.result_type(*values) is not torch.float32:
        return []
    return [t for t, v in zip(tensors, values, strict=True) if v.dtype is not torch.float32]


def _cast(module: GraphModule, source: Node) -> Node:
    """Right behind ``source``, so that whatever reads it can read the cast."""
    anchor = source.next
    while anchor.op in ("placeholder", "get_attr"):
        anchor = anchor.next
    cast = call(module, anchor, aten.to.dtype, source, torch.float32)
    for key in ("nn_module_stack", "stack_trace"):
        if key in source.meta:
            cast.meta[key] = source.meta[key]
    return cast
