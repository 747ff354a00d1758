"""Decompose operators that XNNPACK lacks into operators that it has."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate, map_arg

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.partition import reason_against
from penstock.compiler.fx import layout
from penstock.compiler.fx.edit import fake_mode
from penstock.compiler.fx.marks import REFUSED_IN_DEFINITION
from penstock.compiler.fx.record import Recording
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite import computed_weights, fold_constants, remove_no_ops
from penstock.compiler.rewrite.definitions import Definitions, definition, recorded
from penstock.compiler.rewrite.inline import inline
from penstock.compiler.rewrite.remove_no_ops import NO_OPS
from penstock.errors import UnsupportedError

#: An operator that was left alone this often, with the same options and as many dimensions, is not
#: tried again.
MOST_REFUSALS = 3


def apply(module: GraphModule) -> int:
    """Given an operator on floats that has no entry, or whose entry refuses it (``einsum``,
    ``huber_loss``, ``addmm`` with factors …) → Result: what PyTorch's definition of it comes to,
    if XNNPACK takes all of that; else it stays as it is."""
    candidates = [node for node in module.graph.nodes if _is_candidate(node)]
    if not candidates:
        return 0
    sizes = SizeNodes(module)
    refusals: Counter[str] = Counter()
    said: dict[str, str | None] = {}
    changes = 0
    with fake_mode(module):
        for node in candidates:
            use = _use(node)
            if refusals[use] >= MOST_REFUSALS:
                node.meta[REFUSED_IN_DEFINITION] = said[use]
                continue
            recording = _recorded(node)
            refused = None if recording is None else _reason_against(node, recording)
            if recording is None or refused is not None:
                refusals[use] += 1
                node.meta[REFUSED_IN_DEFINITION] = said[use] = refused
                continue
            inline(module, node, sizes, recording)
            changes += 1
    if changes:
        remove_no_ops.apply(module)
        fold_constants.apply(module)
    return changes


def _is_candidate(node: Node) -> bool:
    """An ATen operator that gives a float32 tensor and is not delegated as it is."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    if not isinstance(first, torch.Tensor) or first.dtype != torch.float32:
        return False
    if not any(isinstance(s.meta.get("val"), torch.Tensor) for s in node.all_input_nodes):
        return False
    return reason_against(node) is not None and definition(target) is not None


def _use(node: Node) -> str:
    """The operator with its options and the ranks of its tensors: what mostly decides about it."""

    def shown(source: Node) -> str:
        value = source.meta.get("val")
        return f"{value.dim()}d" if isinstance(value, torch.Tensor) else "computed"

    return f"{node.target} {map_arg((node.args, node.kwargs), shown)}"


def _stops(target: torch._ops.OpOverload) -> bool:
    """At what is delegated, gone, or made of a size alone: PyTorch's definitions of such tensors go
    round in a circle."""
    if registry.find(target) is not None or target in NO_OPS:
        return True
    kinds = (str(argument.type) for argument in target._schema.arguments)
    return target in fold_constants.SHAPE_ONLY or not any("Tensor" in kind for kind in kinds)


_MISSING = Definitions(_stops)


def _recorded(node: Node) -> Recording | None:
    """What the node's operator comes to; ``None`` where that cannot be found out."""
    assert isinstance(node.target, torch._ops.OpOverload)
    function = computed_weights.definition_for(node) or definition(node.target)
    assert function is not None
    try:
        return recorded(node, function, _MISSING)
    except (RuntimeError, TypeError, ValueError, IndexError, UnsupportedError):
        # The definition needs values, goes round in a circle, or is not for these arguments.
        return None


# --- would it be delegated? --------------------------------------------------------------------


def _reason_against(node: Node, recording: Recording) -> str | None:
    """What the entries say against the first of the recorded calls that is not delegated; they are
    asked about a sketch."""
    graph = Graph()
    known: dict[int, Node] = {}
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            twin = graph.create_node("get_attr", str(source.target))
        else:
            twin = graph.placeholder(source.name)
        twin.meta = source.meta
        known[id(source.meta.get("val"))] = twin
    made: list[Node] = []

    def argument(value: Any) -> Any:
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            size = graph.placeholder("size")  # computed by nodes once this is more than a sketch
            size.meta["val"] = value
            return size
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in known:
            known[id(value)] = graph.create_node("get_attr", f"constant_{len(known)}")
            known[id(value)].meta["val"] = value
        return known[id(value)]

    for call in recording.calls:
        args, kwargs = map_aggregate((call.args, call.kwargs), argument)
        item = graph.create_node("call_function", call.target, tuple(args), dict(kwargs))
        item.meta["val"] = call.result
        if _is_constant(item):
            item = graph.create_node("get_attr", f"constant_{len(known)}")
            item.meta["val"] = call.result
        elif not (item.target in NO_OPS and NO_OPS[item.target](item)):
            made.append(item)
        if isinstance(call.result, (tuple, list)):
            for number, result in enumerate(call.result):
                piece = graph.call_function(operator.getitem, (item, number))
                piece.meta["val"] = result
                known[id(result)] = piece
        else:
            known[id(call.result)] = item
    for item in made:
        reason = reason_against(item)
        if reason is not None:
            return f"its definition has {item.target}: {reason}"
    return None


def _is_constant(item: Node) -> bool:
    """Whether the call gives the same whatever the inputs are."""
    sources = item.all_input_nodes
    if item.target in fold_constants.SHAPE_ONLY and layout.is_static(
        layout.shape_of(item.meta["val"])
    ):
        sources = [source for source in sources if source is not item.args[0]]
    return all(source.op == "get_attr" for source in sources)
