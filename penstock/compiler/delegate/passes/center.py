"""Fold the mean subtraction of layer norms into the weights that produce their input."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index, moves_rows
from penstock.graph.kinds import Conv2dAttributes, NodeKind, ReshapeAttributes

SUMS = {NodeKind.ADD, NodeKind.SUBTRACT}
FACTORS = {NodeKind.MULTIPLY, NodeKind.DIV}


def _is_product(node: Node) -> bool:
    """Whether the node's weights hold the output channels along dimension 0."""
    return node.kind.traits.output_axis == 0


class Difference(NamedTuple):
    """The node that takes the mean of a value's rows, and the one that subtracts it from them."""

    mean: Node
    subtract: Node


@dataclass
class Stream:
    """Values that are centred together or not at all, and how.

    ``links`` make values of the stream of centred inputs, ``products`` of anything; with a link
    are its inputs that must be centred: values of the stream, constants, or some that come from
    outside. Those from ``outside``, and values of the stream that something else than a link or a
    product makes, take a mean and a difference of their own.
    """

    values: set[int] = field(default_factory=set)
    links: list[tuple[Node, tuple[int, ...]]] = field(default_factory=list)
    products: list[Node] = field(default_factory=list)
    outside: set[int] = field(default_factory=set)


def apply(graph: XnnGraph) -> None:
    """Given ``x - mean(x)`` over the last dimension, ``x`` made of products with constant weights
    and of constants by sums, factors per row and movement of whole rows, everything on the way read
    up to a constant per row only (by differences from the mean; by what makes ``x``) → Result
    ``x``, the weights, biases and constants centred: ``w - mean(w)`` over the output channels.
    (All layer norms of a pre-norm transformer, the first one after a convolution.) Something else
    that goes into ``x`` is centred by a mean and a difference of its own if at least two fewer
    than before are left. The centring is done in float64, and sums of small numbers lose less
    than those that carry a mean: the answer is at least as exact as before."""
    index = Index(graph)
    differences = {value: found for value in index.values if (found := _differences(index, value))}
    free = _shift_free(index, differences)
    for value in differences:
        if value in free and index.readers[value]:
            stream = _stream(index, value, free, differences)
            free -= stream.values
            _collapse(index, stream, differences)
            if _pays(index, stream, differences):
                _centre(index, stream, differences)
    index.finish()


# --- who notices a constant that is added to a row -----------------------------------------------


def _differences(index: Index, value: int) -> list[Difference]:
    """Every ``value - mean(value)``; empty where a mean of it is read by something else."""
    found = []
    for mean in index.readers[value]:
        if not _is_mean(index, mean, value):
            continue
        for reader in index.readers[mean.outputs[0]]:
            result = index.values[reader.outputs[0]]
            if (
                reader.kind is not NodeKind.SUBTRACT
                or reader.inputs != (value, mean.outputs[0])
                or reader.clamp is not None
                or result.is_output
                or result.shape != index.values[value].shape
            ):
                return []
            found.append(Difference(mean, reader))
    return found


def _is_mean(index: Index, node: Node, value: int) -> bool:
    """Whether ``node`` takes the mean of each row of ``value``."""
    if node.kind is not NodeKind.FULLY_CONNECTED or node.inputs[0] != value:
        return False
    if node.clamp is not None or node.flags or node.inputs[2:] not in ((), (INVALID_VALUE_ID,)):
        return False
    weight, mean = index.values[node.inputs[1]], index.values[node.outputs[0]]
    channels = index.values[value].shape[-1]
    if channels < 2 or weight.shape != (1, channels) or mean.is_output:
        return False
    if weight.data is None or not _plain(weight) or not _plain(index.values[value]):
        return False
    return bool((np.asarray(weight.data) == np.float32(1 / channels)).all())


def _plain(value: Value) -> bool:
    return value.dtype is DataType.FP32 and value.quantization is None


