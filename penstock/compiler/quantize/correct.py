"""Weights rounded for the data, and bias correction: what quantization shifts on average is put
back by the biases.

Rounding moves a single value up or down at random, but the sums of a convolution or linear may
come out shifted as a whole: rounded weights times inputs that are mostly positive, or values cut
off at one end of their range. Later layers do not average such a shift away as they do noise; a
pooling over the whole picture leaves nothing but the shifts. (The method is empirical bias
correction as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, section 4.2.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import Weighted
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import copy_origin, get_attribute
from penstock.compiler.quantize.decision import Plan
from penstock.compiler.quantize.interpreter import Snapshot, Stepper
from penstock.compiler.quantize.rounding import moments, rounded
from penstock.compiler.quantize.values import argument

quantized_ops = torch.ops.quantized_decomposed

#: Neighbours in a picture or a text are alike: so many of them count as one independent sample.
SAMPLES_ALIKE = 8


def correct_biases(
    floating: Snapshot, quantized: GraphModule, plan: Plan, batches: Sequence[Sequence[Any]]
) -> int:
    """Changes the biases of the static weighted operators of ``quantized`` so that on ``batches``
    the mean of each output channel is that of ``floating``; layer by layer, each seeing the
    corrections before it. Before that it rounds the weight for these batches
    (:mod:`.rounding`). Returns how many biases it changed.

    Only as much of a shift is corrected as the number of samples makes certain: of a mean m that
    is known with a variance v, the part 1 - v / m**2.
    """
    rules = {
        decision.node.name: decision.rule
        for decision in plan.quantized
        if isinstance(decision.rule, Weighted) and not decision.is_dynamic
    }
    changed = 0
    snapshot = Snapshot.of(quantized)
    reference = Stepper(floating, batches)
    exact = _weights(floating, rules)
    result = Stepper(snapshot, batches, lambda node: _round(node, rules, exact, result))
    nodes = {node.name: node for node in quantized.graph.nodes}
    while (node := result.step()) is not None:
        rule = rules.get(node.name)
        if rule is None or rule.bias is None:
            continue
        original = reference.step_to(node.name)
        assert original is not None, node
        weight = argument(node, rule.weight)
        channel_axis = node.meta["val"].dim() - (weight.meta["val"].dim() - 1)
        shift = _shift(reference.values(original), result.values(node), channel_axis)
        if shift is None or not bool(shift.any()):
            continue
        _add_to_bias(quantized, nodes[node.name], rule.bias, shift)
        shape = [1] * node.meta["val"].dim()
        shape[channel_axis] = -1
        result.replace(node, [value + shift.view(shape) for value in result.values(node)])
        changed += 1
    return changed


def _weights(floating: Snapshot, rules: Mapping[str, Weighted]) -> dict[str, torch.Tensor]:
    """Of these operators, as they are in float."""
    found = {}
    for node in floating.graph.nodes:
        if node.name in rules:
            weight = argument(node, rules[node.name].weight)
            if weight.op == "get_attr":
                found[node.name] = floating.attributes[str(weight.target)].detach()
    return found


def _round(
    node: Node, rules: Mapping[str, Weighted], exact: Mapping[str, torch.Tensor], result: Stepper
) -> None:
    """Rounds the weight of ``node`` for the inputs that it has in ``result``."""
    weight = exact.get(node.name)
    if weight is None:
        return
    rule = rules[node.name]
    dequantize = argument(node, rule.weight)
    if dequantize.target is not quantized_ops.dequantize_per_channel.default:
        return
    small, scales, _, axis, low, high = dequantize.args[:6]
    if axis != 0 or len(small.users) > 1:
        return
    source = argument(node, rule.input)
    inputs = [interpreter.env[source] for interpreter in result.interpreters]
    products = moments(node, weight, inputs, centred=rule.bias is not None)
    if products is None:
        return
    attributes = result.snapshot.attributes
    scale: torch.Tensor = attributes[str(scales.target)]
    integers, wider = rounded(weight, scale, products, low, high)
    attributes[str(small.target)].copy_(integers)
    scale.copy_(wider)
    real = integers.float() * wider.view(-1, *[1] * (weight.dim() - 1))
    result.replace(dequantize, [real] * len(inputs))


def _shift(
    expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], axis: int
) -> torch.Tensor | None:
    """The certain part of the mean of (expected - found), float32 [channels]."""
    moments = []
    for one, other in zip(expected, found, strict=True):
        error = one - other
        if error.numel() == 0:  # has no mean
            continue
        others = [dim for dim in range(error.dim()) if dim != axis % error.dim()]
        if others:
            variance, mean = torch.var_mean(error, others, correction=0)
        else:  # no dimensions would stand for all of them
            variance, mean = torch.zeros_like(error), error
        moments.append((error.numel() // mean.numel(), mean.double(), variance.double()))
    count = sum(size for size, _, _ in moments)
    if count < 2:
        return None
    mean = sum((m * (size / count) for size, m, _ in moments), torch.zeros(()))
    square = sum(((v + m.square()) * (size / count) for size, m, v in moments), torch.zeros(()))
    variance = (square - mean.square()).clamp(min=0.0) * count / (count - 1)
    uncertainty = variance * SAMPLES_ALIKE / count
    certain = (1.0 - uncertainty / mean.square().clamp(min=1e-30)).clamp(min=0.0)
    return (mean * certain).float()


def _add_to_bias(module: GraphModule, node: Node, position: int, shift: torch.Tensor) -> None:
    bias = argument(node, position)
    value = shift
    if isinstance(bias, Node):
        value = attribute(module, str(bias.target)).detach() + shift
    constant = get_attribute(module, node, value, "_corrected_bias")
    copy_origin(node, constant)
    values = list(arguments(node).values())
    node.args = (*values[:position], constant, *node.args[position + 1 :])
    node.kwargs = {name: v for name, v in node.kwargs.items() if name != "bias"}
