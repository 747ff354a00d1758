"""Calibration values that have no range: not-a-number and infinities, and where they come from.

Two kinds are told apart. A mask as attention adds it (minus infinity, or a number that stands for
it) is legitimate: what adds or moves it stays in float. Anything else spoils every range behind it
and is an error that names its origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Recurrent, Weighted
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.quantize.decision import Decision, Plan, operator_name
from penstock.compiler.quantize.interpreter import GraphInterpreter
from penstock.compiler.quantize.masks import LARGEST_CONSTANT
from penstock.compiler.quantize.observers import ActivationObserver
from penstock.compiler.quantize.prepared import (
    keep_in_float,
    observed,
    observer_at,
    observers_among,
    readers,
    remove_unread,
)
from penstock.compiler.quantize.values import is_constant
from penstock.errors import QuantizationError

aten = torch.ops.aten

NAN, INFINITY, MINUS_INFINITY = "NaN", "infinity", "minus infinity"

#: What masks are made for: minus infinity comes in, and goes out as zero or not at all.
ENDS_OF_MASKS: set[object] = {
    aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default,
    aten.logsumexp.default, aten.exp.default, aten.sigmoid.default,
    aten.scaled_dot_product_attention.default, aten.amax.default, aten.max.dim, aten.topk.default,
}  # fmt: skip

#: A range that reaches so many times as far below zero as above, beyond LARGEST_CONSTANT, is one of
#: a mask: values that count would have two or three integers.
ONE_SIDED = 64.0


def kinds_in(value: Any) -> list[str]:
    """Which of NaN, infinity and minus infinity a value holds."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return []
    if bool(value.isfinite().all()):
        return []
    checks = {NAN: torch.isnan, INFINITY: torch.isposinf, MINUS_INFINITY: torch.isneginf}
    return [kind for kind, check in checks.items() if bool(check(value).any())]


def looks_like_mask(observer: ActivationObserver) -> bool:
    """Whether the finite range that was seen holds a number that stands for minus infinity."""
    low, high = observer.low, observer.high
    return -low >= LARGEST_CONSTANT and -low > ONE_SIDED * high


def may_be_mask(value: Node) -> bool:
    """Whether minus infinity may be right there: no product with weights sees it before an
    operator that makes it finite."""
    seen: set[Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if node in seen or node.target in ENDS_OF_MASKS:
            continue
        seen.add(node)
        entry = registry.find(node.target) if node.op == "call_function" else None
        if entry is not None and isinstance(entry.quantization, (Weighted, Recurrent)):
            return False
        waiting.extend(user for user in node.users if _holds_floats(user))
    return True


def _holds_floats(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.is_floating_point()


def keep_masks_in_float(prepared: GraphModule, plan: Plan, infinite: set[Any]) -> None:
    """Takes the observers from the operators of ``plan`` that read or make a mask, and says so in
    their decisions. ``infinite`` are the observers that saw minus infinity."""
    nodes = {node.name: node for node in prepared.graph.nodes}
    beside: dict[Any, list[Decision]] = {}
    for decision in plan.quantized:
        if not decision.is_dynamic:
            around = [*nodes[decision.node.name].all_input_nodes]
            around += nodes[decision.result.name].users
            for observer in {observer_at(prepared, n) for n in observers_among(prepared, around)}:
                beside.setdefault(observer, []).append(decision)
    masks = infinite | {
        observer
        for observer, decisions in beside.items()
        if isinstance(observer, ActivationObserver)
        and looks_like_mask(observer)
        and not any(isinstance(decision.rule, Weighted) for decision in decisions)
    }
    touched = [decision for mask in masks for decision in beside.get(mask, ())]
    reason = "calibration shows numbers that stand for infinity there (a mask)"
    keep_in_float(prepared, touched, reason)
    for node in observers_among(prepared, prepared.graph.nodes):
        if observer_at(prepared, node) in masks:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    remove_unread(prepared)


class _Tracer(GraphInterpreter):
    """Notes which values hold what."""

    def __init__(self, module: GraphModule, state: Mapping[str, Any]) -> None:
        super().__init__(module)
        self.state.update(state)
        self.kinds: dict[Node, list[str]] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module":
            return self.env[n.args[0]] if n.args else None  # type: ignore[index]
        value = super().run_node(n)
        self.kinds[n] = kinds_in(value)
        return value


def origin_error(
    prepared: GraphModule,
    values: Sequence[Any],
    state: Mapping[str, Any],
    spoilt: Node,
    batch: str,
) -> QuantizationError:
    """The error that says where the NaN or infinity in ``spoilt`` comes from: the graph runs again
    on the batch ``values`` from the buffers ``state``."""
    tracer = _Tracer(prepared, state)
    tracer.run_flat(values)
    value, kinds = spoilt, tracer.kinds[spoilt]
    while before := _spoilt_before(prepared, tracer.kinds, value):
        value = before
        kinds = tracer.kinds[value]
    what = " and ".join(kinds)
    reader = next((user for user in readers(prepared, value)), spoilt)
    if value.op == "placeholder":
        where = f"input {value.name} holds {what}, first read by {_named(reader)}"
        advice = "leave such samples out, or replace the values"
    elif is_constant(value):
        where = f"the constant {value.target} holds {what}, first read by {_named(reader)}"
        advice = "repair the model's weights"
    else:
        where = f"{_named(value)} gives {what}"
        advice = "look at the sample and the model, or keep the module in float (skip)"
    return QuantizationError(f"{batch}: {where}; {advice}")


def _spoilt_before(
    prepared: GraphModule, kinds: Mapping[Node, list[str]], value: Node
) -> Node | None:
    """An input of ``value`` that explains what it holds. (A NaN is explained by another one only,
    or by an infinity in the data: one that the model makes itself is its own affair.)"""
    inputs = [observed(prepared, source) for source in value.all_input_nodes]
    if NAN in kinds[value]:
        return next(
            (n for n in inputs if NAN in kinds[n] or (n.op == "placeholder" and kinds[n])), None
        )
    return next((source for source in inputs if kinds[source]), None)


def _named(node: Node) -> str:
    return f"{operator_name(node)}{describe_origin(node)}"
