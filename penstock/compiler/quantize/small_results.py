"""Operators whose result is too small beside what it is made of: calibration shows them, and they
go back to float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import Independent, Weighted
from penstock.compiler.quantize.decision import Decision, Plan, computes_alone
from penstock.compiler.quantize.observers import ActivationObserver
from penstock.compiler.quantize.prepared import (
    keep_in_float,
    observed,
    observer_at,
    observers_among,
    readers,
    remove_unread,
)

#: An operand's scale beside the result's, from which on its rounding adds 2 dB to the noise.
COARSE = 0.75


def keep_overflows_in_float(prepared: GraphModule, plan: Plan) -> None:
    """Takes the observers from the convolutions and linear layers of ``plan`` whose result is so
    small beside their sums (a clamp to [0, 6] of millions) that XNNPACK would need a much larger
    scale than its range asks for, and says so in their decisions."""
    nodes = {node.name: node for node in prepared.graph.nodes}
    touched = []
    for decision in plan.quantized:
        if decision.is_dynamic or not isinstance(decision.rule, Weighted):
            continue
        readers = observers_among(prepared, nodes[decision.result.name].users)
        for observer in {observer_at(prepared, node) for node in readers}:
            if isinstance(observer, ActivationObserver) and observer.leave_wide(decision.node.name):
                touched.append(decision)
    reason = "its result is too small beside its sums for XNNPACK's arithmetic on int8"
    keep_in_float(prepared, touched, reason)
    remove_unread(prepared)


def keep_cancellations_in_float(prepared: GraphModule, plan: Plan) -> None:
    """Takes the observers from the sums and differences of ``plan`` of a value and what is computed
    from it alone (``x - tanh(x)``), and from what computes that, if its rounding is much of the
    result's noise."""
    makers = {d.result: d for d in plan.quantized if not d.is_dynamic}
    touched: list[Decision] = []
    for decision in makers.values():
        if not isinstance(decision.rule, Independent) or not decision.rule.adds:
            continue
        result = _scale(prepared, decision.result.users)
        operands = {observed(prepared, value): value for value in decision.inputs}
        for value, read in operands.items():
            chain = _chain(prepared, value, set(operands) - {value}, makers)
            scale = _scale(prepared, [read])
            if chain and result and scale and scale > COARSE * result:
                touched += [decision, *chain]
    reason = "it takes from a value what is nearly the same, and leaves their rounding"
    keep_in_float(prepared, touched, reason)
    remove_unread(prepared)


def _chain(
    prepared: GraphModule, value: Node, sources: set[Node], makers: Mapping[Node, Decision]
) -> list[Decision]:
    """What computes ``value`` from one of ``sources``, each of it for the next alone."""
    chain: list[Decision] = []
    while value not in sources:
        maker = makers.get(value)
        if maker is None or not computes_alone(maker) or len(readers(prepared, value)) > 1:
            return []
        chain.append(maker)
        value = observed(prepared, maker.inputs[0])
    return chain


def _scale(prepared: GraphModule, nodes: Iterable[Node]) -> float | None:
    """Of the first observer of an activation among ``nodes``."""
    for node in observers_among(prepared, nodes):
        observer = observer_at(prepared, node)
        if isinstance(observer, ActivationObserver):
            return float(observer.calculate_qparams()[0])
    return None
