"""What was delegated, what was not and why."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.fx import Node

from penstock.compiler.delegate.partition import Partition, Reason
from penstock.compiler.fx.origins import module_path, source_line
from penstock.notebook import Table, render
from penstock.text import counted

#: ``str()`` names so many kinds of operators that are outside.
MOST_LINES = 12


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
    """How a model was split. ``subgraphs`` lists the nodes of each delegated piece. ``str()`` says
    how much is in XNNPACK, and what is not and why."""

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

    def lines(self) -> list[str]:
        """``operator x count (where): reason``, the most frequent first, as far as they are worth
        reading."""
        ordered = self.outside()
        found = []
        for target, why, nodes in ordered[:MOST_LINES]:
            times = f" x {len(nodes)}" if len(nodes) > 1 else ""
            found.append(f"{target}{times} ({_place(nodes)}): {why}")
        if len(ordered) > MOST_LINES:
            found.append(f"and {len(ordered) - MOST_LINES} kinds more")
        return found

    def __str__(self) -> str:
        pieces = counted(len(self.subgraphs), "piece")
        head = f"{self.share:.1%} of the graph in XNNPACK, in {pieces}"
        return "\n".join([head, *(f"outside: {line}" for line in self.lines())])

    def tables(self) -> list[Table]:
        """What a notebook shows of what is not in XNNPACK, if anything is not."""
        rows = [
            (target, len(nodes), nodes[0].module, nodes[0].source, why)
            for target, why, nodes in self.outside()
        ]
        headings = ("operator", "count", "module", "source", "why")
        return [Table("Not in XNNPACK", headings, rows)] if rows else []

    def _repr_html_(self) -> str:
        head, *_ = str(self).splitlines()
        return render(Table(head, (), []), *self.tables())


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


def _place(nodes: Sequence[NodeReport]) -> str:
    """Where in the user's model the first of ``nodes`` comes from."""
    first = nodes[0]
    place = " at ".join(part for part in (first.module, first.source) if part) or first.name
    return f"{place}, ..." if len(nodes) > 1 else place


def _picks_result(node: Node) -> bool:
    return node.target is operator.getitem


def node_report(node: Node) -> NodeReport:
    return NodeReport(node.name, str(node.target), module_path(node), source_line(node))
