"""What the instructions of a method were made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from penstock.graph.graph import XnnGraph


@dataclass(frozen=True)
class Made:
    """The FX nodes that an instruction was made of; of a delegate's call those of its group, in
    the order of the debug handles, and its graph."""

    nodes: tuple[Node, ...]
    graph: XnnGraph | None = None

    def of_handle(self, handle: int) -> tuple[Node, ...]:
        """The node of a delegate's group that a debug handle stands for; none for 0."""
        return self.nodes[handle - 1 : handle] if handle else ()
