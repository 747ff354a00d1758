"""Operators without a kernel become smaller ones that have one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from penstock.compiler import kernels, report
from penstock.compiler.arguments import arguments
from penstock.compiler.rewrite import functionalize
from penstock.compiler.rewrite.decompositions import DECOMPOSITIONS, RESTRICTED, of_prims
from penstock.compiler.rewrite.edit import add_attribute, copy_origin, fake_mode
from penstock.compiler.rewrite.remove_no_ops import ASSERTIONS
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
    if node.op != "call_function":
        return 0
    function = _restricted(node)
    if function is None and needs_nothing(node.target):
        return 0
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    twin = None if function else kernels.copying_twin(target)
    if twin is not None:
        node.target = twin
        return 1
    if depth == MAX_DEPTH:
        raise UnsupportedError(f"{target} has no kernel, and its decomposition does not end")
    made = inline_decomposition(module, node, sizes, function or target)
    return 1 + sum(_decompose(module, item, sizes, depth + 1) for item in made)


def _restricted(node: Node) -> Callable[..., Any] | None:
    """What to compute instead of an operator whose kernel does not take these arguments."""
    found = RESTRICTED.get(node.target)
    return found[1] if found is not None and found[0](arguments(node)) else None


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


def inline_decomposition(
    module: GraphModule, node: Node, sizes: SizeNodes, function: Callable[..., Any]
) -> list[Node]:
    """Replaces ``node`` by what ``function`` (its target, or another way to compute that) comes
    to in operators that have kernels; returns the new nodes."""
    sources = [item for item in node.all_input_nodes if _is_tensor(item.meta.get("val"))]
    position = {source: number for number, source in enumerate(sources)}

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs),
            lambda item: tensors[position[item]] if item in position else item.meta["val"],
        )
        return function(*args, **kwargs)

    try:
        traced = _trace(module, call, [source.meta["val"] for source in sources])
    except RecursionError:  # PyTorch's table goes round in a circle
        raise _hopeless(node) from None
    if any(item.target is function for item in traced.graph.nodes):
        raise _hopeless(node)
    return _inline(module, node, traced, sources, sizes)


def _hopeless(node: Node) -> UnsupportedError:
    where = report.describe_origin(node)
    return UnsupportedError(f"{node.target} has neither a kernel nor a decomposition{where}")


def _trace(module: GraphModule, function: Callable[..., Any], inputs: list[Any]) -> GraphModule:
    with (
        fake_mode(module),
        torch.no_grad(),
        enable_python_dispatcher(),
        # else recurrent cells end in one operator of that library
        torch.backends.mkldnn.flags(enabled=False),
    ):
        traced = make_fx(function, decomposition_table=_table(), tracing_mode="real")(*inputs)
        if any(map(functionalize.writes_to_a_view, traced.graph.nodes)):
            # Only torch can follow these, at some cost.
            traced = make_fx(torch.func.functionalize(traced), tracing_mode="real")(*inputs)
    functionalize.apply(traced)
    for node in list(traced.graph.nodes):
        if node.target in ASSERTIONS:
            traced.graph.erase_node(node)
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
                fresh.meta["val"] = inner.meta["val"] if "val" in inner.meta else _value(inner)
                copy_origin(node, fresh)
                env[inner] = fresh
                made.append(fresh)
            elif inner.op == "output":
                result = torch.fx.node.map_arg(inner.args[0], lambda item: env[item])
    _replace(node, result)
    return made


def _value(node: Node) -> Any:
    """The value of a traced call that the tracer left without one (of numbers, mostly)."""
    assert callable(node.target)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda item: item.meta["val"])
    return node.target(*args, **kwargs)


def _constant(module: GraphModule, node: Node, tensor: torch.Tensor) -> Node:
    if isinstance(tensor, FakeTensor):
        raise UnsupportedError(f"{node.target} cannot be decomposed (node {node.name})")
    made = module.graph.create_node("get_attr", add_attribute(module, tensor, "_constant"))
    with fake_mode(module):
        made.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made


def _replace(node: Node, result: Any) -> None:
    if not isinstance(node.meta["val"], (tuple, list)):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(result[user.args[1]])
            node.graph.erase_node(user)
    node.graph.erase_node(node)
