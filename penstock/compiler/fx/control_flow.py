"""Operators whose operands include graphs: ``cond``, ``while_loop``, ``scan``, ``map``.

PyTorch keeps what a branch or a loop runs in a graph of its own, a submodule that a ``get_attr``
node names. Here is how the operands of such an operator go with the inputs of its graphs; all else
that is done to the model's graph is done to these graphs as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

cond = torch.ops.higher_order.cond
while_loop = torch.ops.higher_order.while_loop
scan = torch.ops.higher_order.scan
map_rows = torch.ops.higher_order.map_impl

#: operator -> the positions of its graphs, of what is carried from run to run, and of what is taken
#: row by row, among its arguments. The last argument is what each run of each graph gets alike.
_ARGUMENTS: dict[object, tuple[tuple[int, ...], int | None, int | None]] = {
    cond: ((1, 2), None, None),
    while_loop: ((0, 1), 2, None),
    scan: ((0,), 1, 2),
    map_rows: ((0,), None, 1),
}


def is_control_flow(node: Node) -> bool:
    return node.op == "call_function" and node.target in _ARGUMENTS


@dataclass(frozen=True)
class Operands:
    """The inputs of each graph are ``carried``, one row of each of ``rows``, and ``shared``."""

    carried: tuple[Any, ...]
    rows: tuple[Any, ...]
    shared: tuple[Any, ...]


def operands(node: Node) -> Operands:
    _, carried, rows = _ARGUMENTS[node.target]

    def items(position: int | None) -> tuple[Any, ...]:
        return () if position is None else tuple(node.args[position])  # type: ignore[arg-type]

    return Operands(items(carried), items(rows), items(len(node.args) - 1))


def graph_names(node: Node) -> list[Node]:
    """The ``get_attr`` nodes that name the graphs of a control flow operator."""
    named = [node.args[position] for position in _ARGUMENTS[node.target][0]]
    return [item for item in named if isinstance(item, Node)]


def bodies(module: GraphModule) -> Iterator[GraphModule]:
    """The graphs of the control flow operators of ``module``; not the graphs within those."""
    for node in module.graph.nodes:
        if is_control_flow(node):
            for name in graph_names(node):
                body = module.get_submodule(str(name.target))
                assert isinstance(body, GraphModule)
                yield body


def all_graphs(module: GraphModule) -> Iterator[GraphModule]:
    """``module`` and every graph within it, each after the one that it is in."""
    yield module
    for body in bodies(module):
        yield from all_graphs(body)
