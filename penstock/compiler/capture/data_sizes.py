"""How large results can be whose size depends on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dynamic

aten = torch.ops.aten


def bounds_by_data(module: GraphModule, bounds: Mapping[Any, int]) -> dict[Any, int]:
    """The most elements that are selected, or are not zero: as many as there are. PyTorch's own
    bound is that of the tensor before it is broadcast with its mask, and it has none for tensors
    of one or two elements. ``bounds`` are those of the inputs' sizes."""
    found: dict[Any, int] = {}
    for node in module.graph.nodes:
        count = _COUNTED.get(node.target)
        if count is None:
            continue
        size = node.meta["val"].shape[0]
        if not isinstance(size, torch.SymInt) or not isinstance(size.node.expr, sympy.Symbol):
            continue
        try:
            shape = tuple(map(layout.dim_of, count(node)))
            found[size.node.expr] = Dynamic({**bounds, **found}).upper(layout.product(shape))
        except ValueError:  # one of its own sizes has none
            continue
    return found


def _selected(node: Node) -> Sequence[Any]:
    shapes = [item.meta["val"].shape for item in node.all_input_nodes]
    return tuple(torch.broadcast_shapes(*shapes))


def _elements(node: Node) -> Sequence[Any]:
    return tuple(node.all_input_nodes[0].meta["val"].shape)


_COUNTED: dict[Any, Callable[[Node], Sequence[Any]]] = {
    aten.masked_select.default: _selected,
    aten.nonzero.default: _elements,
}
