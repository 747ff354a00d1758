"""The observers in a prepared graph: which there are, what they look at, taking them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule, Node

from penstock.compiler.quantize.convert import is_observer
from penstock.compiler.quantize.decision import Decision
from penstock.compiler.quantize.pt2e import Q_ANNOTATION_KEY


def keep_in_float(prepared: GraphModule, decisions: Sequence[Decision], reason: str) -> None:
    nodes = {node.name: node for node in prepared.graph.nodes}
    for decision in {id(decision): decision for decision in decisions}.values():
        node, result = nodes[decision.node.name], nodes[decision.result.name]
        decision.reason = reason
        for member in dict.fromkeys((node, result)):
            member.meta.pop(Q_ANNOTATION_KEY, None)
        for observer in observers_among(prepared, node.all_input_nodes):
            node.replace_input_with(observer, observed(prepared, observer))
        for observer in observers_among(prepared, result.users):
            for user in list(observer.users):
                if user.op != "call_module" and Q_ANNOTATION_KEY not in user.meta:
                    user.replace_input_with(observer, result)


def remove_unread(prepared: GraphModule) -> None:
    for node in reversed(observers_among(prepared, prepared.graph.nodes)):
        if not node.users:
            prepared.graph.erase_node(node)


def observer_at(prepared: GraphModule, node: Node) -> Any:
    return prepared.get_submodule(str(node.target))


def observers_among(prepared: GraphModule, nodes: Any) -> list[Node]:
    return [n for n in nodes if n.op == "call_module" and is_observer(prepared, n)]


def observed(prepared: GraphModule, node: Node) -> Node:
    """The value that observers, one after the other, look at."""
    while node.op == "call_module" and is_observer(prepared, node):
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def readers(prepared: GraphModule, value: Node) -> list[Node]:
    """The operators that read ``value``, observers passed over."""
    found, waiting = [], [value]
    while waiting:
        for user in waiting.pop(0).users:
            if user.op == "call_module" and is_observer(prepared, user):
                waiting.append(user)
            elif user.op == "call_function":
                found.append(user)
    return sorted(found)
