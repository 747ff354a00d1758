"""The quantizer for XNNPACK, as torchao's PT2E flow takes one.

In a flow of one's own::

    module = torch.export.export(model, example).module()
    prepared = prepare_pt2e(module, XNNPACKQuantizer("static"))
    for batch in calibration:
        prepared(*batch)
    quantized = convert_pt2e(prepared)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Weighted
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import get_attribute
from penstock.compiler.quantize.annotation import annotate
from penstock.compiler.quantize.decision import Plan
from penstock.compiler.quantize.observers import ActivationObserver
from penstock.compiler.quantize.plan import make_plan
from penstock.compiler.quantize.pt2e import Quantizer
from penstock.compiler.quantize.quantization import (
    DYNAMIC_SCHEMES,
    Quantization,
    QuantizationLike,
)
from penstock.compiler.rewrite import pipelines


class XNNPACKQuantizer(Quantizer):  # type: ignore[misc]
    """Marks what XNNPACK can compute in int8, as the operator table tells.

    ``quantization`` is a :class:`Quantization` or the name of a scheme. After ``prepare_pt2e``
    :attr:`plan` holds the decision, with its reason, for every operator.
    """

    def __init__(self, quantization: QuantizationLike = "static_per_channel") -> None:
        super().__init__()
        self.quantization = Quantization.parse(quantization)
        self.plan = Plan([])

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Gives the graph the form that the compiler's own graphs have (in-place operators become
        functional ones, no-ops vanish, constants are folded), then see :meth:`legalize`."""
        pipelines.run(model)
        return self.legalize(model)

    def legalize(self, model: GraphModule) -> GraphModule:
        """Gives a graph in canonical form what quantization needs: layer scales are folded for
        static schemes, the numbers that quantized operators take become constants."""
        if self.quantization.scheme not in DYNAMIC_SCHEMES:
            pipelines.run(model, pipelines.FOR_STATIC_QUANTIZATION)
        for decision in make_plan(model, self.quantization).quantized:
            if not isinstance(decision.rule, Weighted) and decision.rule is not None:
                _numbers_to_constants(model, decision.node, decision.rule.inputs)
            _name_by_position(decision.node)
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        self.plan = make_plan(model, self.quantization)
        annotate(model, self.plan, self.quantization.observer, self.quantization.observers)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: only what the operator table allows has been annotated."""

    def prepare_obs_or_fq_callback(
        self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[object, object]
    ) -> None:
        """Tells the observers of a weighted operator of each other: their scales together must be
        within XNNPACK's limits."""
        for decision in self.plan.quantized:
            if decision.is_dynamic or decision.weight is None:
                continue
            (source,) = decision.inputs
            weight: Any = edge_or_node_to_obs_or_fq[decision.weight, decision.node]
            activation: Any = edge_or_node_to_obs_or_fq[source, decision.node]
            result = edge_or_node_to_obs_or_fq[decision.result]
            if decision.bias is not None:
                weight.guard.watch(attribute(model, str(decision.bias.target)), activation)
            if isinstance(result, ActivationObserver):
                result.watch(activation, weight)


def _numbers_to_constants(module: GraphModule, node: Node, positions: tuple[int, ...]) -> None:
    """Numbers among the quantized inputs of ``node`` become zero-dimensional constants, and an
    overload for numbers (``add.Scalar``) the one for tensors."""
    for position in positions:
        if position >= len(node.args):
            continue
        number = node.args[position]
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        target = _tensor_overload(node, position)
        if target is None:
            continue
        value = torch.tensor(float(number), dtype=torch.float32)
        node.target = target
        node.update_arg(position, get_attribute(module, node, value, "_number"))


def _tensor_overload(node: Node, position: int) -> torch._ops.OpOverload | None:
    """The overload of the node's operator that takes a tensor at ``position``."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    if isinstance(target._schema.arguments[position].type, torch.TensorType):
        return target
    overload = getattr(target.overloadpacket, "Tensor", None)
    if not isinstance(overload, torch._ops.OpOverload) or registry.find(overload) is None:
        return None
    return overload


def _name_by_position(node: Node) -> None:
    """Tensors that were passed by name move to their position, where torchao looks for them."""
    if not any(isinstance(value, Node) for value in node.kwargs.values()):
        return
    assert isinstance(node.target, torch._ops.OpOverload)
    values = arguments(node)
    positional = [a.name for a in node.target._schema.arguments if not a.kwarg_only]
    last = max(
        (index for index, name in enumerate(positional) if name in node.kwargs),
        default=len(node.args) - 1,
    )
    node.args = tuple(values[name] for name in positional[: last + 1])
    node.kwargs = {name: value for name, value in node.kwargs.items() if name not in positional}
