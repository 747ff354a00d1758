"""Running a graph: as a whole, or node by node beside another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

aten = torch.ops.aten

#: A view is computed as a reshape, because the compiler drops the copies that made it a view.
RESHAPES: dict[object, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


class GraphRunner(Interpreter):
    """Runs a graph on flat placeholder values; frees what is not read any more.

    Guards that ``torch.export`` puts into its modules are passed over: inputs are checked before.
    """

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module" and n.target == "_guards_fn":
            return None
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_function(RESHAPES.get(target, target), args, kwargs)

    def run_flat(self, values: Sequence[Any]) -> Any:
        with torch.no_grad():
            return self.run(*values, enable_io_processing=False)


class Stepper:
    """Runs a graph node by node on several batches at once."""

    def __init__(self, module: GraphModule, batches: Sequence[Sequence[Any]]) -> None:
        self.runners = [GraphRunner(module) for _ in batches]
        self.inputs = [iter(values) for values in batches]
        self.waiting = iter(list(module.graph.nodes))  # (the graph's own iterator starts over)

    def step(self) -> Node | None:
        """Computes the next node for every batch; ``None`` when the graph has no more."""
        node: Node | None = next(self.waiting, None)
        if node is None or node.op == "output":
            return None
        with torch.no_grad():
            for runner, inputs in zip(self.runners, self.inputs, strict=True):
                value = next(inputs) if node.op == "placeholder" else runner.run_node(node)
                runner.env[node] = value
                for unused in runner.user_to_last_uses.get(node, []):
                    del runner.env[unused]
        return node

    def step_to(self, name: str) -> Node | None:
        """Computes up to and with the node of that name; ``None`` if it does not come."""
        while (node := self.step()) is not None:
            if node.name == name:
                return node
        return None

    def values(self, node: Node) -> list[Any]:
        """What the node that was computed last gave, for every batch."""
        return [runner.env[node] for runner in self.runners]

    def replace(self, node: Node, values: Sequence[Any]) -> None:
        """Lets the nodes to come see other values than the node gave."""
        for runner, value in zip(self.runners, values, strict=True):
            runner.env[node] = value
