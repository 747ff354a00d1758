"""Fold layer scales into the convolution or linear before them."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.rewrite.fold_batch_norm import fold_affine, weighted_before

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``mul(linear(x, w, b), s)``, ``s`` a constant that varies along the output channels
    alone, the linear or convolution read by nothing else but views and permutes → Result
    ``linear(x, w * s, b * s)``. (The layer scale of transformers; left alone, int8 would round
    before it and after it.)"""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is not aten.mul.Tensor or node.kwargs:
            continue
        for value, factor in (node.args, node.args[::-1]):
            axis = _axis(node, value, factor)
            producer = None if axis is None else weighted_before(value, axis)
            if producer is None:
                continue
            scale = attribute(module, str(factor.target)).detach().flatten()
            if fold_affine(module, node, value, producer, scale, None):
                changes += 1
                break
    return changes


def _axis(node: Node, value: object, factor: object) -> int | None:
    """The dimension of ``value`` along which the constant ``factor`` varies, if it is one."""
    if not isinstance(value, Node) or not isinstance(factor, Node) or factor.op != "get_attr":
        return None
    result, given, constant = (n.meta["val"] for n in (node, value, factor))
    if layout.shape_of(given) != layout.shape_of(result) or {given.dtype, constant.dtype} != {
        torch.float32
    }:
        return None
    behind = result.dim() - constant.dim()
    axes = [behind + i for i, size in enumerate(constant.shape) if size != 1]
    return axes[0] if len(axes) == 1 else None
