"""Padding of minus infinity, as maximum pooling pads."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments, as_list
from penstock.compiler.fx.edit import call

aten = torch.ops.aten

#: The axes that each pools over.
AXES: dict[object, int] = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
}
PADS = (aten.pad.default, aten.constant_pad_nd.default)


def apply(module: GraphModule) -> int:
    """Given ``max_pool(pad(x, p, -inf))``, ``p`` at the end what ``ceil_mode`` pads there → Result
    ``max_pool(x, padding=...)``. There is one tensor less, and no infinity, of which integers have
    none."""
    return sum(_absorb(module, node) for node in list(module.graph.nodes) if node.target in AXES)


def _absorb(module: GraphModule, node: Node) -> bool:
    pooling, axes = arguments(node), AXES[node.target]
    before = _padding(pooling["self"], axes)
    if before is None or any(as_list(pooling["padding"])):
        return False
    x = arguments(pooling["self"])["self"]
    kernel = pooling["kernel_size"]
    given = (kernel, pooling["stride"] or kernel, before, pooling["dilation"])
    for ceil_mode in (False, True):
        try:
            pooled = call(module, node, node.target, x, *given, ceil_mode)
        except RuntimeError:  # PyTorch pads by half a window at most
            return False
        # As many windows, which begin at the same places, are the same windows.
        if layout.shape_of(pooled.meta["val"]) == layout.shape_of(node.meta["val"]):
            node.replace_all_uses_with(pooled)
            module.graph.erase_node(node)
            return True
        module.graph.erase_node(pooled)
    return False


def _padding(pad: object, axes: int) -> list[int] | None:
    """By how much ``pad`` pads images of fixed size with minus infinity, in front."""
    if not isinstance(pad, Node) or pad.target not in PADS:
        return None
    named = arguments(pad)
    amounts = as_list(named["pad"])
    sizes = layout.shape_of(named["self"].meta["val"])[-axes:]
    if (
        named.get("mode", "constant") != "constant"
        or named["value"] != -math.inf
        or len(amounts) > 2 * axes
        or not layout.is_static(sizes)
        or any(isinstance(amount, Node) or amount < 0 for amount in amounts)
    ):
        return None
    front = amounts[0::2]  # of the last axis first
    return [0] * (axes - len(front)) + front[::-1]
