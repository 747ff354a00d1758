"""Which operators are quantized, which stay in float and why.

Rules, in this order:

1. An operator can be quantized when its entry in the operator table has a quantization rule that
   the scheme serves, XNNPACK takes it, what flows in and out is float32, and no option of the
   caller speaks against it.
2. A clamp that is the only reader of a convolution, linear or arithmetic operator belongs to it:
   nothing is quantized between the two, and the clamp decides the range.
3. (static schemes) Quantized operators come in connected groups. A group stays only if there is a
   weighted operator in it, or if it computes something and no float operator is beside it: alone
   between float operators int8 saves nothing and costs accuracy.
4. (static schemes) An operator without weights with more float neighbours than quantized ones
   goes back to float, for the same reason.
5. (static schemes) Operators of several inputs and no weights that are connected by values or by
   what only moves values (the sums along the residuals of a network, concatenations) go back to
   float together, if as int8 they need more conversions at their borders than in float; those that
   compute also if they need as many. In float they cost hardly more time and round nothing: a sum
   of a transformer's block is read by a norm, which is float, and takes from a linear, which is
   int8. (A concatenation alone rounds little, and moves a quarter of the bytes as int8.)
6. (static schemes) An operator of one input that computes, and gets the model's inputs as they are
   or moved, stays in float: the one conversion comes behind it, and rounds what it makes of them
   (a tanh of numbers up to 100, say). So does one of a fixed output range behind any float.
7. Where rules 3 to 6 leave nothing at all, what computes is quantized after all: the caller
   asked for it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import (
    FixedOutput,
    Independent,
    Operator,
    OutputRange,
    QuantizationRule,
    Shared,
    Weighted,
)
from penstock.compiler.fx.control_flow import is_control_flow
from penstock.compiler.fx.marks import FLOAT_ONLY
from penstock.compiler.quantize.masks import find_masks
from penstock.compiler.quantize.quantization import DYNAMIC_SCHEMES, Quantization, Scheme
from penstock.compiler.quantize.values import (
    argument,
    is_constant,
    is_float32,
    module_path,
    nodes_in,
    tensor_of,
)

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
    def result(self) -> Node:
        """The node whose value leaves the operator."""
        return self.node if self.clamp is None else self.clamp

    @property
    def inputs(self) -> list[Node]:
        """The activations and constants that enter quantized; the weight is not among them."""
        if self.rule is None:
            return []
        positions = (self.rule.input,) if isinstance(self.rule, Weighted) else self.rule.inputs
        found = (n for p in positions for n in nodes_in(argument(self.node, p)))
        return list(dict.fromkeys(found))

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


def make_plan(module: GraphModule, quantization: Quantization) -> Plan:
    """Decides for every operator of ``module``. Changes nothing."""
    masks = find_masks(module)
    decisions: dict[Node, Decision] = {}
    clamped: set[Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function" or node in clamped or _comes_out_of_body(node):
            continue
        decision = _decide(node, quantization, masks)
        if decision.quantized:
            decision.clamp = _following_clamp(decision, quantization)
            if decision.clamp is not None and decision.clamp.name in quantization.float_nodes:
                decision.clamp, decision.reason = None, KEPT
            if decision.clamp is not None:
                clamped.add(decision.clamp)
            if decision.scheme == "dynamic_4bit":
                decision.why_8_bits = _reason_against_4_bits(decision, quantization.block)
                decision.block = None if decision.why_8_bits else quantization.block
        decisions[node] = decision
    plan = Plan(list(decisions.values()))
    _drop_what_does_not_pay(plan)
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
    if tensor is None:
        several = isinstance(decision.node.meta.get("val"), (tuple, list))
        return (
            "it gives several tensors: XNNPACK's int8 operators give one, so its parts run in float"
            if several
            else "its result is a number, not a tensor"
        )
    if tensor.dtype != torch.float32:
        return f"its result is {str(tensor.dtype).removeprefix('torch.')}, not float32"
    if FLOAT_ONLY in decision.node.meta:
        return str(decision.node.meta[FLOAT_ONLY])
    if entry is None:
        return "XNNPACK has no operator for it"
    if decision.node.name in quantization.float_nodes:
        return KEPT
    pattern = quantization.skipped_by(decision.module, entry.name)
    if pattern is not None:
        return f"skip={pattern!r} leaves it in float"
    decision.scheme = quantization.scheme_for(decision.module, entry.name)
    if decision.scheme is None:
        return "the scheme given for its module leaves it in float"
    decision.rule = entry.rule_for(decision.node)
    if decision.rule is None:
        return "XNNPACK has it in float only"
    if decision.is_dynamic and not (
        isinstance(decision.rule, Weighted) and decision.rule.is_dynamic(decision.node)
    ):
        return (
            "XNNPACK cannot quantize its activations at run time (a static scheme may quantize it)"
        )
    return _reason_against_inputs(decision, masks) or entry.reason_against(decision.node)


def _reason_against_inputs(decision: Decision, masks: set[Node]) -> str | None:
    rule = decision.rule
    if isinstance(rule, Weighted):
        weight = decision.weight
        if weight is None or not is_constant(weight):
            return "its weight is computed at run time, int8 needs a constant one"
        if not is_float32(weight):
            return "its weight is not float32"
        if decision.bias is not None and not is_constant(decision.bias):
            return "its bias is computed at run time, int8 needs a constant one"
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


def _following_clamp(decision: Decision, quantization: Quantization) -> Node | None:
    """The clamp that ``decision``'s operator can take over as its output range."""
    if decision.is_dynamic or not isinstance(decision.rule, (Weighted, Independent)):
        return None
    if len(decision.node.users) != 1:
        return None
    (user,) = decision.node.users
    entry = registry.find(user.target) if user.op == "call_function" else None
    if entry is None or not entry.is_clamp or not user.args or user.args[0] is not decision.node:
        return None
    if quantization.scheme_for(module_path(user), entry.name) is None:
        return None
    if not is_float32(user) or entry.reason_against(user) is not None:
        return None
    return user


