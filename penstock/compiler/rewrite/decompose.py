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

from penstock.compiler.kernels import KernelNameError, out_variant
from penstock.compiler.rewrite.edit import add_attribute, copy_origin, fake_mode
from penstock.compiler.rewrite.sizes import SizeNodes
from penstock.errors import UnsupportedError
from penstock.formats.kernel_names import stock_kernels

aten = torch.ops.aten
#: A decomposition of a decomposition of … is followed this far.
MAX_DEPTH = 8


def apply(module: GraphModule) -> int:
    """Given an operator that no kernel implements → Result: the operators of its ATen
    decomposition (views become their copying twins), until every one has a kernel.

    Raises :class:`UnsupportedError` where that leads nowhere.
    """
    changes = 0
    for node in list(module.graph.nodes):
        changes += _decompose(module, node, 0)
    return changes


def has_kernel(target: Any) -> bool:
    """Whether the stock runtime has a kernel for the overload or its out variant."""
    if target is operator.getitem or not isinstance(target, torch._ops.OpOverload):
        return True  # sizes and their arithmetic; the emitter knows those
    if target in (aten.sym_size.int, aten.sym_numel.default, aten.copy_.default):
        return True
    try:
        out, _ = out_variant(target)
    except KernelNameError:
        return False
    name = f"{out._schema.name}.{out._overloadname}"
    return name in stock_kernels() or target.namespace not in ("aten", "prims")


def _decompose(module: GraphModule, node: Node, depth: int) -> int:
    if node.op != "call_function" or has_kernel(node.target):
        return 0
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    copying = copying_twin(target)
    if copying is not None and has_kernel(copying):
        node.target = copying
        return 1
    if depth == MAX_DEPTH:
        raise UnsupportedError(f"{target} has no kernel, and its decomposition does not end")
    return 1 + sum(
        _decompose(module, made, depth + 1) for made in inline_decomposition(module, node)
    )


def copying_twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """``aten.permute.default`` → ``aten.permute_copy.default``."""
    name = target._schema.name.split("::")[1]
    packet = getattr(getattr(torch.ops, target.namespace), f"{name}_copy", None)
    if packet is None or target._overloadname not in packet.overloads():
        return None
    twin = getattr(packet, target._overloadname)
    return twin if isinstance(twin, torch._ops.OpOverload) else None


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(torch._decomp.core_aten_decompositions())
    from torch._decomp import decomposition_table

    # Not in the core set, but without a kernel otherwise.
    for target in decomposition_table:
        if isinstance(target, torch._ops.OpOverload) and not has_kernel(target):
            table.setdefault(target, decomposition_table[target])
    return {
        target: function
        for target, function in table.items()
        if not isinstance(target, torch._ops.OpOverload) or not has_kernel(target)
    }


def inline_decomposition(module: GraphModule, node: Node) -> list[Node]:
    """Replaces ``node`` by its decomposition into smaller ATen operators; returns the new nodes."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    sources = [item for item in node.all_input_nodes if _is_traced(item.meta.get("val"))]
    position = {source: number for number, source in enumerate(sources)}

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs),
            lambda item: tensors[position[item]] if item in position else item.meta["val"],
        )
        return target(*args, **kwargs)

    with fake_mode(module), torch.no_grad():
        traced = make_fx(call, decomposition_table=_table(), tracing_mode="real")(
            *(source.meta["val"] for source in sources)
        )
    inner = [n for n in traced.graph.nodes if n.op == "call_function"]
    if any(n.target is target for n in inner):
        raise UnsupportedError(f"{target} has no kernel and no decomposition")
    return _inline(module, node, traced, sources)


def _is_traced(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _inline(
    module: GraphModule, node: Node, traced: GraphModule, sources: list[Node]
) -> list[Node]:
    graph = module.graph
    sizes = SizeNodes(module, node)
    env: dict[Node, Any] = {}
    made: list[Node] = []
    inputs = iter(sources)
    with graph.inserting_before(node):
        for inner in traced.graph.nodes:
            if inner.op == "placeholder":
                env[inner] = next(inputs)
            elif inner.op == "get_attr":
                tensor = getattr(traced, str(inner.target))
                if isinstance(tensor, FakeTensor):
                    raise UnsupportedError(f"{node.target} cannot be decomposed")
                copied = graph.create_node("get_attr", add_attribute(module, tensor, "_constant"))
                copied.meta["val"] = inner.meta.get("val", tensor)
                env[inner] = copied
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


def _replace(node: Node, result: Any) -> None:
    if isinstance(result, Node):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(result[user.args[1]])
            node.graph.erase_node(user)
    node.graph.erase_node(node)
