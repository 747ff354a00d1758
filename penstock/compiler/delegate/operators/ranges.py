"""Which nodes give values that the range of their inputs may not hold: their special rules."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import OutputRange, QuantizationRule
from penstock.compiler.fx.attributes import attribute


def joined_with_constants(node: Node) -> QuantizationRule | None:
    """Own output with a constant other than zeros."""
    constants = [source for source in node.all_input_nodes if source.op == "get_attr"]
    if not any(_holds_numbers(source) for source in constants):
        return None
    lists = isinstance(node.args[0], (list, tuple))
    return OutputRange((0,)) if lists else OutputRange((0, 1))


def _holds_numbers(constant: Node) -> bool:
    module = constant.graph.owning_module
    if not isinstance(module, GraphModule):
        return True
    return bool(attribute(module, str(constant.target)).detach().any())