def _shift_free(index: Index, differences: dict[int, list[Difference]]) -> set[int]:
    """The values of which every reader wants the rows only up to a constant. Readers come later
    in the graph than what they read, so one pass from its end finds them."""
    free: set[int] = set()
    made = [output for node in reversed(index.graph.nodes) for output in node.outputs]
    for value in (*made, *index.graph.inputs):
        item = index.values[value]
        if item.is_output or item.data is not None or not _plain(item) or not index.readers[value]:
            continue
        own = [node for difference in differences.get(value, ()) for node in difference]
        if all(
            any(reader is node for node in own)
            or (reader.outputs[0] in free and value in _linear(index, reader))
            for reader in index.readers[value]
        ):
            free.add(value)
    return free


def _linear(index: Index, node: Node) -> tuple[int, ...]:
    """The inputs of ``node`` that, centred, give its output centred; none if that is not so."""
    if node.clamp is not None or len(node.outputs) != 1:
        return ()
    output = index.values[node.outputs[0]]
    channels = output.shape[-1:]
    if not _plain(output) or channels in ((), (1,)):
        return ()
    sources = [index.values[value] for value in node.inputs if value in index.values]
    whole = [source.shape[-1:] == channels and _plain(source) for source in sources]
    per_row = [source.shape[-1:] in ((), (1,)) for source in sources]
    if node.kind in (*SUMS, NodeKind.NEGATE):
        return node.inputs if all(whole) else ()
    if node.kind in FACTORS and whole[0] and per_row[1]:
        return node.inputs[:1]
    if node.kind is NodeKind.MULTIPLY and per_row[0] and whole[1]:
        return node.inputs[1:]
    if all(whole) and all(moves_rows(node, source, output) for source in sources):
        shape = node.attributes.new_shape if isinstance(node.attributes, ReshapeAttributes) else ()
        if 0 not in shape or (shape[-1] != 0 and _has_fixed_rows(index, node.inputs[0])):
            return node.inputs
    return ()


def _has_fixed_rows(index: Index, value: int) -> bool:
    """Whether the last dimension is known not to vary (of a dynamic one, shapes tell the upper
    bound only, so that a reshape seems to keep rows whole which it does not)."""
    while (node := index.producer.get(value)) is not None:
        if _is_product(node):
            return True
        if isinstance(node.attributes, ReshapeAttributes):
            return node.attributes.new_shape[-1] != 0
        linear = _linear(index, node)
        if not linear:
            return False
        value = linear[0]
    return index.values[value].data is not None


# --- what is centred together --------------------------------------------------------------------


def _stream(
    index: Index, start: int, free: set[int], differences: dict[int, list[Difference]]
) -> Stream:
    """All that is connected with ``start`` by links."""
    stream = Stream()
    todo = [start]
    while todo:
        value = todo.pop()
        if value in stream.values:
            continue
        stream.values.add(value)
        own = [node for difference in differences.get(value, ()) for node in difference]
        todo += (
            reader.outputs[0]
            for reader in index.readers[value]
            if not any(reader is node for node in own)
        )
        producer = index.producer.get(value)
        linear = () if producer is None else _linear(index, producer)
        if producer is not None and linear:
            stream.links.append((producer, linear))
            todo += (source for source in linear if source in free)
        elif producer is not None and _centrable(index, producer):
            stream.products.append(producer)
        else:
            stream.outside.add(value)
    for _, linear in stream.links:
        for source in linear:
            if source not in stream.values and not _is_finite(index.values[source]):
                stream.outside.add(source)
    return stream


def _is_finite(value: Value) -> bool:
    """Whether ``value`` is a constant of finite numbers."""
    return value.data is not None and bool(np.isfinite(np.asarray(value.data)).all())


