"""What becomes of each operator: quantized, or in float and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import (
    FixedOutput,
    Independent,
    OutputRange,
    QuantizationRule,
    Recurrent,
    Shared,
    Weighted,
)
from penstock.compiler.quantize.quantization import DYNAMIC_SCHEMES, Scheme
from penstock.compiler.quantize.values import argument, nodes_in

#: The rules of operators that move or select values and compute nothing.
MOVING = (Shared, OutputRange)
#: Why an operator is in float that the caller, or the accuracy budget, names.
KEPT = "float_nodes leaves it in float"


@dataclass
class Decision:
    """What becomes of one operator node. ``reason`` is ``None`` when it is quantized."""

    node: Node
    operator: str
    module: str
    rule: QuantizationRule | None = None
    scheme: Scheme | None = None
    reason: str | None = None
    clamp: Node | None = None
    #: The batch norm that stands before the clamp while the model is trained.
    norm: Node | None = None
    #: How many weights of a row share a scale; ``None``: all of it does, and has 8 bits.
    block: int | None = None
    #: Why its weights have 8 bits, where the scheme has 4.
    why_8_bits: str | None = None

    @property
    def quantized(self) -> bool:
        return self.reason is None

    @property
    def is_dynamic(self) -> bool:
        return self.scheme in DYNAMIC_SCHEMES

    @property
    def is_static(self) -> bool:
        """Whether it is quantized, in a static scheme."""
        return self.quantized and not self.is_dynamic

    @property
    def result(self) -> Node:
        """The node whose value leaves the operator."""
        return self.clamp or self.norm or self.node

    @property
    def inputs(self) -> list[Node]:
        """The activations and constants that enter quantized; the weight is not among them."""
        if self.rule is None:
            return []
        positions = (self.rule.input,) if isinstance(self.rule, Weighted) else self.rule.inputs
        found = (n for p in positions for n in nodes_in(argument(self.node, p)))
        return list(dict.fromkeys(found))

    @property
    def weights(self) -> list[Node]:
        """The weights that enter quantized."""
        if isinstance(self.rule, Recurrent):
            return list(dict.fromkeys(self.rule.weights(self.node)))
        return [] if self.weight is None else [self.weight]

    @property
    def weight(self) -> Node | None:
        if not isinstance(self.rule, Weighted):
            return None
        weight = argument(self.node, self.rule.weight)
        return weight if isinstance(weight, Node) else None

    @property
    def bias(self) -> Node | None:
        if not isinstance(self.rule, Weighted) or self.rule.bias is None:
            return None
        bias = argument(self.node, self.rule.bias)
        return bias if isinstance(bias, Node) else None


@dataclass
class Plan:
    """The decisions in graph order. A clamp that another operator took over has none."""

    decisions: list[Decision]

    @property
    def quantized(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.quantized]


def blends(rule: QuantizationRule | None) -> bool:
    """Whether an operator averages values in one pair of parameters."""
    return isinstance(rule, Shared) and rule.blends


def hands_on(rule: QuantizationRule | None) -> bool:
    """Whether an operator moves or selects values, and so does with rounded ones what it does with
    exact ones."""
    return isinstance(rule, MOVING) and not blends(rule)


def computes_alone(decision: Decision) -> bool:
    """Whether an operator computes with one value and no weight."""
    return isinstance(decision.rule, (Independent, FixedOutput)) and len(decision.inputs) == 1


def operator_name(node: Node) -> str:
    """The name in the operator table, else ATen's."""
    target, entry = node.target, registry.find(node.target)
    if entry is not None:
        return entry.name
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return str(getattr(target, "__name__", target))
