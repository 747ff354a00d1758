"""Running a graph: as a whole, or node by node beside another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node

from penstock.compiler.fx.marks import STORE, STORES
from penstock.compiler.quantize.convert import is_observer

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: A view is computed as a reshape, because the compiler drops the copies that made it a view.
RESHAPES: dict[object, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


class GraphInterpreter(Interpreter):
    """Runs a graph on flat placeholder values; frees what is not read any more.

    What the graph leaves in its buffers goes to ``state`` (by the buffer's name), where the next
    run finds it: the module's own tensors, which are the caller's, are never written to, nor are
    the inputs. Guards that ``torch.export`` puts into its modules are passed over: inputs are
    checked before.
    """

    def __init__(self, module: torch.nn.Module, graph: Graph | None = None) -> None:
        super().__init__(module, garbage_collect_values=True, graph=graph)
        self.state: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module" and n.target == "_guards_fn":
            return None
        if n.op == "get_attr" and str(n.target) in self.state:
            return self.state[str(n.target)]
        if n.target in STORES:
            return self._store(n)
        return super().run_node(n)

    def _store(self, n: Node) -> Any:
        """A program's writes stand at its end."""
        target = n.args[0]
        assert isinstance(target, Node)
        given, _ = self.fetch_args_kwargs_from_env(n)
        kept = given[1].clone() if n.target is STORE else aten.index_put.default(*given)
        if target.op == "get_attr":
            self.state[str(target.target)] = kept
        return kept

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_function(RESHAPES.get(target, target), args, kwargs)

    def run_flat(self, values: Sequence[Any]) -> Any:
        with torch.no_grad():
            return self.run(*values, enable_io_processing=False)


@dataclass
class Snapshot:
    """A graph as it was, whatever becomes of the module that it was taken from.

    It holds the same tensors (``attributes``, by the target of their ``get_attr``), so it costs
    little; observers are left out.
    """

    graph: Graph
    attributes: dict[str, Any]

    @classmethod
    def of(cls, module: GraphModule) -> Snapshot:
        graph = Graph()
        graph.output(graph.graph_copy(module.graph, {}))
        for node in list(graph.nodes):
            if node.op == "call_module" and is_observer(module, node):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        source = Interpreter(module)
        targets = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        return cls(graph, {target: source.fetch_attr(target) for target in targets})


class SnapshotInterpreter(GraphInterpreter):
    """Computes quantize and dequantize pairs in one go, in floating point: the quantize node gives
    the rounded values, not the integers, and the dequantize node hands them on.

    What is quantized at run time is rounded as XNNPACK does it: with a scale and zero point for
    each row of a linear layer's input and each image of a convolution's.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(torch.nn.Module(), snapshot.graph)
        self.snapshot = snapshot

    def fetch_attr(self, target: str) -> Any:
        return self.snapshot.attributes[target]

    def run_node(self, n: Node) -> Any:
        if n.target is quantized.quantize_per_tensor.tensor and is_chosen(n.args[1]):
            return self.env[n.args[0]]  # type: ignore[index]
        if n.target is quantized.dequantize_per_tensor.tensor and is_chosen(n.args[1]):
            return round_parts(self.env[n.args[0]], dynamic_axes(n))  # type: ignore[index]
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is quantized.quantize_per_tensor.default:
            value, scale, zero_point, low, high, _ = args
            return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, low, high)
        if target is quantized.dequantize_per_tensor.default and args[0].is_floating_point():
            return args[0]
        return super().call_function(target, args, kwargs)


def is_chosen(scale: Any) -> bool:
    """Whether a scale is chosen at run time."""
    chosen = scale.args[0] if isinstance(scale, Node) and scale.args else None
    return isinstance(chosen, Node) and chosen.target is quantized.choose_qparams.tensor


def dynamic_axes(dequantize: Node) -> int:
    """How many of the value's first dimensions have scales of their own."""
    dims: int = dequantize.meta["val"].dim()
    if all(user.target is aten.linear.default for user in dequantize.users):
        return dims - 1
    weights = [user.args[1] for user in dequantize.users if len(user.args) > 1]
    batched = all(isinstance(w, Node) and w.meta["val"].dim() == dims for w in weights)
    return 1 if batched and weights else 0


def round_parts(value: torch.Tensor, axes: int) -> torch.Tensor:
    """``value`` rounded to 8 bits, with a range for each index of its first ``axes`` dimensions."""
    if value.numel() == 0:
        return value
    inner = tuple(range(axes, value.dim()))
    low = value.amin(inner, keepdim=True).clamp(max=0.0)
    high = value.amax(inner, keepdim=True).clamp(min=0.0)
    scale = (high - low) / 255.0
    scale = torch.where(scale > 0.0, scale, torch.ones_like(scale))
    zero = (-128.0 - low / scale).round().clamp(-128.0, 127.0)
    return ((value / scale + zero).round().clamp(-128.0, 127.0) - zero) * scale


class Stepper:
    """Runs a snapshot node by node on several batches at once. What depends on constants alone is
    computed once for all. ``before`` is called with each node before it is computed."""

    def __init__(
        self,
        snapshot: Snapshot,
        batches: Sequence[Sequence[Any]],
        before: Callable[[Node], None] = lambda node: None,
    ) -> None:
        self.snapshot, self.before = snapshot, before
        self.interpreters = [SnapshotInterpreter(snapshot) for _ in batches]
        self.inputs = [iter(values) for values in batches]
        self.waiting = iter(list(snapshot.graph.nodes))
        self.constant: set[Node] = set()

    def step(self) -> Node | None:
        """Computes the next node for every batch; ``None`` when the graph has no more."""
        node: Node | None = next(self.waiting, None)
        if node is None or node.op == "output":
            return None
        self.before(node)
        constant = node.op != "placeholder" and all(
            source in self.constant for source in node.all_input_nodes
        )
        with torch.no_grad():
            if constant:
                self.constant.add(node)
                self.replace(node, [self.interpreters[0].run_node(node)] * len(self.interpreters))
            else:
                self.replace(node, [self._value(node, i) for i in range(len(self.interpreters))])
        for interpreter in self.interpreters:
            for unused in interpreter.user_to_last_uses.get(node, []):
                del interpreter.env[unused]
        return node

    def _value(self, node: Node, batch: int) -> Any:
        if node.op == "placeholder":
            return next(self.inputs[batch])
        return self.interpreters[batch].run_node(node)

    def step_to(self, name: str) -> Node | None:
        """Computes up to and with the node of that name; ``None`` if it does not come."""
        while (node := self.step()) is not None:
            if node.name == name:
                return node
        return None

    def values(self, node: Node) -> list[Any]:
        """What the node that was computed last gave, for every batch."""
        return [interpreter.env[node] for interpreter in self.interpreters]

    def replace(self, node: Node, values: Sequence[Any]) -> None:
        """Lets the nodes to come see these values of ``node``."""
        for interpreter, value in zip(self.interpreters, values, strict=True):
            interpreter.env[node] = value
