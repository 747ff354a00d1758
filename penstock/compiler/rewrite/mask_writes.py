"""Writes to the places that a mask shows, as choices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call

aten = torch.ops.aten


def apply(module: GraphModule) -> int:
    """Given ``x[mask] = value`` with a boolean ``mask`` over whole dimensions of ``x`` and a
    ``value`` (a number, a row) that is the same for each place → Result:
    ``masked_fill(x, mask, value)``, or ``where(mask, value, x)`` for a ``value`` that is computed.
    """
    nodes = module.graph.find_nodes(op="call_function", target=aten.index_put.default)
    return sum(_choose(module, node) for node in nodes)


def _choose(module: GraphModule, node: Node) -> bool:
    given = arguments(node)
    x, value = given["self"], given["values"]
    placed = _mask(given["indices"])
    if placed is None or given["accumulate"] or x.meta["val"].is_complex():
        return False
    first, mask = placed
    behind = x.meta["val"].dim() - first - mask.meta["val"].dim()
    if not _is_whole(x, mask, first) or not _is_one_for_all(value, behind):
        return False
    for _ in range(behind):
        mask = call(module, node, aten.unsqueeze.default, mask, -1)
    number = _number(module, value)
    if number is not None:
        chosen = call(module, node, aten.masked_fill.Scalar, x, mask, number)
    else:
        row = call(module, node, aten.reshape.default, value, _row(value, behind))
        chosen = call(module, node, aten.where.self, mask, row, x)
    node.replace_all_uses_with(chosen)
    module.graph.erase_node(node)
    return True


def _mask(indices: Sequence[Node | None]) -> tuple[int, Node] | None:
    """The one index, if it is a mask, and the dimension that it begins at."""
    given = [(place, index) for place, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].meta["val"].dtype is not torch.bool:
        return None
    return given[0]


def _is_whole(x: Node, mask: Node, first: int) -> bool:
    sizes, shown = (layout.shape_of(node.meta["val"]) for node in (x, mask))
    covered = sizes[first : first + len(shown)]
    return len(shown) > 0 and all(map(layout.same, covered, shown))


def _is_one_for_all(value: Node, behind: int) -> bool:
    """Whether nothing of ``value`` depends on which place is written."""
    ahead = layout.shape_of(value.meta["val"])[: max(value.meta["val"].dim() - behind, 0)]
    return all(size == 1 for size in ahead)


def _row(value: Node, behind: int) -> list[object]:
    shape = list(value.meta["val"].shape)
    return shape[len(shape) - min(behind, len(shape)) :]


def _number(module: GraphModule, value: Node) -> float | int | bool | None:
    if value.op != "get_attr" or value.meta["val"].numel() != 1:
        return None
    number: float | int | bool = attribute(module, str(value.target)).item()
    return number
