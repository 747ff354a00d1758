"""Which operators are quantized, which stay in float and why.

Rules, in this order:

1. An operator can be quantized when its entry in the operator table has a quantization rule that
   the scheme serves, XNNPACK takes it, what flows in and out is float32, and no option of the
   caller speaks against it.
2. A clamp that is the only reader of a convolution, linear or arithmetic operator belongs to it:
   nothing is quantized between the two, and the clamp decides the range. So does, while a model is
   trained in int8, a batch norm behind a convolution.

Then those in static schemes for which int8 does not pay go back to float: rules 3 to 7, in
``payoff.py``.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import (
    Independent,
    Operator,
    OutputRange,
    Recurrent,
    Shared,
    Weighted,
)
from penstock.compiler.fx.control_flow import is_control_flow
from penstock.compiler.fx.marks import FLOAT_ONLY
from penstock.compiler.fx.origins import module_path, module_types
from penstock.compiler.quantize.decision import KEPT, MOVING, Decision, Plan, operator_name
from penstock.compiler.quantize.masks import find_masks
from penstock.compiler.quantize.payoff import drop_what_does_not_pay
from penstock.compiler.quantize.quantization import Quantization, Scheme
from penstock.compiler.quantize.values import (
    is_constant,
    is_float32,
    tensor_of,
)
from penstock.compiler.rewrite.fold_batch_norm import weighted_before

aten = torch.ops.aten

#: Whose batch norms torchao folds after the training.
FOLDED_BY_TORCHAO: set[object] = {
    aten.conv1d.default, aten.conv2d.default,
    aten.conv_transpose1d.default, aten.conv_transpose2d.input,
}  # fmt: skip


def make_plan(module: GraphModule, quantization: Quantization, *, is_qat: bool = False) -> Plan:
    """Decides for every operator of ``module``. Changes nothing. ``is_qat``: for training."""
    masks = find_masks(module)
    decisions: dict[Node, Decision] = {}
    taken: set[Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function" or node in taken or _comes_out_of_body(node):
            continue
        decision = _decide(node, quantization, masks)
        if is_qat and decision.quantized and isinstance(decision.rule, Recurrent):
            decision.reason = "training for int8 does not round its state"
        if decision.quantized:
            if is_qat and not decision.is_dynamic:
                decision.norm = _following_norm(node)
            if decision.norm is not None:
                taken.add(decision.norm)
            decision.clamp = _following_clamp(decision, quantization)
            if decision.clamp is not None and decision.clamp.name in quantization.float_nodes:
                decision.clamp, decision.reason = None, KEPT
            if decision.clamp is not None:
                taken.add(decision.clamp)
            if decision.scheme == "dynamic_4bit":
                decision.why_8_bits = _reason_against_4_bits(decision, quantization.block)
                decision.block = None if decision.why_8_bits else quantization.block
        decisions[node] = decision
    plan = Plan(list(decisions.values()))
    drop_what_does_not_pay(plan)
    _read_clamped(plan)
    return plan


def _reason_against_4_bits(decision: Decision, block: int) -> str | None:
    if decision.node.target is not torch.ops.aten.linear.default or decision.weight is None:
        return "XNNPACK has 4-bit weights for linear layers alone"
    columns = decision.weight.meta["val"].shape[1]
    if columns % block:
        return f"blocks of {block} do not divide its {columns} inputs"
    if _gives_the_result(decision.node):
        return "its result is the model's"
    return None


def _gives_the_result(node: Node) -> bool:
    """Whether nothing stands between a node and the model's outputs but movement and arithmetic by
    elements."""
    waiting, seen = [node], set()
    while waiting:
        item = waiting.pop()
        for user in item.users:
            if user.op == "output":
                return True
            entry = registry.find(user.target) if user.op == "call_function" else None
            moves = entry is not None and isinstance(entry.rule_for(user), MOVING)
            if moves and user not in seen:
                seen.add(user)
                waiting.append(user)
    return False


def _read_clamped(plan: Plan) -> None:
    """A clamp that reads floating point, as it is or moved for it alone, reads it in its output's
    parameters: what it cuts off then takes none of the eight bits."""
    made = {decision.result: decision for decision in plan.quantized if not decision.is_dynamic}
    for decision in plan.quantized:
        entry = registry.find(decision.node.target)
        if entry is None or not entry.is_clamp or not isinstance(decision.rule, Shared):
            continue
        way = _moved_from_float(decision, made)
        for member in way or ():
            assert isinstance(member.rule, MOVING)
            member.rule = OutputRange(member.rule.inputs)


def _moved_from_float(decision: Decision, made: dict[Node, Decision]) -> list[Decision] | None:
    """``decision`` and all that moves values in float to it, and to nothing else; ``None`` where
    there is something else in int8 before it."""
    way = [decision]
    for value in decision.inputs:
        maker = made.get(value)
        if maker is None:
            continue
        moves = isinstance(maker.rule, Shared) and not maker.rule.blends
        before = _moved_from_float(maker, made) if moves and len(value.users) == 1 else None
        if before is None:
            return None
        way += before
    return way


def _comes_out_of_body(node: Node) -> bool:
    """Whether the node only picks a result of a branch or loop."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, Node) and is_control_flow(source)


