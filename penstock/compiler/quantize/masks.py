"""Values that reach beyond eight bits on purpose: the masks of attention.

A mask adds a number that stands for minus infinity to what shall not count. Quantized, that number
would take the whole range and leave nothing for the values that count; and if calibration happens
to mask nothing, the range would have no room for it at run time. So values that may hold such a
number are known from the constants they are made with, not from calibration.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import (
    FixedOutput,
    Independent,
    OutputRange,
    Shared,
    Weighted,
)
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.marks import FILLS_WITH
from penstock.compiler.quantize.values import is_constant, is_float32

#: Constants beyond this are taken to stand for infinity. (-10000 is in common use.)
LARGEST_CONSTANT = 1e3

aten = torch.ops.aten

#: Operators without a quantization rule that hand on what they are given.
CARRIERS: set[object] = {
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.expand.default,
    aten.to.dtype,
    aten._to_copy.default,
    aten.sub.Tensor,
    aten.rsub.Scalar,
    aten.div.Tensor,
    aten.maximum.default,
    aten.minimum.default,
}


def find_masks(module: GraphModule) -> set[Node]:
    """The float32 values that may hold a number that stands for infinity."""
    masks: set[Node] = set()
    large: dict[Node, bool] = {}
    for node in module.graph.nodes:
        if node.op != "call_function" or not is_float32(node):
            continue
        if FILLS_WITH in node.meta:
            # Its other operand is a bound, infinite where nothing is masked.
            if node.args[1] in masks or is_large(node.meta[FILLS_WITH]):
                masks.add(node)
            continue
        entry = registry.find(node.target)
        rule = entry.rule_for(node) if entry is not None else None
        if isinstance(rule, (Weighted, FixedOutput)) or (entry is not None and entry.is_clamp):
            continue
        carries = isinstance(rule, (Independent, Shared, OutputRange)) or node.target in CARRIERS
        sources = [source for source in node.all_input_nodes if is_float32(source)]
        if (
            any(is_large(number) for number in numbers(node))
            or any(_is_large_constant(module, source, large) for source in sources)
            or (carries and any(source in masks for source in sources))
        ):
            masks.add(node)
    return masks


def is_large(number: float) -> bool:
    return not abs(number) <= LARGEST_CONSTANT


def numbers(node: Node) -> Iterator[float]:
    """The numbers that an operator computes with: not its sizes, axes and flags."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    named = arguments(node)
    for argument in node.target._schema.arguments:
        value = named.get(argument.name)
        kind = argument.real_type
        counts = isinstance(kind, (torch.NumberType, torch.FloatType, torch.TensorType))
        if counts and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield float(value)


def _is_large_constant(module: GraphModule, node: Node, known: dict[Node, bool]) -> bool:
    if not is_constant(node):
        return False
    if node not in known:
        value = attribute(module, str(node.target)).detach()
        known[node] = value.numel() > 0 and is_large(float(value.abs().max()))
    return known[node]
