"""What was delegated, what was not and why."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from torch.fx import Node

from penstock.compiler.delegate.partition import Partition, Reason
from penstock.compiler.fx.origins import module_path, source_line


@dataclass(frozen=True)
class NodeReport:
    """One operator of the model: its graph name, its ATen overload, the path of the
    ``nn.Module`` it comes from and the line of the user's source."""

    name: str
    target: str
    module: str
    source: str


@dataclass(frozen=True)
class Delegation:
    """How a model was split. ``subgraphs`` lists the nodes of each delegated piece."""

    subgraphs: tuple[tuple[NodeReport, ...], ...]
    undelegated: tuple[tuple[NodeReport, Reason], ...]

    @property
    def delegated(self) -> tuple[NodeReport, ...]:
        return tuple(node for piece in self.subgraphs for node in piece)

    def outside(self) -> list[tuple[str, str, tuple[NodeReport, ...]]]:
        """Operators that XNNPACK does not run, the reason, and where: the most frequent first."""
        groups: dict[tuple[str, str], list[NodeReport]] = {}
        for node, reason in self.undelegated:
            groups.setdefault((node.target, str(reason)), []).append(node)
        ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
        return [(target, reason, tuple(nodes)) for (target, reason), nodes in ordered]

    @property
    def share(self) -> float:
        """The delegated part of all operators, 0 to 1."""
        total = len(self.delegated) + len(self.undelegated)
        return len(self.delegated) / total if total else 0.0


def describe(partition: Partition) -> Delegation:
    """What ``partition`` says of the operators. (That one of an operator's several results is
    picked out of a tuple is no operator of its own.)"""
    return Delegation(
        tuple(
            tuple(node_report(node) for node in group if not _picks_result(node))
            for group in partition.groups
        ),
        tuple(
            (node_report(node), why)
            for node, why in partition.undelegated.items()
            if not _picks_result(node)
        ),
    )


def joined(parts: Iterable[Delegation]) -> Delegation:
    """What was found of a graph and of the graphs within it."""
    listed = list(parts)
    return Delegation(
        tuple(piece for part in listed for piece in part.subgraphs),
        tuple(item for part in listed for item in part.undelegated),
    )


def _picks_result(node: Node) -> bool:
    return node.target is operator.getitem


def node_report(node: Node) -> NodeReport:
    return NodeReport(node.name, str(node.target), module_path(node), source_line(node))
