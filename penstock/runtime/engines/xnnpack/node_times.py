"""From XNNPACK's list of timed operators back to the nodes of a graph.

XNNPACK keeps the order of the nodes, names its operators after what it runs ("Fully Connected (NC,
F32) GEMM"), and leaves out nodes that it has no operator for (a conversion that a product makes
while it packs its input, for one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.graph.graph import Node
from penstock.graph.kinds import NodeKind

#: What the names of a kind's operators begin with, where that is not the kind's own name.
_BEGINNINGS: Mapping[NodeKind, tuple[str, ...]] = {
    NodeKind.CONV_2D: ("Convolution", "Fully Connected"),
    NodeKind.DEPTHWISE_CONV_2D: ("Convolution", "Depthwise"),
    NodeKind.CONV_TRANSPOSE_2D: ("Deconvolution",),
    NodeKind.DIV: ("Divide",),
    NodeKind.AVG_POOLING_2D: ("Average Pooling", "Mean"),
    NodeKind.GLOBAL_AVG_POOLING_2D: ("Mean", "Global Average Pooling"),
    NodeKind.MAX_POOLING_2D: ("Max Pooling",),
    NodeKind.ARG_MAX_POOLING_2D: ("ArgMax Pooling",),
    NodeKind.STATIC_TRANSPOSE: ("Transpose",),
    NodeKind.STATIC_RESHAPE: ("Static Reshape", "Copy", "Reshape"),
    NodeKind.STATIC_SLICE: ("Slice",),
    NodeKind.STATIC_CONSTANT_PAD: ("Constant Pad",),
    NodeKind.STATIC_RESIZE_BILINEAR_2D: ("Resize Bilinear",),
    NodeKind.CONCATENATE_2: ("Copy", "Concatenate"),
    NodeKind.CONCATENATE_3: ("Copy", "Concatenate"),
    NodeKind.CONCATENATE_4: ("Copy", "Concatenate"),
    NodeKind.CONCATENATE_5: ("Copy", "Concatenate"),
    NodeKind.COS: ("Cosine", "Cos"),
    NodeKind.SIN: ("Sine", "Sin"),
}


#: What XNNPACK calls the table that it makes of elementwise nodes between two conversions of int8.
_TABLE = "Invalid Unary Op"


def _end_of_table(nodes: Sequence[Node], position: int) -> int | None:
    """The conversion back to integers that ends the next run of nodes made one table."""
    converts = [i for i in range(position, len(nodes)) if nodes[i].kind is NodeKind.CONVERT]
    return converts[1] if len(converts) > 1 else None


def _fits(node: Node, name: str) -> bool:
    own = node.kind.name.replace("_", " ").lower()
    known = (*_BEGINNINGS.get(node.kind, ()), own)
    return name.lower().startswith(tuple(text.lower() for text in known))


def nodes_of(names: Sequence[str], nodes: Sequence[Node]) -> list[int | None]:
    """The position among ``nodes`` of the node that each operator belongs to, None for operators
    that no node explains. A node may have several operators in a row (a concatenation copies each
    input), or none."""
    found: list[int | None] = []
    position = 0
    for name in names:
        before = nodes[position - 1] if position else None
        if name.startswith("Clamp") and before is not None and before.clamp is not None:
            found.append(position - 1)  # the output range of a node without one in integers
            continue
        if name.startswith(_TABLE):
            ahead = _end_of_table(nodes, position)
        else:
            ahead = next((i for i in range(position, len(nodes)) if _fits(nodes[i], name)), None)
        again = before is not None and _fits(before, name)
        copies = again and name.startswith("Copy") and found[-1] == position - 1
        if ahead is None or (copies and ahead > position):
            found.append(position - 1 if again else None)
            continue
        found.append(ahead)
        position = ahead + 1
    return found