def _centrable(index: Index, node: Node) -> bool:
    """Whether the output of ``node`` can be centred in its weights and bias."""
    conv = node.attributes
    if not _is_product(node) or node.clamp is not None or node.flags:
        return False
    if isinstance(conv, Conv2dAttributes) and conv.groups != 1:
        return False
    if index.only_reader(node.inputs[1]) is None:
        return False  # tied weights would be there twice
    return all(
        _plain(index.values[value]) and _is_finite(index.values[value])
        for value in node.inputs[1:]
        if value != INVALID_VALUE_ID
    )


def _collapse(index: Index, stream: Stream, differences: dict[int, list[Difference]]) -> None:
    """Given a link of which all inputs come from outside and go nowhere else in the stream →
    Result: its output comes from outside. (The sum of two embeddings is centred, not both.)"""
    places = {id(node): place for place, node in enumerate(index.graph.nodes)}
    for link in sorted(stream.links, key=lambda link: places[id(link[0])]):
        sources = {source for source in link[1] if index.values[source].data is None}
        if not sources or not sources <= stream.outside:
            continue
        if any(differences.get(source) for source in sources):
            continue
        if any(sources.intersection(other[1]) for other in stream.links if other is not link):
            continue
        stream.outside -= sources
        stream.values -= sources
        stream.outside.add(link[0].outputs[0])
        stream.links = [other for other in stream.links if other is not link]


def _pays(index: Index, stream: Stream, differences: dict[int, list[Difference]]) -> bool:
    if any(index.values[value].data is not None for value in stream.outside):
        return False  # a constant with infinities
    fewer = sum(len(differences.get(value, ())) for value in stream.values)
    # What is read by a difference already has its mean taken in any case.
    more = sum(value in stream.values or not differences.get(value) for value in stream.outside)
    return fewer - more >= (2 if more else 1)


# --- centring ------------------------------------------------------------------------------------


def _centre(index: Index, stream: Stream, differences: dict[int, list[Difference]]) -> None:
    pattern = next(found[0] for value in stream.values if (found := differences.get(value)))
    for node in stream.products:
        weight, *bias = (
            value if value == INVALID_VALUE_ID else _centred(index, value, 0)
            for value in node.inputs[1:]
        )
        index.set_inputs(node, (node.inputs[0], weight, *bias))
    new = {value: _difference(index, value, pattern) for value in stream.outside}
    for node, linear in stream.links:
        for source in linear:
            if index.values[source].data is not None and source not in new:
                new[source] = _centred(index, source, -1)
        inputs = (new.get(value, value) if value in linear else value for value in node.inputs)
        index.set_inputs(node, tuple(inputs))
    for value in stream.values | stream.outside:
        means = []
        for mean, subtract in differences.get(value, ()):
            if index.alive(subtract):
                index.replace(subtract, new.get(value, value))
                means.append(mean)
        for mean in means:
            if index.alive(mean):  # several may read one
                index.remove(mean)


def _centred(index: Index, constant: int, axis: int) -> int:
    """A constant less its mean over ``axis``."""
    value = index.values[constant]
    data = np.asarray(value.data)
    mean = data.mean(axis=axis, dtype=np.float64, keepdims=True)
    centred = np.empty(data.shape, np.float32)
    np.subtract(data, mean, out=centred, casting="same_kind")  # in float64
    return index.new_value(replace(value, data=centred))


def _difference(index: Index, value: int, pattern: Difference) -> int:
    """``value`` less the mean of its rows, taken right where it is made."""
    source = index.values[value]
    mean = index.new_value(replace(source, shape=(*source.shape[:-1], 1)))
    result = index.new_value(replace(source))
    nodes = (
        replace(pattern.mean, inputs=(value, *pattern.mean.inputs[1:]), outputs=(mean,)),
        replace(pattern.subtract, inputs=(value, mean), outputs=(result,)),
    )
    producer = index.producer.get(value)
    for node in reversed(nodes):
        if producer is not None:
            index.insert_after(producer, node)
        else:
            index.insert_before(index.graph.nodes[0], node)
    return result