def _decide(node: Node, quantization: Quantization, masks: set[Node]) -> Decision:
    entry = registry.find(node.target)
    decision = Decision(node, operator_name(node), module_path(node))
    decision.reason = _reason_against(decision, entry, quantization, masks)
    return decision


def _reason_against(
    decision: Decision,
    entry: Operator | None,
    quantization: Quantization,
    masks: set[Node],
) -> str | None:
    if is_control_flow(decision.node):
        return "branches and loops stay in float"
    tensor = tensor_of(decision.node)
    recurrent = entry is not None and isinstance(entry.quantization, Recurrent)
    if tensor is None and not recurrent:
        several = isinstance(decision.node.meta.get("val"), (tuple, list))
        return (
            "it gives several tensors: XNNPACK's int8 operators give one, so its parts run in float"
            if several
            else "its result is a number, not a tensor"
        )
    if tensor is not None and tensor.dtype != torch.float32:
        return f"its result is {str(tensor.dtype).removeprefix('torch.')}, not float32"
    if FLOAT_ONLY in decision.node.meta:
        return str(decision.node.meta[FLOAT_ONLY])
    if decision.node.target is operator.getitem:
        return "it picks a result, which is in float"
    if entry is None:
        return "XNNPACK has no operator for it"
    if decision.node.name in quantization.float_nodes:
        return KEPT
    pattern = quantization.skipped_by(decision.module, entry.name)
    if pattern is not None:
        return f"skip={pattern!r} leaves it in float"
    decision.scheme = _scheme(decision.node, entry, quantization)
    if decision.scheme is None:
        return "no scheme is given for its module, its module's type or its operator"
    decision.rule = entry.rule_for(decision.node)
    if decision.rule is None:
        return "XNNPACK has it in float only"
    if isinstance(decision.rule, Recurrent) and not decision.is_dynamic:
        return (
            "its state is quantized at run time or not at all: "
            f"operators={{{entry.name!r}: 'dynamic'}} gives it int8 weights"
        )
    if decision.is_dynamic and not _has_dynamic_form(decision):
        return (
            "XNNPACK cannot quantize its activations at run time (a static scheme may quantize it)"
        )
    reason = _reason_against_inputs(decision, masks)
    if reason is not None or isinstance(decision.rule, Recurrent):
        return reason
    return entry.reason_against(decision.node)


def _has_dynamic_form(decision: Decision) -> bool:
    """Whether XNNPACK has the operator with activations that are quantized at run time."""
    if isinstance(decision.rule, Weighted):
        return decision.rule.is_dynamic(decision.node)
    return isinstance(decision.rule, Recurrent)


def _scheme(node: Node, entry: Operator, quantization: Quantization) -> Scheme | None:
    return quantization.scheme_for(module_path(node), entry.name, module_types(node))


def _reason_against_inputs(decision: Decision, masks: set[Node]) -> str | None:
    rule = decision.rule
    if isinstance(rule, Weighted):
        weight = decision.weight
        if weight is None or not is_constant(weight):
            return "its weight is computed at run time, int8 needs a constant one"
        if not is_float32(weight):
            return "its weight is not float32"
        if weight.meta["val"].ndim < 2:
            return "its weight is a single row, without channels to have scales of their own"
        if decision.bias is not None and not is_constant(decision.bias):
            return "its bias is computed at run time, int8 needs a constant one"
    if isinstance(rule, Recurrent):
        reason = rule.against(decision.node)
        if reason is not None:
            return reason
        if not all(is_constant(weight) for weight in decision.weights):
            return "its weights are computed at run time, int8 needs constant ones"
    inputs = decision.inputs
    if not inputs or all(is_constant(value) for value in inputs):
        return "it reads constants alone"
    for value in inputs:
        tensor = tensor_of(value)
        if tensor is None or tensor.dtype != torch.float32:
            kind = "not a tensor" if tensor is None else str(tensor.dtype).removeprefix("torch.")
            return f"its input {value.name} is {kind}, not float32"
    if not isinstance(rule, Weighted) and any(n in masks for n in (decision.node, *inputs)):
        return (
            "it computes with a mask's infinities, beside which int8 has no room for other numbers"
        )
    return None


def _following_norm(node: Node) -> Node | None:
    """The batch norm that alone reads a convolution or linear layer, and is folded into it after
    the training: by torchao, or when the program is lowered."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.target is not aten.batch_norm.default or user.args[0] is not node:
        return None
    folded = node.target in FOLDED_BY_TORCHAO or weighted_before(node, 1) is node
    return user if folded else None


def _following_clamp(decision: Decision, quantization: Quantization) -> Node | None:
    """The clamp that ``decision``'s operator can take over as its output range."""
    if decision.is_dynamic or not isinstance(decision.rule, (Weighted, Independent)):
        return None
    if len(decision.result.users) != 1:
        return None
    (user,) = decision.result.users
    entry = registry.find(user.target) if user.op == "call_function" else None
    if entry is None or not entry.is_clamp or not user.args or user.args[0] is not decision.result:
        return None
    if _scheme(user, entry, quantization) is None:
        return None
    if not is_float32(user) or entry.reason_against(user) is not None:
        return None
    return user
