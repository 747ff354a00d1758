"""Comparisons and what is chosen by them.

XNNPACK has no booleans. Inside a delegate a mask is a float tensor of exact zeros and ones; it
cannot come in or go out. So a comparison is delegated only if everything that reads it is known
to read masks, and such a reader only if its mask is made inside, or constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import choices
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import (
    SUPPORTED_FLOATS,
    is_constant,
    rank_fits,
)
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.finiteness import LARGEST, may_be_nan
from penstock.compiler.fx.marks import FINITE_IF_NOT_CHOSEN, NUMBERS_IF_NOT_CHOSEN
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten

Compare = Callable[[GraphBuilder, Tensor, Tensor], Tensor]


def _greater(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return choices.step(b, choices.difference(b, left, right))


def _different(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return choices.differs(b, choices.difference(b, left, right))


def _infinite(b: GraphBuilder, x: Tensor) -> Tensor:
    return choices.step(b, ex.subtract(b, x, ex.scalar(b, LARGEST)))


def _exclusive(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return choices.differs(b, ex.subtract(b, left, right))


COMPARISONS: dict[str, tuple[tuple[Any, ...], Compare]] = {
    "gt": ((aten.gt.Scalar, aten.gt.Tensor), _greater),
    "lt": ((aten.lt.Scalar, aten.lt.Tensor), lambda b, x, y: _greater(b, y, x)),
    "ge": (
        (aten.ge.Scalar, aten.ge.Tensor),
        lambda b, x, y: choices.complement(b, _greater(b, y, x)),
    ),
    "le": (
        (aten.le.Scalar, aten.le.Tensor),
        lambda b, x, y: choices.complement(b, _greater(b, x, y)),
    ),
    "ne": ((aten.ne.Scalar, aten.ne.Tensor), _different),
    "eq": (
        (aten.eq.Scalar, aten.eq.Tensor),
        lambda b, x, y: choices.complement(b, _different(b, x, y)),
    ),
}

#: Of masks, a mask.
CONNECTIVES: dict[str, tuple[tuple[Any, ...], Compare]] = {
    "and": (
        (aten.logical_and.default, aten.bitwise_and.Tensor, aten.__and__.Tensor),
        lambda b, x, y: b.binary(NodeKind.MINIMUM, x, y),
    ),
    "or": (
        (aten.logical_or.default, aten.bitwise_or.Tensor, aten.__or__.Tensor),
        lambda b, x, y: b.binary(NodeKind.MAXIMUM, x, y),
    ),
    "xor": (
        (aten.logical_xor.default, aten.bitwise_xor.Tensor, aten.__xor__.Tensor),
        _exclusive,
    ),
}
#: Of one tensor: the largest number is subtracted, and what is left is infinite or nothing.
INFINITE: dict[str, tuple[Any, Callable[[GraphBuilder, Tensor], Tensor]]] = {
    "isinf": (aten.isinf.default, lambda b, x: _infinite(b, b.unary(NodeKind.ABS, x))),
    "isposinf": (aten.isposinf.default, lambda b, x: _infinite(b, x)),
    "isneginf": (aten.isneginf.default, lambda b, x: _infinite(b, b.unary(NodeKind.NEGATE, x))),
}
NOT = (aten.logical_not.default, aten.bitwise_not.default)
WHERE = (
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.where.Scalar,
)
MASKED_FILL = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
CONVERSIONS = (aten.to.dtype, aten._to_copy.default)

MAKERS = {
    *(target for targets, _ in COMPARISONS.values() for target in targets),
    *(target for targets, _ in CONNECTIVES.values() for target in targets),
    *(target for target, _ in INFINITE.values()),
    *NOT,
}
READERS = {
    *(target for targets, _ in CONNECTIVES.values() for target in targets),
    *NOT, *WHERE, *MASKED_FILL, *CONVERSIONS,
}  # fmt: skip


# --- constraints -------------------------------------------------------------------------------


def _type_of(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _floats_and_masks(node: Node) -> str | None:
    """Inputs and result are float32, or masks that stay inside."""
    for source in node.all_input_nodes:
        dtype = _type_of(source)
        if dtype in SUPPORTED_FLOATS or (is_constant(source) and source.op == "get_attr"):
            continue
        if dtype is not torch.bool:
            return f"it works on {_name(dtype)}, XNNPACK's operators on float32"
        if source.target not in MAKERS:
            return "its mask is boolean and comes from outside, XNNPACK reads float32"
    result = _type_of(node)
    if result is torch.bool:
        readers = [user for user in node.users if user.target not in READERS]
        return "its result is boolean, XNNPACK has no such tensors" if readers else None
    if result not in SUPPORTED_FLOATS:
        return f"its result is {_name(result)}, XNNPACK's are float32"
    return None


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def _compares_floats(node: Node) -> str | None:
    """float32, not with itself, of what is a number for ordinary inputs."""
    for source in node.all_input_nodes:
        if _type_of(source) not in SUPPORTED_FLOATS:
            return f"it compares {_name(_type_of(source))}, XNNPACK has float32 only"
        if may_be_nan(source):
            return "it compares what may be NaN (a logarithm, root or quotient), as XNNPACK cannot"
    other = arguments(node).get("other")
    if other is node.args[0]:
        return "it compares a tensor with itself (what is NaN?), which XNNPACK cannot tell"
    if isinstance(other, (int, float)) and math.isnan(other):
        return "it compares with NaN"
    return None


def _connects_masks(node: Node) -> str | None:
    """Of masks."""
    for source in node.all_input_nodes:
        if _type_of(source) is not torch.bool:
            return f"it works on {_name(_type_of(source))}, not on masks"
    return None


def _from_a_mask(node: Node) -> str | None:
    """Of a mask."""
    (source,) = node.all_input_nodes
    return None if _type_of(source) is torch.bool else "it converts between types of numbers"


def _chosen_are_numbers(node: Node) -> str | None:
    """What is not chosen is bounded away, which not-a-number is not on every machine."""
    guarded = node.meta.get(NUMBERS_IF_NOT_CHOSEN, ())
    for position, source in enumerate(node.args):
        if position in guarded or not isinstance(source, Node):
            continue
        if _type_of(source) in SUPPORTED_FLOATS and may_be_nan(source):
            return "what it does not choose may be NaN (a logarithm, root or quotient) and spoil it"
    return None


MASKS = (rank_fits, _floats_and_masks)


# --- lowerings ---------------------------------------------------------------------------------


def mask_of(b: GraphBuilder, argument: Any) -> Tensor:
    """A mask made inside, or a constant one as zeros and ones."""
    if isinstance(argument, Node) and argument.op == "get_attr":
        constant = b.integer_constant(argument).constant
        assert constant is not None
        return b.constant((constant != 0).to(torch.float32))
    return b.tensor(argument)


def _register(name: str, targets: tuple[Any, ...], compare: Compare, *, of_masks: bool) -> None:
    own = _connects_masks if of_masks else _compares_floats

    @operator(name, *targets, constraints=(*MASKS, own), notes="where only masks' readers read it")
    def lower(b: GraphBuilder, node: Node) -> Tensor:
        left, right = node.args[:2]
        if of_masks:
            return compare(b, mask_of(b, left), mask_of(b, right))
        return compare(b, b.tensor(left), b.tensor(right))


for _word, (_targets, _compare) in COMPARISONS.items():
    _register(_word, _targets, _compare, of_masks=False)
for _word, (_targets, _compare) in CONNECTIVES.items():
    _register(_word, _targets, _compare, of_masks=True)


def _register_infinite(
    name: str, target: Any, tell: Callable[[GraphBuilder, Tensor], Tensor]
) -> None:
    @operator(
        name, target, constraints=(*MASKS, _compares_floats),
        notes="where only masks' readers read it",
    )  # fmt: skip
    def lower(b: GraphBuilder, node: Node) -> Tensor:
        return tell(b, b.tensor(node.args[0]))


for _word, (_target, _tell) in INFINITE.items():
    _register_infinite(_word, _target, _tell)


@operator(
    "not", *NOT, constraints=(*MASKS, _connects_masks), notes="where only masks' readers read it"
)
def lower_not(b: GraphBuilder, node: Node) -> Tensor:
    return choices.complement(b, mask_of(b, node.args[0]))


@operator(
    "mask to numbers", *CONVERSIONS, constraints=(*MASKS, _from_a_mask),
    notes="one that is made inside",
)  # fmt: skip
def lower_conversion(b: GraphBuilder, node: Node) -> Tensor:
    return mask_of(b, node.args[0])


@operator(
    "where", *WHERE, constraints=(*MASKS, _chosen_are_numbers),
    notes="a constant mask, or one that is made inside",
)  # fmt: skip
def lower_where(b: GraphBuilder, node: Node) -> Tensor:
    mask, yes, no = node.args[:3]
    known = node.meta.get(FINITE_IF_NOT_CHOSEN, ())
    finite = (1 in known, 2 in known)
    return choices.choose(b, _written_out(b, node, mask), b.tensor(yes), b.tensor(no), finite)


def _written_out(b: GraphBuilder, node: Node, mask: Any) -> Tensor:
    """The mask; in the shape of the result where what is chosen may be not a number and what is
    not may be infinite: bounds that are broadcast take the place of not-a-number."""
    made = mask_of(b, mask)
    numbers, finite = (node.meta.get(k, ()) for k in (NUMBERS_IF_NOT_CHOSEN, FINITE_IF_NOT_CHOSEN))
    if made.constant is not None or len(numbers) == len(finite):
        return made
    return b.dense(b.expand(made, layout.shape_of(node.meta["val"])))


@operator(
    "masked_fill", *MASKED_FILL, constraints=(*MASKS, _chosen_are_numbers),
    notes="a constant mask, or one that is made inside",
)  # fmt: skip
def lower_masked_fill(b: GraphBuilder, node: Node) -> Tensor:
    x, mask, value = node.args[:3]
    if isinstance(value, Node) and value.op != "get_attr":
        raise LoweringError("its value is computed at run time")
    finite = (False, 0 in node.meta.get(FINITE_IF_NOT_CHOSEN, ()))
    return choices.choose(b, _written_out(b, node, mask), b.tensor(value), b.tensor(x), finite)
