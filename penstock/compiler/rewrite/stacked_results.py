"""The tensors that loops stack their results in, where a size is known at run time alone."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.control_flow import is_control_flow, map_rows, operands, scan
from penstock.compiler.fx.edit import copy_origin
from penstock.compiler.fx.marks import STACKED
from penstock.compiler.fx.size_nodes import SizeNodes


def apply(module: GraphModule) -> int:
    """Given ``scan(f, init, xs, shared)`` whose stacked results have dynamic sizes → Result: the
    same with ``stacked=[empty(sizes), …]``: rows are written into tensors that have the sizes of
    the result, and none is written where there are no rows."""
    sizes = SizeNodes(module)
    changes = 0
    for node in list(module.graph.nodes):
        if not is_control_flow(node) or node.target not in (scan, map_rows):
            continue
        made: list[Node | None] = []
        for value in node.meta["val"][len(operands(node).carried) :]:
            if layout.is_static(layout.shape_of(value)):
                made.append(None)
                continue
            shape = sizes.replace(list(value.shape))
            with module.graph.inserting_before(node):
                empty = module.graph.call_function(
                    torch.ops.aten.empty.memory_format, (shape,), {"dtype": value.dtype}
                )
            empty.meta["val"] = value
            copy_origin(node, empty)
            made.append(empty)
            changes += 1
        node.kwargs = {STACKED: made}
    return changes
