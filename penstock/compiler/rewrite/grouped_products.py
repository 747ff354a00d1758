"""Products of groups of rows, each with a matrix of its own, as mixtures of experts have them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import fake_mode
from penstock.compiler.fx.record import whole
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.definitions import Definitions, recorded
from penstock.compiler.rewrite.inline import inline

aten = torch.ops.aten

#: PyTorch's operator, and the one that transformers has for machines on which that is missing, by
#: their schemas' names: libraries define operators when they are imported.
GROUPED = {"aten::_grouped_mm", "transformers::grouped_mm_fallback"}

_WHOLE = Definitions(lambda target: True)


def apply(module: GraphModule) -> int:
    """Given ``grouped_mm(x [S, K], weights [E, K, N], ends [E])``, where the rows of ``x`` up to
    ``ends[0]`` meet the first matrix, those up to ``ends[1]`` the second one … → Result: the sum of
    a ``linear`` for each matrix, of ``x`` with the rows of other groups set to zero.

    What a group's size is depends on data, so XNNPACK can have no other form of it: each matrix
    meets all rows. The weights of a linear layer can be quantized.
    """
    found = [node for node in module.graph.nodes if _is_grouped(node)]
    if not found:
        return 0
    sizes = SizeNodes(module)
    with fake_mode(module):
        for node in found:
            inline(module, node, sizes, recorded(node, grouped_product, _WHOLE))
    return len(found)


def _is_grouped(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target._schema.name not in GROUPED:
        return False
    x, weights, ends, *rest = arguments(node).values()
    if any(item is not None for item in rest) or not isinstance(ends, Node):
        return False
    return _rank(x) == 2 and _rank(weights) == 3 and isinstance(_value(weights).shape[0], int)


def _value(node: Node) -> Tensor:
    value: Tensor = node.meta["val"]
    return value


def _rank(node: Node) -> int:
    return _value(node).dim()


def grouped_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """What a grouped product is, in operators that are recorded."""
    places = torch.arange(x.shape[0])[:, None]
    starts = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    members = ((places >= starts) & (places < ends)).to(x.dtype)
    parts = [
        whole(aten.linear.default, x * members[:, i : i + 1], weights[i].transpose(0, 1))
        for i in range(weights.shape[0])
    ]
    total: Tensor = sum(parts[1:], parts[0])
    return total
