"""Where the largest values of rows lie."""

from __future__ import annotations

from torch.fx import Node

from penstock.compiler.delegate.lowering import places
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx.marks import PLACES_OF_LARGEST


@operator(
    "places_of_largest",
    PLACES_OF_LARGEST,
    constraints=FLOATS,
    notes="what `topk`, `argmax` and `argmin` find where it only chooses",
)
def lower_places_of_largest(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    k, dim, largest = node.args[1:4]
    assert isinstance(k, int) and isinstance(dim, int)
    dim %= x.rank
    rest = [other for other in range(x.rank) if other != dim]
    found = places.places_of_largest(b, b.permute(x, (*rest, dim)), k, bool(largest))
    # [*rest, k, n]: the k go back to the dimension that they are of.
    order = [*range(dim), x.rank - 1, *range(dim, x.rank - 1), x.rank]
    return b.permute(found, order)
