"""Which quantized operators XNNPACK computes in float after all, for their scales."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import Independent
from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.decision import Plan


def note_misfits(converted: GraphModule, plan: Plan) -> None:
    """Tells the plan which operators are computed in float after all, for their scales."""
    nodes = {node.name: node for node in converted.graph.nodes}
    for decision in plan.quantized:
        rule = decision.rule
        if not isinstance(rule, Independent) or rule.fits is None:
            continue
        scales = [_scale(nodes[decision.node.name].args[position]) for position in rule.inputs]
        result = [_scale(user) for user in nodes[decision.result.name].users]
        known = [scale for scale in (*scales, *result[:1]) if scale is not None]
        if len(known) == len(scales) + 1 and not rule.fits(known[:-1], known[-1]):
            decision.reason = "its scales are too far apart for XNNPACK's arithmetic on int8"


def _scale(node: Any) -> float | None:
    """The scale of a quantize or dequantize node of one scale."""
    one = isinstance(node, Node) and node.target in QUANTIZE | DEQUANTIZE
    return node.args[1] if one and isinstance(node.args[1], float) else None
