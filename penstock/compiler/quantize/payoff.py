"""Which operators go back to float because int8 does not pay for them.

Rules, after those of ``plan.py``, for operators in static schemes:

3. Quantized operators come in connected groups. A group stays only if there is a weighted operator
   in it, or if it computes something and no float operator is beside it: alone between float
   operators int8 saves nothing and costs accuracy.
4. An operator without weights with more float neighbours than quantized ones goes back to float,
   for the same reason.
5. Operators of several inputs and no weights that are connected by values or by what only moves
   values (the sums along the residuals of a network, concatenations) go back to float together, if
   as int8 they need more conversions at their borders than in float; those that compute also if
   they need as many. In float they cost hardly more time and round nothing: a sum of a
   transformer's block is read by a norm, which is float, and takes from a linear, which is int8. A
   result of the model is float, too, and needs a conversion. (A
   concatenation alone rounds little, and moves a quarter of the bytes as int8.)
6. An operator of one input that computes stays in float where values in float, as they are or
   moved, go in or come out alone: the one conversion comes behind or before it, and rounds less
   (what a tanh makes of numbers up to 100, say, and not those). Unless there are more values to
   convert there (before a mean, behind an upsampling), or others in int8 read what goes in. So does
   one that moves or selects values in float and is read in float, too, as a result of the model for
   instance.
7. Where rules 3 to 6 leave nothing at all, what computes is quantized after all: the caller asked
   for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from penstock.compiler.delegate.operators.registry import (
    FixedOutput,
    Independent,
    Weighted,
)
from penstock.compiler.fx.origins import module_path
from penstock.compiler.quantize.decision import MOVING, Decision, Plan, hands_on, operator_name
from penstock.compiler.quantize.values import is_float32, tensor_of


def drop_what_does_not_pay(plan: Plan) -> None:
    """Rules 3 to 6, until nothing changes; then rule 7."""
    candidates = [decision for decision in plan.decisions if decision.quantized]
    owners = {decision.result: decision for decision in plan.decisions}
    readers = {decision.node: decision for decision in plan.decisions}
    for decision in plan.decisions:
        for part in (decision.norm, decision.clamp):
            if part is not None:
                readers[part] = decision
    changed = True
    while changed:
        changed = False
        for group in _groups(plan, owners, readers, _static):
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
            if not decision.is_static or isinstance(decision.rule, Weighted):
                continue
            if _at_the_border(decision, owners, readers):
                changed = True
                decision.reason = "beside values in float int8 saves no conversion"
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
        for part in () if decision.quantized else (decision.norm, decision.clamp):
            if part is not None:
                plan.decisions.append(
                    Decision(
                        part,
                        operator_name(part),
                        module_path(part),
                        reason="the operator before it, whose range it sets, stays in float",
                    )
                )
        if not decision.quantized:
            decision.norm = decision.clamp = None
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


def _at_the_border(decision: Decision, owners: _Owners, readers: _Owners) -> bool:
    """Rule 6."""
    source, result = decision.inputs[0], decision.result
    behind = all(_made_in_float(value, owners) for value in decision.inputs)
    before = [_read_in_float(user, readers) for user in result.users]
    if hands_on(decision.rule):
        return behind and any(before)
    if len(decision.inputs) > 1:
        return False
    others = (readers.get(user) for user in source.users if user is not decision.node)
    behind &= not any(other is not None and other.is_static for other in others)
    fewer_behind = statically_known_true(result.meta["val"].numel() <= source.meta["val"].numel())
    fewer_before = statically_known_true(source.meta["val"].numel() <= result.meta["val"].numel())
    return (behind and fewer_behind) or (all(before) and fewer_before)


def _made_in_float(value: Node, owners: _Owners) -> bool:
    """Whether ``value`` comes from float, or is moved in int8 from there."""
    maker = owners.get(value)
    if maker is None or not maker.is_static:
        return True
    return hands_on(maker.rule) and all(_made_in_float(source, owners) for source in maker.inputs)


def _read_in_float(user: Node, readers: _Owners) -> bool:
    """Whether ``user`` reads in float, or moves in int8 what is read in float alone."""
    reader = readers.get(user)
    if reader is None or not reader.is_static:
        return True
    return hands_on(reader.rule) and all(_read_in_float(n, readers) for n in reader.result.users)


def _static(decision: Decision) -> bool:
    return decision.is_static


def _joins(decision: Decision) -> bool:
    """Whether it is a static operator of several values, none of them a weight."""
    return decision.is_static and len(decision.inputs) > 1


def _joins_or_moves(decision: Decision) -> bool:
    return _joins(decision) or (decision.is_static and isinstance(decision.rule, MOVING))


def _groups(
    plan: Plan,
    owners: _Owners,
    readers: _Owners,
    belongs: Callable[[Decision], bool],
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
        other.is_static for decision in group for other in _neighbours(decision, owners, readers)
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
        if any(user.op == "output" for user in decision.result.users):  # which nobody reads
            as_int8.add(decision.result)
        for value, other in _borders(decision, owners, readers):
            if id(other) not in inside:
                (as_float if other.is_static else as_int8).add(value)
    if all(isinstance(decision.rule, MOVING) for decision in joins):
        return len(as_int8) > len(as_float)
    return 0 < len(as_int8) >= len(as_float)


def _stands_in_float(decision: Decision, owners: _Owners, readers: _Owners) -> bool:
    if decision.is_dynamic or isinstance(decision.rule, Weighted):
        return False
    quantized = floating = 0
    for other in _neighbours(decision, owners, readers):
        if other.is_static:
            quantized += 1
        else:
            floating += 1
    if isinstance(decision.rule, (Independent, FixedOutput)) or len(decision.inputs) > 1:
        return floating > quantized
    return floating > 0 and quantized == 0
