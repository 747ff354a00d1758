"""What was delegated, what was not and why."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.fx import Node

from penstock.compiler.partition import Partition, Reason


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


def module_path(node: Node) -> str:
    """The dotted path of the innermost ``nn.Module`` that made the node, e.g. ``features.0.1``."""
    stack = node.meta.get("nn_module_stack") or {}
    entries: Sequence[tuple[str, object]] = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def source_line(node: Node) -> str:
    """The last line of the user's own source in the node's stack trace: ``file:line``."""
    trace = node.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if "/torch/nn/modules/" not in frame]
    frames = own or frames
    if not frames:
        return ""
    parts = frames[-1].split('"')
    rest = parts[2].split(",") if len(parts) > 2 else []
    number = next((p.split()[-1] for p in rest if p.strip().startswith("line ")), "?")
    return f"{parts[1]}:{number}"


def describe_origin(node: Node) -> str:
    """Where a node comes from, to be put at the end of a message: `` (encoder.0, model.py:7)``."""
    parts = [part for part in (module_path(node), source_line(node)) if part]
    return f" ({', '.join(parts)})" if parts else f" (node {node.name})"
