"""Generated programs and XNNPACK graphs that hold together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from penstock.formats import program as pte
from penstock.formats.payload_nodes import FORMS
from penstock.graph.checks import data_size
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    EluAttributes,
    LeakyReluAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SMALL = st.integers(0, 5)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    return tuple(draw(st.lists(SMALL, max_size=4)))


@st.composite
def tensors(draw: st.DrawFn, memory: int) -> pte.Tensor:
    shape = draw(shapes())
    order = draw(st.permutations(range(len(shape))))
    tensor = pte.Tensor(
        dtype=draw(st.sampled_from(pte.ScalarType)),
        shape=shape,
        dim_order=None if order == sorted(order) else tuple(order),
        dynamism=draw(st.sampled_from(pte.Dynamism)),
        name=draw(st.none() | NAMES),
    )
    kind = draw(st.sampled_from(("constant", "planned", "state", "bound", "external")))
    if kind == "external":
        tensor.external, tensor.name = True, draw(NAMES)
    if kind in ("planned", "state"):
        offset = draw(st.integers(0, memory - tensor.nbytes))
        tensor.allocation = pte.Allocation(draw(st.integers(1, 2)), offset)
    if kind in ("constant", "state"):
        # Few different contents, so that some are shared.
        tensor.data = bytes([draw(st.integers(0, 2))]) * tensor.nbytes
    return tensor


@st.composite
def methods(draw: st.DrawFn, name: str) -> pte.Method:
    # The second memory is so large that offsets need their high half.
    sizes = [0, 1 << 14, 1 << 40]
    values: list[Any] = [None, 7, True, draw(tensors(sizes[1])), draw(tensors(sizes[1]))]
    flag = pte.Tensor(pte.ScalarType.BOOL, ())
    values += [
        flag,
        pte.IntList((1, 0, 1)),
        pte.TensorList((3, 4)),
        pte.OptionalTensorList((-1, 3, 0)),
    ]
    integers = st.integers(-(1 << 63), (1 << 63) - 1)
    doubles = st.floats(allow_nan=False)
    values += draw(
        st.lists(
            st.one_of(
                st.none(),
                integers,
                st.booleans(),
                doubles,
                st.text(max_size=20),
                tensors(sizes[1]),
                st.builds(pte.DoubleList, st.lists(doubles).map(tuple)),
                st.builds(pte.BoolList, st.lists(st.booleans()).map(tuple)),
            ),
            max_size=12,
        )
    )
    tensor = pte.Tensor(pte.ScalarType.FLOAT, (3,), allocation=pte.Allocation(2, (1 << 40) - 12))
    values.append(tensor)
    index = st.integers(0, len(values) - 1)
    args = st.lists(index, max_size=5).map(tuple)
    delegates = draw(
        st.lists(
            st.builds(
                pte.Delegate,
                NAMES,
                st.binary(max_size=40),
                st.lists(st.builds(pte.CompileSpec, NAMES, st.binary()), max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=3,
        )
    )
    count = draw(st.integers(0, 6))
    instruction = st.one_of(
        st.builds(pte.KernelCall, st.just(0), args),
        st.builds(pte.DelegateCall, st.integers(0, len(delegates) - 1), args),
        st.builds(pte.MoveCall, index, index),
        st.builds(pte.JumpFalseCall, st.sampled_from((2, 5)), st.integers(0, count)),
        st.builds(pte.FreeCall, index),
    )
    return pte.Method(
        name=name,
        values=values,
        inputs=draw(st.lists(index, max_size=4, unique=True)),
        outputs=draw(st.lists(index, max_size=4)),
        instructions=draw(st.lists(instruction, min_size=count, max_size=count)),
        operators=[pte.Operator(draw(NAMES), draw(st.text(max_size=5)))],
        delegates=delegates,
        memory_sizes=sizes,
        input_structure=draw(st.text(max_size=9)),
        output_structure=draw(st.text(max_size=9)),
    )


@st.composite
def programs(draw: st.DrawFn) -> pte.Program:
    names = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    return pte.Program(
        [draw(methods(name)) for name in names],
        draw(st.dictionaries(NAMES, st.binary(max_size=300), max_size=4)),
        draw(st.integers(0, 9)),
    )


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(2**-100, 2**100, width=32)
_DTYPES = [dtype for dtype in DataType if dtype is not DataType.PFP32]


@st.composite
def quantizations(draw: st.DrawFn, dtype: DataType, shape: tuple[int, ...]) -> Any:
    name = dtype.name
    if name in ("QINT8", "QUINT8", "QINT32"):
        low, high = {"QINT8": (-128, 127), "QUINT8": (0, 255), "QINT32": (0, 0)}[name]
        return PerTensor(draw(POSITIVE), draw(st.integers(low, high)))
    if name.startswith("QC"):
        axis = draw(st.integers(0, len(shape) - 1))
        scales = draw(st.lists(POSITIVE, min_size=shape[axis], max_size=shape[axis]))
        return PerChannel(np.array(scales, np.float32), axis)
    if name == "QBINT4":
        size = draw(st.sampled_from([n for n in (1, 2, 3, 4) if shape[1] % n == 0]))
        count = shape[0] * shape[1] // size
        return Blockwise(np.arange(count, dtype=np.uint16), 0, size)
    if name in ("QDINT8", "QPINT8"):
        return PerToken(draw(st.integers(1, len(shape))))
    return None


@st.composite
def values(draw: st.DrawFn, id_: int, kind: str) -> Value:
    """``kind`` is "input", "constant", or "made" by a node."""
    choices = [dtype for dtype in _DTYPES if kind != "constant" or dtype.name[:2] not in "QDQP"]
    dtype = draw(st.sampled_from(choices))
    rank = 2 if dtype is DataType.QBINT4 else draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    value = Value(id_, dtype, shape, draw(quantizations(dtype, shape)))
    if kind == "constant":
        size = data_size(dtype, shape)
        value.data = draw(st.sampled_from((bytes(size), b"\1" * size)))
    return value


@st.composite
def attributes(draw: st.DrawFn, kind: NodeKind, value: Value) -> Any:
    """Attributes that a node of ``kind`` with the first input ``value`` may have."""
    shape, rank = value.shape, len(value.shape)
    counts = st.integers(1, 1 << 31)
    ranked = st.lists(SMALL, min_size=rank, max_size=rank).map(tuple)
    padding = st.tuples(SMALL, SMALL, SMALL, SMALL)
    match kind:
        case NodeKind.STATIC_TRANSPOSE:
            return TransposeAttributes(tuple(draw(st.permutations(range(rank)))))
        case NodeKind.STATIC_RESHAPE:
            return ReshapeAttributes((0, *draw(st.lists(counts, max_size=5))))
        case NodeKind.STATIC_SLICE:
            offsets = tuple(draw(st.integers(0, size)) for size in shape)
            sizes = tuple(full - offset for full, offset in zip(shape, offsets, strict=True))
            return SliceAttributes(offsets, sizes)
        case NodeKind.STATIC_CONSTANT_PAD:
            return PadAttributes(draw(ranked), draw(ranked), draw(FLOATS))
        case NodeKind.STATIC_RESIZE_BILINEAR_2D:
            return ResizeAttributes(draw(counts), draw(counts))
        case NodeKind.LEAKY_RELU:
            return LeakyReluAttributes(draw(FLOATS))
        case NodeKind.ELU:
            return EluAttributes(draw(FLOATS))
        case NodeKind.ARG_MAX_POOLING_2D:
            return Pool2dAttributes(draw(padding), draw(st.tuples(counts, counts)))
        case NodeKind.AVG_POOLING_2D:
            pair = st.tuples(counts, counts)
            return Pool2dAttributes(draw(padding), draw(pair), draw(pair))
        case NodeKind.MAX_POOLING_2D:
            pair = st.tuples(counts, counts)
            return Pool2dAttributes(draw(padding), draw(pair), draw(pair), draw(pair))
        case _:
            return None


_IMAGE_KINDS = {
    NodeKind.AVG_POOLING_2D,
    NodeKind.MAX_POOLING_2D,
    NodeKind.ARG_MAX_POOLING_2D,
    NodeKind.STATIC_RESIZE_BILINEAR_2D,
}


@st.composite
def graphs(draw: st.DrawFn) -> XnnGraph:
    """Graphs that pass the checks: types and shapes of what nodes make are arbitrary."""
    ids = iter(draw(st.permutations(range(100, 140))))
    graph = XnnGraph()

    def add(value: Value) -> Value:
        graph.values.append(value)
        return value

    ready = [add(draw(values(next(ids), "input"))) for _ in range(draw(st.integers(1, 3)))]
    for number, value in enumerate(ready):
        value.is_input, value.external_id = True, number
    graph.inputs = [value.id for value in ready]
    ready += [add(draw(values(next(ids), "constant"))) for _ in range(draw(st.integers(0, 3)))]
    for _ in range(draw(st.integers(1, 4))):
        ready += draw(nodes(graph, ready, ids))
    output = ready[-1]
    if not output.is_input and output.data is None:
        output.is_output, output.external_id = True, 3 + draw(SMALL)
        graph.outputs = [output.id]
    return graph


@st.composite
def nodes(draw: st.DrawFn, graph: XnnGraph, ready: list[Value], ids: Any) -> Any:
    """Adds a node to the graph; gives the values that it makes."""
    kind = draw(st.sampled_from(NodeKind))
    form = FORMS[kind]
    inputs = [draw(st.sampled_from(ready)) for _ in form.inputs]
    made_attributes: Any = None
    if kind in (NodeKind.CONV_2D, NodeKind.CONV_TRANSPOSE_2D, NodeKind.DEPTHWISE_CONV_2D):
        inputs[:], made_attributes = draw(convolutions(kind, ids))
        graph.values += inputs
        inputs[0].is_input, inputs[0].external_id = True, 10 + len(graph.values)
        graph.inputs.append(inputs[0].id)
    elif kind is NodeKind.FULLY_CONNECTED:
        fan_in, fan_out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        shape = (*inputs[0].shape[:-1], fan_in)
        rows = Value(next(ids), DataType.FP32, shape)
        rows.is_input, rows.external_id = True, 10 + len(graph.values)
        graph.inputs.append(rows.id)
        inputs = [rows, _constant(next(ids), (fan_out, fan_in)), _constant(next(ids), (fan_out,))]
        graph.values += inputs
    elif "CONCATENATE" in kind.name:
        inputs = [inputs[0]] * len(inputs)
        axis = draw(st.integers(0, len(inputs[0].shape) - 1))
        made_attributes = ConcatenateAttributes(axis)
    else:
        if kind in _IMAGE_KINDS:
            image = Value(next(ids), DataType.FP32, (1, 5, 5, 2))
            image.is_input, image.external_id = True, 10 + len(graph.values)
            graph.inputs.append(image.id)
            graph.values.append(image)
            inputs[0] = image
        made_attributes = draw(attributes(kind, inputs[0]))
    made = [draw(values(next(ids), "made")) for _ in form.outputs]
    graph.values += made
    optional = st.none() | st.tuples(FLOATS, FLOATS).map(sorted).map(tuple)
    input_ids = [value.id for value in inputs]
    if kind.traits.optional_bias and draw(st.booleans()):
        input_ids[-1] = INVALID_VALUE_ID
    graph.nodes.append(
        Node(
            kind,
            tuple(input_ids),
            tuple(value.id for value in made),
            made_attributes,
            draw(optional),
            0 if kind is NodeKind.FULLY_CONNECTED else draw(st.integers(0, (1 << 32) - 1)),
            draw(st.integers(0, (1 << 32) - 1)),
        )
    )
    return made


@st.composite
def convolutions(draw: st.DrawFn, kind: NodeKind, ids: Any) -> Any:
    """Input, filter and bias of a convolution, and its attributes."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel = draw(pair)
    groups, fan_in, fan_out = (draw(st.integers(1, 3)) for _ in range(3))
    shape: tuple[int, ...] = (groups * fan_out, *kernel, fan_in)
    channels = groups * fan_out
    if kind is NodeKind.DEPTHWISE_CONV_2D:
        fan_in, channels = 1, groups * fan_out
        shape = (1, *kernel, channels)
    image = Value(next(ids), DataType.FP32, (1, 4, 4, groups * fan_in))
    made = Conv2dAttributes(
        draw(st.tuples(SMALL, SMALL, SMALL, SMALL)),
        kernel,
        draw(pair),
        draw(pair),
        groups,
        fan_in,
        fan_out,
        draw(st.tuples(SMALL, SMALL)),
    )
    return [image, _constant(next(ids), shape), _constant(next(ids), (channels,))], made


def _constant(id_: int, shape: tuple[int, ...]) -> Value:
    data = np.arange(math.prod(shape), dtype=np.float32)
    return Value(id_, DataType.FP32, shape, data=data)
