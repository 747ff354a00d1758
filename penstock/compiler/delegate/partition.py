"""Which nodes go to XNNPACK, in which groups, and why the others stay out."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from penstock.compiler.delegate.operators import outside, registry
from penstock.compiler.delegate.operators.constraints import is_constant
from penstock.compiler.fx.control_flow import is_control_flow


@dataclass(frozen=True)
class Reason:
    """Why a node stays outside XNNPACK: ``kind`` for programs, ``text`` for people."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


NO_ENTRY = "no entry"
CONSTRAINT = "constraint"
LOWERING = "lowering"
POSITIONS = "positions"

#: Entries of what takes a kernel no time.
_VIEWS = {
    "reshape", "permute", "transpose", "t", "movedim", "expand", "slice", "select", "narrow",
}  # fmt: skip
#: What counts positions, besides operators that work element by element.
_COUNTS = (
    torch.ops.aten.cumsum.default,
    torch.ops.aten.to.dtype,
    torch.ops.aten._to_copy.default,
)


@dataclass(frozen=True)
class Partition:
    """The groups, each in the graph's order and acyclic with everything outside it, and the
    reasons for the operator nodes that are in none."""

    groups: tuple[tuple[Node, ...], ...]
    undelegated: Mapping[Node, Reason]


def is_tensor_node(node: Node) -> bool:
    """Whether the node makes tensors (and not sizes or other numbers)."""
    value = node.meta.get("val")
    items = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(item, torch.Tensor) for item in items)


def is_operator(node: Node) -> bool:
    """A node that does work at run time: not an input, a constant, or a size; nor control flow,
    whose graphs do the work."""
    return (
        node.op == "call_function"
        and is_tensor_node(node)
        and not is_constant(node)
        and not is_control_flow(node)
    )


def reason_against(node: Node) -> Reason | None:
    """Why ``node`` by itself cannot be delegated."""
    if node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, Node)
        if is_control_flow(source):
            return Reason(NO_ENTRY, "it comes out of a branch or loop")
        return reason_against(source)
    entry = registry.find(node.target)
    if entry is None or node.target not in entry.targets:
        return Reason(NO_ENTRY, outside.reason(node))
    text = entry.reason_against(node)
    return None if text is None else Reason(CONSTRAINT, text)


def partition(nodes: Sequence[Node], known_reasons: Mapping[Node, Reason]) -> Partition:
    """Groups the delegable ones of ``nodes`` (all of a graph, in order).

    Every node gets a level: one more than its inputs' each time the way leads from a delegable
    node to another one, or back. Delegable nodes begin at 0, others at -1: what is made outside
    from the inputs alone comes before all groups. Delegable nodes of one level form a group. A
    path that leaves a group passes a node outside it, hence to a higher level, and never returns:
    the groups are acyclic, and there are no more of them than alternations on the longest path.
    What computes positions for operators outside, or is made of sizes alone for such, stays with
    those.
    """
    reasons = {
        node: known_reasons.get(node) or reason_against(node) for node in nodes if is_operator(node)
    }
    for node in _positions(reasons):
        reasons[node] = Reason(
            POSITIONS, "it computes positions, from integers to integers outside"
        )
    _keep_out_what_sizes_make(reasons)
    _keep_out_views(reasons)
    undelegated: dict[Node, Reason] = {}
    delegated: set[Node] = set()
    levels: dict[Node, int] = {}
    groups: dict[int, list[Node]] = {}
    for node in nodes:
        if not is_operator(node):
            # A size is no work to report, but what reads it comes after what it is the size of.
            before = [levels[n] + (n in delegated) for n in node.all_input_nodes if n in levels]
            if before and node.op == "call_function":
                levels[node] = max(before)
            continue
        reason = reasons[node]
        if node.target is operator.getitem and node.args[0] in known_reasons:
            reason = known_reasons[node.args[0]]  # type: ignore[index]
        inside = reason is None
        level = 0 if inside else -1
        for source in node.all_input_nodes:
            if source in levels:
                change = inside != (source in delegated)
                level = max(level, levels[source] + change)
        levels[node] = level  # even for delegable nodes, odd for others
        if reason is None:
            delegated.add(node)
            groups.setdefault(level, []).append(node)
        else:
            undelegated[node] = reason
    ordered = tuple(tuple(groups[level]) for level in sorted(groups))
    return Partition(ordered, undelegated)


def _positions(reasons: Mapping[Node, Reason | None]) -> set[Node]:
    """Delegable nodes that work element by element on what comes out of integers, or of sizes
    alone, and that are read by operators outside and by each other only: logarithms of distances
    (relative positions in buckets), running sums of masks. Inside, a table that is read at these
    positions would cut the graph in two."""
    found: set[Node] = set()

    def from_outside(node: Node) -> bool:
        sources = node.all_input_nodes
        return any(source in reasons for source in sources) and all(
            source in found or is_constant(source) or _of_integers(source, reasons)
            for source in sources
        )

    for node, reason in reasons.items():
        if reason is None and _counts(node) and from_outside(node):
            found.add(node)
    while True:
        kept = {
            node
            for node in found
            if from_outside(node)
            and all(user in found or reasons.get(user) is not None for user in node.users)
        }
        if len(kept) == len(found):
            return found
        found = kept


def _keep_out_what_sizes_make(reasons: dict[Node, Reason | None]) -> None:
    """Adds reasons for delegable nodes that are computed from sizes alone and read by operators
    outside: a mask that is painted region by region would be cut at every other stroke."""
    found: set[Node] = set()
    for node in reasons:
        sources = node.all_input_nodes
        if all(
            source in found or is_constant(source) or not is_tensor_node(source)
            for source in sources
        ):
            found.add(node)
    for node in reversed(reasons):
        read_outside = any(reasons.get(user) is not None for user in node.users)
        if node in found and reasons[node] is None and read_outside:
            text = "it is made of sizes alone, for operators outside"
            reasons[node] = Reason(POSITIONS, text)


def _keep_out_views(reasons: dict[Node, Reason | None]) -> None:
    """Adds reasons for views of inputs, and of what is made outside, that operators outside alone
    read: a kernel would wait for the group's other work."""
    for node in reversed(reasons):
        source = node
        while source in reasons and reasons[source] is None and is_view(source):
            source = source.all_input_nodes[0]
        made_outside = source.op == "placeholder" or reasons.get(source) is not None
        read_outside = all(reasons.get(user) is not None for user in node.users)
        if source is not node and made_outside and read_outside and node.users:
            reasons[node] = Reason(POSITIONS, "it only moves what operators outside read")


def is_view(node: Node) -> bool:
    """Whether ``node`` is its first argument in another shape or order, or a part of it."""
    entry = registry.find(node.target)
    return entry is not None and entry.name in _VIEWS and is_tensor_node(node.all_input_nodes[0])


def _counts(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and (
        torch.Tag.pointwise in target.tags or target in _COUNTS
    )


def _of_integers(node: Node, reasons: Mapping[Node, Reason | None]) -> bool:
    """Whether ``node`` is outside and made of integers or of sizes alone, or is a size."""
    if node not in reasons:
        return not is_tensor_node(node)
    values = [source.meta["val"] for source in node.all_input_nodes if is_tensor_node(source)]
    return reasons[node] is not None and all(
        isinstance(value, torch.Tensor) and not value.is_floating_point() for value in values
    )
