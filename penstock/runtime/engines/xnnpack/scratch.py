"""Scratch memory that XNNPACK plans once and does not plan again when it no longer suffices.

An operator may ask for scratch memory beside its inputs and outputs. When shapes change, XNNPACK
plans its memory anew if an operator asks for more than at its last shapes; only the reduction does
not tell that it does (google/XNNPACK issue 9982, up to the version of executorch 1.5.1). It then
writes past what it was given, into other values or past the end of the workspace. Sums of float32
need no scratch memory; those of other types hold their accumulators there, one for each result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TypeAlias

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape, XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes

#: What the nodes of one graph need at some shapes; equal needs can share a plan.
Needs: TypeAlias = "tuple[int, ...]"


def reductions(graph: XnnGraph) -> tuple[int, ...]:
    """The values, by id, that are computed with the help of unannounced scratch memory."""
    means = [node for node in graph.nodes if node.kind is NodeKind.GLOBAL_AVG_POOLING_2D]
    if not means:
        return ()
    other = {v.id for v in graph.values if v.dtype is not DataType.FP32}
    return tuple(node.outputs[0] for node in means if node.inputs[0] in other)


def nodes_to_replan(graph: XnnGraph) -> list[Node]:
    """The nodes of ``graph``, so written that XNNPACK's memory can be planned anew for them.

    What is reshaped to sizes that are all given, XNNPACK takes to be of a shape that never changes,
    which its outputs must not be: one size is left to be found out, where that matters.
    """
    if not reductions(graph):
        return graph.nodes
    return [_opened(node) for node in graph.nodes]


def _opened(node: Node) -> Node:
    sizes = node.attributes.new_shape if isinstance(node.attributes, ReshapeAttributes) else ()
    if not sizes or not all(sizes):
        return node
    return replace(node, attributes=ReshapeAttributes((0, *sizes[1:])))


def needs(ids: Sequence[int], shapes: Mapping[int, Shape]) -> Needs:
    """How many accumulators each of ``ids`` has at ``shapes``."""
    return tuple(prod(shapes[i]) for i in ids)
