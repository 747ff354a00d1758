"""Operations and bytes of nodes: against counts by hand, and against PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import penstock
from penstock import zoo
from penstock.formats.payload_reader import read_payload
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value
from penstock.graph.kinds import (
    KINDS,
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from penstock.graph.shapes import SHAPE_RULES, infer
from penstock.tools.profiling.work import OPERATIONS, Work, work_of


def work(
    kind: NodeKind,
    *inputs: Shape,
    types: Sequence[DataType] = (),
    outputs: Sequence[Shape] = (),
    **rest: Any,
) -> Work:
    """The work of one node alone; all values are FP32 unless ``types`` says other ones (of the
    inputs, then of the outputs)."""
    traits = KINDS[kind]
    count = len(inputs)
    made = tuple(range(count, count + traits.outputs))
    node = Node(kind, tuple(range(count)), made, **rest)
    shapes = dict(enumerate(inputs))
    if kind in SHAPE_RULES:
        infer([node], shapes)
    shapes.update(zip(made, outputs, strict=False))
    given = dict(enumerate(types))
    values = {i: Value(i, given.get(i, DataType.FP32), shape) for i, shape in shapes.items()}
    return work_of([node], shapes, values, made)


def convolution(groups: int, ins: int, outs: int, kernel: tuple[int, int]) -> Conv2dAttributes:
    return Conv2dAttributes((1, 1, 1, 1), kernel, (1, 1), (1, 1), groups, ins, outs)


def test_every_kind_has_a_rule() -> None:
    assert set(OPERATIONS) == set(NodeKind)


def test_products() -> None:
    # 2 rows of 3 by 3 x 5: 30 multiply-adds; 6 + 15 + 5 numbers read, 10 written.
    assert work(NodeKind.FULLY_CONNECTED, (2, 3), (5, 3), (5,)) == Work(60, 4 * 36)
    # 2 products of 3 x 4 by 4 x 5.
    assert work(NodeKind.BATCH_MATRIX_MULTIPLY, (2, 3, 4), (2, 4, 5)) == Work(
        240, 4 * (24 + 40 + 30)
    )
    # 8 x 8 pixels, 3 x 3 windows over 4 channels, 6 channels out.
    conv = work(
        NodeKind.CONV_2D, (1, 8, 8, 4), (6, 3, 3, 4), (6,), attributes=convolution(1, 4, 6, (3, 3))
    )
    assert conv == Work(2 * 64 * 9 * 4 * 6, 4 * (256 + 216 + 6 + 384))
    grouped = work(
        NodeKind.CONV_2D, (1, 8, 8, 4), (6, 3, 3, 2), (6,), attributes=convolution(2, 2, 3, (3, 3))
    )
    assert grouped.operations == conv.operations // 2
    depthwise = work(
        NodeKind.DEPTHWISE_CONV_2D, (1, 8, 8, 4), (1, 3, 3, 8), (8,),
        attributes=convolution(4, 1, 2, (3, 3)),
    )  # fmt: skip
    assert depthwise.operations == 2 * 64 * 9 * 8
    # Each of 16 pixels of 4 channels is spread over 2 x 2 pixels of 6.
    transposed = work(
        NodeKind.CONV_TRANSPOSE_2D, (1, 4, 4, 4), (6, 2, 2, 4), (6,),
        attributes=Conv2dAttributes((0, 0, 0, 0), (2, 2), (2, 2), (1, 1), 1, 4, 6),
    )  # fmt: skip
    assert transposed == Work(2 * 16 * 4 * 4 * 6, 4 * (64 + 96 + 6 + 384))
    attention = work(
        NodeKind.SCALED_DOT_PRODUCT_ATTENTION, (1, 2, 3, 8), (1, 2, 5, 8), (1, 2, 5, 4), (8,),
        (3, 5), outputs=[(1, 2, 3, 4)],
    )  # fmt: skip
    assert attention.operations == 30 * (16 + 5 + 8)


def test_integers() -> None:
    q, c, i = DataType.QINT8, DataType.QCINT8, DataType.QCINT32
    assert work(NodeKind.FULLY_CONNECTED, (2, 3), (5, 3), (5,), types=[q, c, i, q]) == Work(
        60, 6 + 15 + 20 + 10, int8=True
    )
    four_bits = work(
        NodeKind.FULLY_CONNECTED, (2, 4), (5, 4),
        types=[DataType.QDINT8, DataType.QCINT4, DataType.FP32],
    )  # fmt: skip
    assert four_bits == Work(80, 8 + 10 + 40, int8=True)


POOL = Pool2dAttributes((0, 0, 0, 0), (2, 2), (2, 2))
OTHERS: list[tuple[NodeKind, list[Shape], Any, Work]] = [
    (NodeKind.ADD, [(2, 3), (3,)], None, Work(6, 4 * (6 + 3 + 6))),
    (NodeKind.GELU, [(2, 3)], None, Work(6, 48)),
    (NodeKind.COPY, [(2, 3)], None, Work(0, 48)),
    (NodeKind.CONVERT, [(2, 3)], None, Work(6, 48)),
    (NodeKind.SOFTMAX, [(2, 3)], None, Work(30, 48)),
    (NodeKind.STATIC_RESHAPE, [(2, 3)], ReshapeAttributes((6,)), Work(0, 48)),
    (NodeKind.STATIC_TRANSPOSE, [(2, 3)], TransposeAttributes((1, 0)), Work(0, 48)),
    (NodeKind.STATIC_SLICE, [(9, 3)], SliceAttributes((2, 0), (2, 3)), Work(0, 48)),
    (NodeKind.STATIC_CONSTANT_PAD, [(2, 3)], PadAttributes((0, 1), (1, 1), 0.0), Work(0, 4 * 21)),
    (NodeKind.CONCATENATE_2, [(2, 3), (1, 3)], ConcatenateAttributes(0), Work(0, 72)),
    (NodeKind.MAX_POOLING_2D, [(1, 4, 4, 2)], POOL, Work(32, 4 * 40)),
    (NodeKind.ARG_MAX_POOLING_2D, [(1, 4, 4, 2)], POOL, Work(32, 4 * 48)),
    (NodeKind.GLOBAL_AVG_POOLING_2D, [(1, 4, 4, 2)], None, Work(32, 4 * 34)),
    (NodeKind.STATIC_RESIZE_BILINEAR_2D, [(1, 2, 2, 1)], ResizeAttributes(4, 4), Work(128, 80)),
]


@pytest.mark.parametrize(("kind", "inputs", "attributes", "expected"), OTHERS)
def test_others(kind: NodeKind, inputs: Sequence[Shape], attributes: Any, expected: Work) -> None:
    assert work(kind, *inputs, attributes=attributes) == expected


def test_what_runs_as_one_hands_nothing_over() -> None:
    shapes: dict[int, Shape] = {0: (4, 4), 1: (4, 4), 2: (4, 4)}
    values = {i: Value(i, DataType.FP32, shape) for i, shape in shapes.items()}
    nodes = [Node(NodeKind.ADD, (0, 0), (1,)), Node(NodeKind.CLAMP, (1,), (2,))]
    assert work_of(nodes, shapes, values, {2}) == Work(32, 64 + 64)
    # unless others read it too
    assert work_of(nodes, shapes, values, {1, 2}) == Work(32, 64 + 128)


@pytest.mark.parametrize("name", ["mv2", "emformer_join"])
def test_products_are_those_that_pytorch_counts(name: str) -> None:
    """The products of a model of the zoo, all in delegates."""
    model = zoo.create(name)
    module = model.module.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*model.args, **model.kwargs)
    lowered = penstock.lower(module, model.args, model.kwargs)
    assert lowered.delegation.share == 1
    (method,) = lowered.program.methods
    found = 0
    for delegate in method.delegates:
        graph = read_payload(delegate.payload, lowered.program.named_data)
        shapes = {v.id: v.shape for v in graph.values if v.data is not None or v.is_input}
        infer(graph.nodes, shapes)
        for node in graph.nodes:
            if node.kind.traits.weighted or node.kind is NodeKind.BATCH_MATRIX_MULTIPLY:
                inputs = [shapes[i] for i in node.inputs if i != INVALID_VALUE_ID]
                found += OPERATIONS[node.kind](node, inputs, [shapes[i] for i in node.outputs])
    assert found == counter.get_total_flops() > 0
