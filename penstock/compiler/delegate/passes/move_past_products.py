"""Commute reshapes and transposes of rows with a product, to the side where they cost less."""

from __future__ import annotations

import math
from dataclasses import replace

from penstock.compiler.delegate.passes import merge_movement
from penstock.graph.dtypes import PerToken
from penstock.graph.graph import Node, XnnGraph
from penstock.graph.index import Index, moves_rows
from penstock.graph.kinds import Attributes, NodeKind, ReshapeAttributes


def apply(graph: XnnGraph) -> None:
    """A product of rows does not mind the order of the rows, nor how they are counted.

    Given ``after(FULLY_CONNECTED(before(x)))``, both transposes of whole rows that compose to one,
    nothing else reading in between → Result ``FULLY_CONNECTED(one(x))``. (Window attention: the
    heads are put side by side, projected, and the windows put into their places.)

    Given a RESHAPE that keeps the last dimension and that several FULLY_CONNECTED read → Result
    each reads what it reshapes, and a RESHAPE behind each. Given movement behind
    a FULLY_CONNECTED that ends in a RESHAPE that several nodes read → Result it stands before the
    product. (XNNPACK's reshape is free with one reader and a copy with more.)"""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.FULLY_CONNECTED:
            _move_before(index, node)
    for node in index.walk():
        if node.kind is NodeKind.STATIC_RESHAPE:
            _move_behind(index, node)
    index.finish()


def _move_before(index: Index, product: Node) -> None:
    source = product.inputs[0]
    before, after = _exclusive_before(index, source), _rows_after(index, product)
    if not after or isinstance(index.values[source].quantization, PerToken):
        return
    hoisted = [replace(node, attributes=_resized(index, node, source)) for node in after]
    shapes = [(*index.values[n.outputs[0]].shape[:-1], _last(index, source)) for n in after]
    if _transposes(before) and _transposes(after):
        start = index.values[before[0].inputs[0]].shape
        if merge_movement.composed(start, [*before, *hoisted], shapes[-1]) is None:
            return
    else:
        longer = _last(index, source) > _last(index, product.outputs[0])
        alone = index.only_reader(source) is not None
        if not (alone and _ends_in_a_copy(index, after)) or (longer and _transposes(after)):
            return
    result = after[-1].outputs[0]
    current = source
    for node, shape in zip(hoisted, shapes, strict=True):
        made = index.new_value(replace(index.values[source], shape=shape))
        index.insert_before(product, replace(node, inputs=(current,), outputs=(made,)))
        current = made
    index.set_inputs(product, (current, *product.inputs[1:]))
    index.set_output(product, result)
    for node in reversed(after):
        index.remove(node)


def _exclusive_before(index: Index, value: int) -> list[Node]:
    """The movement that makes ``value`` and whose results nothing else reads, first node first."""
    chain: list[Node] = []
    while index.only_reader(value) is not None:
        producer = index.producer.get(value)
        if producer is None or not producer.kind.traits.rearranges:
            break
        chain.insert(0, producer)
        value = producer.inputs[0]
    return chain


def _rows_after(index: Index, product: Node) -> list[Node]:
    """The movement of whole rows behind ``product``, each the only reader of the one before, up
    to the last transpose and what restores its shape."""
    chain: list[Node] = []
    value = product.outputs[0]
    while True:
        node = index.only_reader(value)
        if node is None or not node.kind.traits.rearranges:
            return chain
        if not moves_rows(node, index.values[value], index.values[node.outputs[0]]):
            return chain
        chain.append(node)
        value = node.outputs[0]


def _transposes(chain: list[Node]) -> bool:
    return any(node.kind is NodeKind.STATIC_TRANSPOSE for node in chain)


def _ends_in_a_copy(index: Index, chain: list[Node]) -> bool:
    """Whether several nodes read the reshape that the chain ends with."""
    last = chain[-1]
    return last.kind is NodeKind.STATIC_RESHAPE and len(index.readers[last.outputs[0]]) > 1


def _last(index: Index, value: int) -> int:
    return index.values[value].shape[-1]


def _resized(index: Index, node: Node, source: int) -> Attributes | None:
    """The attributes of a movement of rows for rows as long as ``source``'s."""
    if isinstance(node.attributes, ReshapeAttributes):
        return ReshapeAttributes((*node.attributes.new_shape[:-1], _last(index, source)))
    return node.attributes


def _move_behind(index: Index, reshape: Node) -> None:
    source, target = index.values[reshape.inputs[0]], index.values[reshape.outputs[0]]
    products = list(index.readers[target.id])
    if target.is_output or len(products) < 2 or len(source.shape) < 2 or len(target.shape) < 2:
        return
    if source.shape[-1] != target.shape[-1] or math.prod(target.shape[:-1]) == 1:
        return
    for product in products:
        if product.kind is not NodeKind.FULLY_CONNECTED or target.id in product.inputs[1:]:
            return
        if index.only_reader(product.outputs[0]) is None:
            return
    assert isinstance(reshape.attributes, ReshapeAttributes)
    lead = reshape.attributes.new_shape[:-1]
    for product in products:
        result = index.values[product.outputs[0]]
        rows = index.new_value(replace(result, shape=(*source.shape[:-1], result.shape[-1])))
        index.set_inputs(product, (source.id, *product.inputs[1:]))
        back = Node(
            NodeKind.STATIC_RESHAPE, (rows,), (result.id,),
            ReshapeAttributes((*lead, result.shape[-1])), debug_handle=product.debug_handle,
        )  # fmt: skip
        index.set_output(product, rows)
        index.insert_after(product, back)
    index.remove(reshape)
