"""Operators without a kernel become smaller ones that have one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from penstock.compiler import kernels
from penstock.compiler.rewrite import functionalize
from penstock.compiler.rewrite.decompositions import DECOMPOSITIONS, of_prims
from penstock.compiler.rewrite.edit import add_attribute, copy_origin, fake_mode
from penstock.compiler.rewrite.sizes import SizeNodes
from penstock.errors import UnsupportedError

#: A decomposition of a decomposition of … is followed this far.
MAX_DEPTH = 8


def apply(module: GraphModule) -> int:
    """Given an operator that no kernel implements → Result: the operators of its decomposition
    (views become their copying twins), until every one has a kernel.

    What decomposes and what does not follows from the list of the kernels. Raises
    :class:`UnsupportedError` where that leads nowhere.
    """
    sizes = SizeNodes(module)
    changes = 0
    for node in list(module.graph.nodes):
        changes += _decompose(module, node, sizes, 0)
    return changes


def needs_nothing(target: Any) -> bool:
    """Whether there is a kernel, or (sizes, their arithmetic, delegate calls) nothing to run."""
    return not isinstance(target, torch._ops.OpOverload) or kernels.find(target) is not None


def _decompose(module: GraphModule, node: Node, sizes: SizeNodes, depth: int) -> int:
    if node.op != "call_function" or needs_nothing(node.target):
        return 0
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    twin = kernels.copying_twin(target)
    if twin is not None:
        node.target = twin
        return 1
    if depth == MAX_DEPTH:
        raise UnsupportedError(f"{target} has no kernel, and its decomposition does not end")
    made = inline_decomposition(module, node, sizes)
    return 1 + sum(_decompose(module, item, sizes, depth + 1) for item in made)


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    """How operators without a kernel decompose: as Penstock says, else as the core ATen set does,
    else by whatever PyTorch has."""
    known = torch._decomp.decomposition_table
    everything = of_prims() | known | torch._decomp.core_aten_decompositions() | DECOMPOSITIONS
    return {
        target: function
        for target, function in everything.items()
        if isinstance(target, torch._ops.OpOverload)
        and not needs_nothing(target)
        and kernels.copying_twin(target) is None
    }


def inline_decomposition(module: GraphModule, node: Node, sizes: SizeNodes) -> list[Node]:
    """Replaces ``node`` by its decomposition into smaller ATen operators; returns the new nodes."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    sources = [item for item in node.all_input_nodes if _is_tensor(item.meta.get("val"))]
    position = {source: number for number, source in enumerate(sources)}

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs),
            lambda item: tensors[position[item]] if item in position else item.meta["val"],
        )
        return target(*args, **kwargs)

    traced = _trace(module, call, [source.meta["val"] for source in sources])
    if any(item.target is target for item in traced.graph.nodes):
        raise UnsupportedError(
            f"{target} has neither a kernel nor a decomposition (node {node.name})"
        )
    return _inline(module, node, traced, sources, sizes)


def _trace(module: GraphModule, function: Callable[..., Any], inputs: list[Any]) -> GraphModule:
    with (
        fake_mode(module),
        torch.no_grad(),
        # else recurrent cells end in one operator of that library
        torch.backends.mkldnn.flags(enabled=False),
    ):
        traced = make_fx(function, decomposition_table=_table(), tracing_mode="real")(*inputs)
    functionalize.apply(traced)
    traced.graph.eliminate_dead_code()
    return traced


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _inline(
    module: GraphModule, node: Node, traced: GraphModule, sources: list[Node], sizes: SizeNodes
) -> list[Node]:
    graph = module.graph
    env: dict[Node, Any] = {}
    made: list[Node] = []
    inputs = iter(sources)
    result: Any = None
    with graph.inserting_before(node):
        for inner in traced.graph.nodes:
            if inner.op == "placeholder":
                env[inner] = next(inputs)
            elif inner.op == "get_attr":
                env[inner] = _constant(module, node, getattr(traced, str(inner.target)))
            elif inner.op == "call_function":
                args, kwargs = torch.fx.node.map_arg(
                    (inner.args, inner.kwargs), lambda item: env[item]
                )
                args, kwargs = sizes.replace(args), sizes.replace(kwargs)
                fresh = graph.call_function(inner.target, args, kwargs)
                fresh.meta["val"] = inner.meta["val"]
                copy_origin(node, fresh)
                env[inner] = fresh
                made.append(fresh)
            elif inner.op == "output":
                result = torch.fx.node.map_arg(inner.args[0], lambda item: env[item])
    _replace(node, result)
    return made


def _constant(module: GraphModule, node: Node, tensor: torch.Tensor) -> Node:
    if isinstance(tensor, FakeTensor):
        raise UnsupportedError(f"{node.target} cannot be decomposed (node {node.name})")
    made = module.graph.create_node("get_attr", add_attribute(module, tensor, "_constant"))
    with fake_mode(module):
        made.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made


def _replace(node: Node, result: Any) -> None:
    if isinstance(node.meta["val"], torch.Tensor):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(result[user.args[1]])
            node.graph.erase_node(user)
    node.graph.erase_node(node)
