"""Masks that are computed inside XNNPACK stay there when they are moved."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.comparison import CONVERSIONS, MAKERS
from penstock.compiler.delegate.partition import is_view, reason_against
from penstock.compiler.fx.edit import call

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``view(x > 0)``, a boolean view of a comparison that XNNPACK has → Result:
    ``view(to(x > 0, float32)) > 0.5``. What is moved are numbers, and what reads the mask reads a
    comparison again; of a cast to float32 the numbers themselves are left."""
    numbers: dict[Node, Node] = {}
    return sum(_move(module, node, numbers) for node in list(module.graph.nodes))


def _move(module: GraphModule, node: Node, numbers: dict[Node, Node]) -> bool:
    """``numbers`` are those that masks which were moved before are made of."""
    if node.op != "call_function" or not _is_mask(node) or not is_view(node):
        return False
    mask = node.args[0]
    if not isinstance(mask, Node) or mask.target not in MAKERS:
        return False
    if any(user.op == "output" for user in node.users):
        return False
    before = node.args, node.meta["val"]
    source = numbers.get(mask) or call(module, node, aten.to.dtype, mask, torch.float32)
    node.args = (source, *node.args[1:])
    node.meta["val"] = before[1].to(torch.float32)
    if reason_against(node) is not None or reason_against(mask) is not None:
        node.args, node.meta["val"] = before
        return False  # what was added has no user, and is removed
    readers = list(node.users)
    moved = call(module, node.next, aten.gt.Scalar, node, 0.5)
    numbers[moved] = node
    for user in readers:
        if user.target in CONVERSIONS and user.meta["val"].dtype is torch.float32:
            user.replace_all_uses_with(node)
        else:
            user.replace_input_with(node, moved)
    return True


def _is_mask(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.bool
