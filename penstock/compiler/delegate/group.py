"""A group of nodes -> an :class:`XnnGraph`."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate import passes
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.expansion import written_out
from penstock.compiler.delegate.lowering.reshaping import reshaped
from penstock.compiler.delegate.lowering.tensor import EXTERNAL_TYPES, LoweringError, Tensor
from penstock.compiler.delegate.operators import outside, registry
from penstock.compiler.delegate.operators.constraints import is_constant
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dynamic
from penstock.graph.graph import XnnGraph


@dataclass(frozen=True)
class Delegate:
    """A delegate in the making: ``inputs`` and ``outputs`` are graph nodes in the order of the
    delegate call's arguments. Debug handles are the positions of nodes in the group, from 1 on."""

    graph: XnnGraph
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


class GroupLoweringError(Exception):
    """Some nodes of a group cannot be lowered: ``reasons`` says which and why."""

    def __init__(self, reasons: dict[Node, str]) -> None:
        super().__init__("; ".join(f"{node.name}: {why}" for node, why in reasons.items()))
        self.reasons = reasons


def lower_group(module: GraphModule, group: Sequence[Node], dynamic: Dynamic) -> Delegate:
    """Lowers ``group`` (in the graph's order). Raises :class:`GroupLoweringError` with all nodes
    that turned out to be impossible, which the partitioner then leaves outside."""
    builder = GroupBuilder(module, dynamic, group)
    for handle, node in enumerate(group, 1):
        builder.debug_handle = handle
        builder.lower(node)
    outputs = tuple(node for node in group if any(user not in builder.group for user in node.users))
    outputs = tuple(node for node in outputs if isinstance(builder.bound(node), Tensor))
    for node in outputs:
        if node.meta["val"].dtype is torch.bool:
            builder.reasons[node] = "its boolean result is read outside XNNPACK"
        elif node.target is operator.getitem and not builder.is_result(node):
            source = node.args[0]
            assert isinstance(source, Node)
            builder.reasons[source] = "one of its results that XNNPACK has not is read outside"
    if builder.reasons:
        raise GroupLoweringError(builder.reasons)
    for position, node in enumerate(outputs, len(builder.inputs)):
        tensor = builder.tensor(node)
        try:
            builder.output(tensor, layout.identity(tensor.rank), position)
        except LoweringError as error:
            builder.reasons[node] = str(error)
    if builder.reasons:
        raise GroupLoweringError(builder.reasons)
    for position, node in enumerate(builder.inputs):
        value = builder.value_of(builder.tensor(node))
        value.external_id = position
    graph = passes.run(builder.graph)
    return Delegate(graph, tuple(builder.inputs), outputs)


class GroupBuilder(GraphBuilder):
    """A builder that lowers nodes, and makes an external input of what it finds outside."""

    def __init__(self, module: GraphModule, dynamic: Dynamic, group: Sequence[Node]) -> None:
        super().__init__(module, dynamic)
        self.group = frozenset(group)
        self._order = group
        self.inputs: list[Node] = []
        #: Nodes that cannot be lowered, and why.
        self.reasons: dict[Node, str] = {}
        #: Those, and nodes that failed only because an input had failed.
        self.given_up: set[Node] = set()

    def lower(self, node: Node) -> None:
        """Lowers one node and binds its result, or notes why that cannot be done. What reads a
        failed node is lowered as if it came from outside, to find all failures at once."""
        try:
            self.bind(node, self._lowered(node))
        except LoweringError as error:
            if not any(source in self.given_up for source in node.all_input_nodes):
                self.reasons[node] = str(error)
            self.given_up.add(node)

    def _lowered(self, node: Node) -> Tensor | tuple[Tensor, ...]:
        if node.target is operator.getitem:
            source, position = node.args
            assert isinstance(source, Node) and isinstance(position, int)
            pieces = self.bound(source)
            if not isinstance(pieces, tuple):
                raise LoweringError(f"{source.name} has one result")
            return pieces[position]
        entry = registry.find(node.target)
        if entry is None:
            raise LoweringError(outside.reason(node))
        result = entry.lower(self, node)
        self._check(node, result)
        return result

    def is_result(self, node: Node) -> bool:
        """Whether ``node``, one of several results, is bound to what PyTorch gives: the parameters
        of a conversion at run time are not (XNNPACK keeps them to itself)."""
        try:
            self._check(node, self.tensor(node))
        except LoweringError:
            return False
        return bool(node.meta["val"].dtype in EXTERNAL_TYPES)

    @staticmethod
    def _check(node: Node, result: Tensor | tuple[Tensor, ...]) -> None:
        """A lowering must give the shapes that PyTorch gives."""
        expected = node.meta["val"]
        if isinstance(result, tuple) or not isinstance(expected, torch.Tensor):
            return
        shape = layout.shape_of(expected)
        matches = len(shape) == result.rank and all(map(layout.same, shape, result.shape))
        if not matches:
            raise LoweringError(f"its lowering has shape {result.shape}, PyTorch's {shape}")

    def tensor(self, argument: object) -> Tensor:
        if isinstance(argument, Node) and self.bound(argument) is None:
            if is_constant(argument) and argument.op != "get_attr":
                self.bind(argument, self._lowered(argument))
            elif argument in self.given_up or (
                argument.op != "get_attr" and argument not in self.group
            ):
                self.bind(argument, self._external(argument))
        return super().tensor(argument)

    def placed_tensors(self) -> Iterator[Tensor]:
        """Inputs that no node has read yet, too: one of them may be all that has some size."""
        yield from super().placed_tensors()
        sources = (source for node in self._order for source in node.all_input_nodes)
        for source in dict.fromkeys(sources):
            value = source.meta.get("val")
            if (
                self.bound(source) is None
                and source not in self.group
                and not is_constant(source)
                and isinstance(value, torch.Tensor)
                and value.dtype in EXTERNAL_TYPES
            ):
                yield self.tensor(source)

    def materialize(self, tensor: Tensor) -> Tensor:
        return written_out(self, tensor)

    def reshape_dynamic(self, tensor: Tensor, shape: layout.Shape) -> Tensor:
        return reshaped(self, tensor, shape)

    def _external(self, node: Node) -> Tensor:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise LoweringError(f"it needs {node.name}, which is a number computed at run time")
        shape = layout.shape_of(value)
        self.inputs.append(node)
        return self.input(shape, layout.identity(len(shape)), value.dtype, len(self.inputs) - 1)