def _drop_what_does_not_pay(plan: Plan) -> None:
    """Rules 3 to 6, until nothing changes; then rule 7."""
    candidates = [decision for decision in plan.decisions if decision.quantized]
    owners = {decision.result: decision for decision in plan.decisions}
    readers = {decision.node: decision for decision in plan.decisions}
    for decision in plan.decisions:
        if decision.clamp is not None:
            readers[decision.clamp] = decision
    changed = True
    while changed:
        changed = False
        for group in _groups(plan, owners, readers):
            if not _group_pays(group, owners, readers):
                changed = True
                for decision in group:
                    decision.reason = (
                        "its neighbours stay in float: converting costs more than int8 saves"
                    )
        for decision in plan.decisions:
            if decision.quantized and _stands_in_float(decision, owners, readers):
                changed = True
                decision.reason = "most of its neighbours stay in float, so int8 saves little"
        for decision in plan.decisions:
            if _static(decision) and _reads_floats(decision, owners):
                changed = True
                decision.reason = "int8 saves no conversion behind values in float"
        for group in _groups(plan, owners, readers, _joins_or_moves):
            if _saves_no_conversion(group, owners, readers):
                for decision in filter(_joins, group):
                    changed = True
                    decision.reason = (
                        "in int8 it would need as many conversions as in float, or more"
                    )
    if not any(decision.quantized for decision in plan.decisions):
        for decision in candidates:
            if not isinstance(decision.rule, MOVING):
                decision.reason = None
    for decision in plan.decisions:
        if not decision.quantized and decision.clamp is not None:
            clamp = registry.find(decision.clamp.target)
            assert clamp is not None
            plan.decisions.append(
                Decision(
                    decision.clamp,
                    clamp.name,
                    module_path(decision.clamp),
                    reason="the operator before it, whose range it sets, stays in float",
                )
            )
            decision.clamp = None
    plan.decisions.sort(key=lambda decision: decision.node)


_Owners = dict[Node, Decision]


def _neighbours(decision: Decision, owners: _Owners, readers: _Owners) -> Iterator[Decision]:
    """The operators that make what ``decision`` reads and read what it makes."""
    return (other for _, other in _borders(decision, owners, readers))


