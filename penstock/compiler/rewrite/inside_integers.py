"""Integers and masks between operators on float32, inside XNNPACK too."""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.partition import is_operator, reason_against
from penstock.compiler.rewrite import places, whole_numbers
from penstock.compiler.rewrite.twins import Maker, Number, Places

_SOURCES = {**whole_numbers.SOURCES, **places.SOURCES}


def apply(module: GraphModule) -> int:
    """Given operators on integers and masks that are made of float32 and end in float32 again: what
    ``topk``, ``argmax`` or ``argmin`` found, compared, made one-hot, gathered or scattered by;
    masks that are counted; constants that are searched → Result: the same in float32, places as
    rows of zeros and a 1 (``penstock.places_of_largest``).

    Only where something of it stands outside XNNPACK now and leads back in, all of the new can be
    inside, and nothing that stays outside leads back in.
    """
    twins = _Twins(module)
    for node in list(module.graph.nodes):
        twins.visit(node)
    return twins.settle()


class _Twins:
    """Nodes that hang together by integers are a group: they change all or not at all."""

    def __init__(self, module: GraphModule) -> None:
        self._maker = Maker(module)
        self._group: dict[Node, Node] = {}
        self._ends: dict[Node, Node] = {}
        self._made: dict[Node, list[Node]] = {}
        self._left: list[Node] = []

    def visit(self, node: Node) -> None:
        twins = self._maker.twins
        sources = [source for source in node.all_input_nodes if source in twins]
        rule = self._rule(node, sources) if node.op == "call_function" else None
        if rule is None and not sources:
            return
        before = len(self._maker.made)
        found = rule(self._maker, node) if rule is not None else None
        if found is None:
            if sources:
                self._left.append(node)
                self._join(sources)
            return
        if isinstance(found, (Places, Number)):
            twins[node] = found
        else:
            self._ends[node] = found
        self._made[node] = self._maker.made[before:]
        self._join([node, *sources])

    def _rule(self, node: Node, sources: list[Node]) -> Any:
        if not sources:
            return _SOURCES.get(node.target)
        if any(isinstance(self._maker.twins[source], Places) for source in sources):
            return places.RULES.get(node.target)
        rule = whole_numbers.RULES.get(node.target)
        return rule or places.RULES.get(node.target)

    def _join(self, nodes: list[Node]) -> None:
        first = self._root(nodes[0])
        for node in nodes:
            self._group[self._root(node)] = first

    def _root(self, node: Node) -> Node:
        while self._group.setdefault(node, node) is not node:
            node = self._group[node]
        return node

    def settle(self) -> int:
        groups: dict[Node, list[Node]] = defaultdict(list)
        for node in (*self._maker.twins, *self._ends):
            groups[self._root(node)].append(node)
        kept_out = {
            self._root(source)
            for node in self._left
            for source in node.all_input_nodes
            if source in self._maker.twins and _comes_back(node)
        }
        changes = 0
        for root, nodes in groups.items():
            ends = [node for node in nodes if node in self._ends]
            returns = any(_comes_back(user) for end in ends for user in end.users)
            if not returns or root in kept_out or not self._gains(nodes):
                continue
            for node in ends:
                node.replace_all_uses_with(self._ends[node])
                changes += 1
        return changes

    def _gains(self, nodes: list[Node]) -> bool:
        made = [one for node in nodes for one in self._made[node]]
        return any(reason_against(node) is not None for node in nodes) and all(
            reason_against(one) is None for one in made if is_operator(one)
        )


def _comes_back(node: Node) -> bool:
    """Whether ``node``, or what follows from it, is inside."""
    seen, waiting = {node}, [node]
    while waiting:
        item = waiting.pop()
        is_one = item.target is not operator.getitem and is_operator(item) and _is_float(item)
        if is_one and reason_against(item) is None:
            return True
        fresh = [user for user in item.users if user not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return False


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.is_floating_point()
