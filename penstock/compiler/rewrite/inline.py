"""Puts what was recorded of an operator into the graph, in its place."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node

from penstock.compiler.fx.edit import add_attribute, copy_origin, fake
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.fx.record import Call, Recording
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.definitions import tensor_inputs
from penstock.compiler.rewrite.remove_no_ops import ASSERTIONS
from penstock.errors import UnsupportedError


def hopeless(node: Node) -> UnsupportedError:
    return UnsupportedError(
        f"{node.target} has neither a kernel nor a decomposition; compute it from other operators, "
        f"or outside of the model{describe_origin(node)}"
    )


def inline(module: GraphModule, node: Node, sizes: SizeNodes, recording: Recording) -> list[Node]:
    """Replaces ``node`` by the calls of ``recording``, which was made of the values of its tensor
    inputs; returns the new nodes."""
    return Inlining(module, node, tensor_inputs(node), sizes).run(recording)


def _equate_sizes(known: Any, made: Any) -> None:
    """Sizes that depend on data are new symbols of what was made; what is known of those of the
    node (that ``torch._check`` bounds them, say) holds for them too."""
    if _is_tensor(known) and _is_tensor(made) and known.dim() == made.dim():
        for one, other in zip(known.shape, made.shape, strict=True):
            if isinstance(one, torch.SymInt) and not one.node.has_hint():
                torch._check(one == other)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


class Inlining:
    """Puts recorded calls into the graph, before ``node``, and its readers onto their result."""

    def __init__(
        self, module: GraphModule, node: Node, sources: list[Node], sizes: SizeNodes
    ) -> None:
        self.module = module
        self.node = node
        self.sizes = sizes
        self.made: list[Node] = []
        self.nodes = {id(source.meta["val"]): source for source in sources}

    def insert(self, calls: Sequence[Call], results: Sequence[torch.Tensor]) -> list[Node]:
        """Puts ``calls`` there; the nodes of ``results``."""
        with self.module.graph.inserting_before(self.node):
            for call in calls:
                if call.target not in ASSERTIONS:
                    self._insert(call)
            return [self._argument(result) for result in results]

    def run(self, recording: Recording) -> list[Node]:
        with self.module.graph.inserting_before(self.node):
            for call in recording.calls:
                if call.target is torch.ops.aten.clone.default:
                    self.nodes[id(call.result)] = self._argument(call.args[0])
                elif call.target not in ASSERTIONS:
                    self._insert(call)
            _equate_sizes(self.node.meta["val"], recording.result)
            self._replace(recording.result)
        return self.made

    def _insert(self, call: Call) -> None:
        args, kwargs = torch.fx.node.map_aggregate((call.args, call.kwargs), self._argument)
        fresh = self._add(call.target, args, dict(kwargs), call.result)
        if isinstance(call.result, (tuple, list)):
            for number, item in enumerate(call.result):
                if _is_tensor(item):
                    self.nodes[id(item)] = self._add(operator.getitem, (fresh, number), {}, item)
        elif _is_tensor(call.result):
            self.nodes[id(call.result)] = fresh
        else:
            self.sizes.know(call.result, fresh)

    def _add(self, target: Any, args: Any, kwargs: dict[str, Any], value: Any) -> Node:
        fresh = self.module.graph.call_function(target, tuple(args), kwargs)
        fresh.meta["val"] = value
        copy_origin(self.node, fresh)
        self.made.append(fresh)
        return fresh

    def _argument(self, value: Any) -> Any:
        if _is_tensor(value):
            return self.nodes[id(value)] if id(value) in self.nodes else self._constant(value)
        return self.sizes.replace(value)

    def _constant(self, tensor: torch.Tensor) -> Node:
        if isinstance(tensor, FakeTensor):
            if tensor.constant is None:
                raise hopeless(self.node)
            tensor = tensor.constant
        name = add_attribute(self.module, tensor, "_constant")
        made = self.module.graph.create_node("get_attr", name)
        made.meta["val"] = fake(self.module, tensor)
        self.nodes[id(tensor)] = made
        return made

    def _replace(self, result: Any) -> None:
        node = self.node
        if not isinstance(node.meta["val"], (tuple, list)):
            node.replace_all_uses_with(self._argument(result))
        else:
            for user in list(node.users):
                assert user.target is operator.getitem
                user.replace_all_uses_with(self._argument(result[user.args[1]]))
                node.graph.erase_node(user)
        node.graph.erase_node(node)