def _borders(
    decision: Decision, owners: _Owners, readers: _Owners
) -> Iterator[tuple[Node, Decision]]:
    """(value, operator) for each that makes a value that ``decision`` reads, or reads the one that
    it makes. Inputs, constants and outputs of the graph are nobody's."""
    for value in decision.node.all_input_nodes:
        if value in owners and is_float32(value):
            yield value, owners[value]
    for user in decision.result.users:
        if user in readers and tensor_of(user) is not None:
            yield decision.result, readers[user]


def _reads_floats(decision: Decision, owners: _Owners) -> bool:
    """Rule 6."""
    rule = decision.rule
    one_input = isinstance(rule, Independent) and len(decision.inputs) == 1
    if isinstance(rule, FixedOutput):
        makers = (owners.get(value) for value in decision.inputs)
        if not any(maker is not None and _static(maker) for maker in makers):
            return True
    elif not one_input and not (isinstance(rule, Shared) and rule.blends):
        return False
    return all(_from_model_inputs(value, owners) for value in decision.inputs)


def _from_model_inputs(value: Node, owners: _Owners) -> bool:
    """Whether ``value`` is an input of the model, or moved from some in int8."""
    maker = owners.get(value)
    if maker is None:
        return value.op == "placeholder"
    moves = isinstance(maker.rule, MOVING) and not getattr(maker.rule, "blends", False)
    if not _static(maker) or not moves:
        return False
    return all(_from_model_inputs(source, owners) for source in maker.inputs)


def _static(decision: Decision) -> bool:
    return decision.quantized and not decision.is_dynamic


def _joins(decision: Decision) -> bool:
    """Whether it is a static operator of several values, none of them a weight."""
    return _static(decision) and len(decision.inputs) > 1


def _joins_or_moves(decision: Decision) -> bool:
    return _joins(decision) or (_static(decision) and isinstance(decision.rule, MOVING))


def _groups(
    plan: Plan,
    owners: _Owners,
    readers: _Owners,
    belongs: Callable[[Decision], bool] = _static,
) -> Iterator[list[Decision]]:
    """Connected operators of those that ``belongs`` is true of."""
    seen: set[int] = set()
    for start in plan.decisions:
        if not belongs(start) or id(start) in seen:
            continue
        group, waiting = [], [start]
        seen.add(id(start))
        while waiting:
            decision = waiting.pop()
            group.append(decision)
            for other in _neighbours(decision, owners, readers):
                if belongs(other) and id(other) not in seen:
                    seen.add(id(other))
                    waiting.append(other)
        yield group


def _group_pays(group: Sequence[Decision], owners: _Owners, readers: _Owners) -> bool:
    if any(isinstance(decision.rule, Weighted) for decision in group):
        return True
    if all(isinstance(decision.rule, MOVING) for decision in group):
        return False
    return all(
        other.quantized and not other.is_dynamic
        for decision in group
        for other in _neighbours(decision, owners, readers)
    )


def _saves_no_conversion(group: Sequence[Decision], owners: _Owners, readers: _Owners) -> bool:
    """Whether the group, if it is int8, needs more conversions at its borders than in float, or as
    many, though it computes: rule 5."""
    joins = [decision for decision in group if _joins(decision)]
    if not joins:
        return False
    inside = {id(decision) for decision in group}
    as_int8: set[Node] = set()
    as_float: set[Node] = set()
    for decision in group:
        for value, other in _borders(decision, owners, readers):
            if id(other) not in inside:
                (as_float if _static(other) else as_int8).add(value)
    if all(isinstance(decision.rule, MOVING) for decision in joins):
        return len(as_int8) > len(as_float)
    return 0 < len(as_int8) >= len(as_float)


def _stands_in_float(decision: Decision, owners: _Owners, readers: _Owners) -> bool:
    if decision.is_dynamic or isinstance(decision.rule, Weighted):
        return False
    quantized = floating = 0
    for other in _neighbours(decision, owners, readers):
        if other.quantized and not other.is_dynamic:
            quantized += 1
        else:
            floating += 1
    if isinstance(decision.rule, (Independent, FixedOutput)) or len(decision.inputs) > 1:
        return floating > quantized
    return floating > 0 and quantized == 0


def operator_name(node: Node) -> str:
    """The name in the operator table, else ATen's."""
    target, entry = node.target, registry.find(node.target)
    if entry is not None:
        return entry.name
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return str(getattr(target, "__name__", target))
