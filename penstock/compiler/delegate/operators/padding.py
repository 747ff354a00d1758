"""Padding by a constant and by the tensor's own values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, gather
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.registry import (
    OutputRange,
    QuantizationRule,
    Shared,
    operator,
)
from penstock.compiler.fx.arguments import arguments

aten = torch.ops.aten

#: target -> its mode, where it has no argument that says it
MODES: dict[Any, str] = {
    aten.constant_pad_nd.default: "constant",
    aten.reflection_pad1d.default: "reflect",
    aten.reflection_pad2d.default: "reflect",
    aten.reflection_pad3d.default: "reflect",
    aten.replication_pad1d.default: "replicate",
    aten.replication_pad2d.default: "replicate",
    aten.replication_pad3d.default: "replicate",
}


def _amounts(node: Node) -> list[Any]:
    named = arguments(node)
    return list(named["pad"] if "pad" in named else named["padding"])


def _known_amounts(node: Node) -> str | None:
    """Amounts that are known."""
    if any(isinstance(amount, Node) for amount in _amounts(node)):
        return "how much it pads is computed at run time, XNNPACK needs constants"
    return None


def _pads_by_a_number(node: Node) -> QuantizationRule | None:
    """Own output where it pads by a number other than zero."""
    value = arguments(node).get("value")
    return None if value in (None, 0) else OutputRange()


@operator(
    "pad", aten.pad.default, *MODES, constraints=(*FLOATS, _known_amounts), quantization=Shared(),
    special_rule=_pads_by_a_number,
    notes="constant, reflect, replicate, circular; other than constant by slices, joined",
)  # fmt: skip
def lower_pad(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    amounts = [int(amount) for amount in _amounts(node)]
    mode = str(named["mode"]) if "mode" in named else MODES[node.target]
    before, after = amounts[0::2], amounts[1::2]
    # ATen begins with the last dimension.
    pre = [0] * (x.rank - len(before)) + before[::-1]
    post = [0] * (x.rank - len(after)) + after[::-1]
    if mode == "constant":
        for dim, extent in enumerate(x.shape):
            if not isinstance(extent, int) and min(pre[dim], post[dim]) < 0:
                x = _cropped(b, x, dim, pre[dim], post[dim])
                pre[dim], post[dim] = max(0, pre[dim]), max(0, post[dim])
        value = named.get("value")
        return ex.pad_constant(b, x, pre, post, 0.0 if value is None else float(value))
    for dim, (left, right) in enumerate(zip(pre, post, strict=True)):
        if left or right:
            x = pad_by_values(b, x, dim, left, right, mode)
    return x


def pad_by_values(b: GraphBuilder, x: Tensor, dim: int, left: int, right: int, mode: str) -> Tensor:
    """One dimension padded by its own values; negative amounts cut."""
    extent = x.shape[dim]
    if left < 0 or right < 0:
        x = _cropped(b, x, dim, left, right)
        return pad_by_values(b, x, dim, max(0, left), max(0, right), mode) if left + right else x
    if not isinstance(extent, int):
        return _pad_dynamic(b, x, dim, left, right, mode)
    edges = _edges(extent, left, right, mode)
    first, last = ([gather.take(b, x, dim, indices)] if indices else [] for indices in edges)
    return ex.concatenate(b, [*first, x, *last], dim)


def _cropped(b: GraphBuilder, x: Tensor, dim: int, left: int, right: int) -> Tensor:
    """What negative amounts leave of ``x``."""
    start, end = max(0, -left), max(0, -right)
    return ends.part(b, x, dim, start, x.shape[dim] - start - end)


def _pad_dynamic(b: GraphBuilder, x: Tensor, dim: int, left: int, right: int, mode: str) -> Tensor:
    """A dynamic dimension padded by its own values."""
    if mode == "replicate":
        return ends.repeat_edges(b, x, dim, left, right)
    if mode == "reflect":
        first = [ex.cut(b, x, dim, place, 1) for place in range(left, 0, -1)]
        last = ends.last_ones(b, x, dim, range(2, right + 2))
    elif mode == "circular":
        first = ends.last_ones(b, x, dim, range(1, left + 1))[::-1]
        last = [ex.cut(b, x, dim, 0, right)] if right else []
    else:
        raise LoweringError(f"padding of mode {mode!r} is not known")
    return ex.concatenate(b, [*first, x, *last], dim)


def _edges(extent: int, left: int, right: int, mode: str) -> tuple[Sequence[int], Sequence[int]]:
    """The indices that come before and behind."""
    if mode == "reflect":
        return range(left, 0, -1), range(extent - 2, extent - 2 - right, -1)
    if mode == "replicate":
        return [0] * left, [extent - 1] * right
    if mode == "circular":
        return range(extent - left, extent), range(right)
    raise LoweringError(f"padding of mode {mode!r} is not known")
