"""A sample graph, with inputs, for each node kind in each element type that it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from graph_builder import GraphBuilder, one_node
from xnn_references import BINARY, UNARY

from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import (
    FLAG_ALIGN_CORNERS,
    FLAG_KEEP_DIMS,
    FLAG_TRANSPOSE_WEIGHTS,
    XnnGraph,
)
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

Sample = tuple[XnnGraph, list[np.ndarray]]
IMAGE = (2, 9, 7, 12)
Q = {"int8": PerTensor(0.0517, -3), "uint8": PerTensor(0.0413, 110)}
OUT = {"int8": PerTensor(0.0731, 5), "uint8": PerTensor(0.0631, 120)}
SAMPLES: dict[str, Sample] = {}


def array(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype in Q:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, shape, dtype)
    if dtype == "int32":
        return rng.integers(-9, 10, shape, np.int32)
    return rng.uniform(-3, 3, shape).astype(dtype)


def _add(name: str, graph: XnnGraph, *inputs: np.ndarray) -> None:
    SAMPLES[name] = (graph, list(inputs))


def _node(
    kind: NodeKind, dtypes: str, output: tuple[int, ...], inputs: int = 1,
    same: bool = False, shape: tuple[int, ...] = IMAGE, **rest: Any,
) -> None:  # fmt: skip
    """Samples of one node; ``same``: its output is quantized as its inputs are."""
    for dtype in dtypes.split():
        arrays = [array(i, shape, dtype) for i in range(inputs)]
        quantization = None
        if dtype in Q:
            quantization = [Q[dtype]] * inputs + [Q[dtype] if same else OUT[dtype]]
        graph = one_node(kind, arrays, output, quantization, **rest)
        _add(f"{kind.name.lower()}_{dtype}", graph, *arrays)


def _weighted(kind: NodeKind, shape: tuple[int, ...], output: tuple[int, ...],
              weights: tuple[int, ...], axis: int, **rest: Any) -> None:  # fmt: skip
    """Samples of a node with a filter: float32, per channel and per tensor 8 bits."""
    rng, channels = np.random.default_rng(0), weights[axis]
    real, bias = array(1, weights), array(2, (channels,))
    w, c = array(1, weights, "int8"), rng.integers(-3000, 3000, channels, np.int32)
    scales = rng.uniform(0.005, 0.02, channels).astype(np.float32)
    q, out = Q["int8"], OUT["int8"]
    for name, dtype in (("float32", "float32"), ("qc8", "int8"), ("q8", "int8"), ("qu8", "uint8")):
        b = GraphBuilder()
        if name == "float32":
            ids = [b.input(shape), b.constant(real), b.constant(bias)]
            y = b.output(output)
        elif name == "qc8":
            per_channel = PerChannel((scales * np.float32(q.scale)).astype(np.float32), 0)
            ids = [b.input(shape, DataType.QINT8, q),
                   b.constant(w, DataType.QCINT8, PerChannel(scales, axis)),
                   b.constant(c, DataType.QCINT32, per_channel)]  # fmt: skip
            y = b.output(output, DataType.QINT8, out)
        else:
            kinds = DataType.QINT8 if name == "q8" else DataType.QUINT8
            stored, zero = (w, 0) if name == "q8" else (w.view(np.uint8), 128)
            step = PerTensor(0.011 * Q[dtype].scale, 0)
            ids = [b.input(shape, kinds, Q[dtype]),
                   b.constant(stored, kinds, PerTensor(0.011, zero)),
                   b.constant(c, DataType.QINT32, step)]  # fmt: skip
            y = b.output(output, kinds, OUT[dtype])
        clamp = (0.0, 6.0) if name in ("float32", "qc8") else None
        b.node(kind, ids, [y], clamp=clamp, **rest)
        _add(f"{kind.name.lower()}_{name}", b.graph, array(0, shape, dtype))


def _dynamic(name: str, weights: Any, dtype: DataType, quantization: Any) -> None:
    b = GraphBuilder()
    x, stored = b.input((2, 5, 64)), b.value((2, 5, 64), DataType.QDINT8, PerToken(1))
    w = b.value((10, 64), dtype, quantization, weights)
    b.node(NodeKind.CONVERT, [x], [stored])
    b.node(
        NodeKind.FULLY_CONNECTED, [stored, w, b.constant(array(2, (10,)))], [b.output((2, 5, 10))]
    )
    _add(name, b.graph, array(0, (2, 5, 64)))


def _make() -> None:
    positive = (NodeKind.LOG, NodeKind.SQUARE_ROOT, NodeKind.RECIPROCAL_SQUARE_ROOT)
    for kind in UNARY:
        _node(kind, "float32 float16" + ("" if kind in positive else " int8 uint8"), IMAGE,
              same=kind == NodeKind.COPY)  # fmt: skip
    _node(NodeKind.CLAMP, "float32 float16 int8 uint8", IMAGE, same=True, clamp=(-1.0, 1.5))
    _node(NodeKind.ELU, "float32 int8", IMAGE, attributes=EluAttributes(0.7))
    _node(NodeKind.LEAKY_RELU, "float32 int8 uint8", IMAGE, attributes=LeakyReluAttributes(0.2))
    for kind in BINARY:
        _node(kind, "float32 float16", IMAGE, 2)
    for kind in (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY):
        _node(kind, "int8 uint8 int32", IMAGE, 2)
    a, c = array(0, IMAGE), array(1, (7, 1))
    _add("add_broadcast", one_node(NodeKind.ADD, [a, c], IMAGE, clamp=(0.0, 2.0)), a, c)
    _node(NodeKind.SOFTMAX, "float32 float16", IMAGE)
    for dtype in Q:
        b = GraphBuilder()
        kind = DataType.QINT8 if dtype == "int8" else DataType.QUINT8
        x, y, z = b.input(IMAGE), b.output(IMAGE, kind, Q[dtype]), b.output(IMAGE)
        b.node(NodeKind.CONVERT, [x], [y])
        b.node(NodeKind.CONVERT, [y], [z])
        _add(f"convert_{dtype}", b.graph, array(0, IMAGE))

    _weighted(NodeKind.FULLY_CONNECTED, (3, 4, 33), (3, 4, 19), (19, 33), 0)
    _weighted(
        NodeKind.CONV_2D, IMAGE, (2, 5, 4, 10), (10, 3, 3, 6), 0,
        attributes=Conv2dAttributes((1,) * 4, (3, 3), (2, 2), (1, 1), 2, 6, 5),
    )  # fmt: skip
    _weighted(
        NodeKind.DEPTHWISE_CONV_2D, IMAGE, (2, 9, 7, 12), (1, 3, 3, 12), 3,
        attributes=Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), 12, 1, 1),
    )  # fmt: skip
    _weighted(
        NodeKind.CONV_TRANSPOSE_2D, IMAGE, (2, 18, 14, 10), (10, 3, 3, 12), 0,
        attributes=Conv2dAttributes((1,) * 4, (3, 3), (2, 2), (1, 1), 1, 12, 10, (1, 1)),
    )  # fmt: skip
    x, w = array(0, (4, 6)), array(1, (6, 5))
    b = GraphBuilder()
    b.node(NodeKind.FULLY_CONNECTED, [b.input((4, 6)), b.constant(w), None], [b.output((4, 5))],
           flags=FLAG_TRANSPOSE_WEIGHTS)  # fmt: skip
    _add("fully_connected_transposed", b.graph, x)

    rng = np.random.default_rng(3)
    scales = rng.uniform(0.005, 0.02, 10).astype(np.float32)
    nibbles = rng.integers(0, 256, (10, 32)).astype(np.uint8)
    blocks = (rng.uniform(0.01, 0.02, 20).astype(np.float32).view(np.uint32) >> 16).astype(
        np.uint16
    )
    _dynamic("dynamic_qc8", array(1, (10, 64), "int8"), DataType.QCINT8, PerChannel(scales, 0))
    _dynamic("dynamic_qc4", nibbles, DataType.QCINT4, PerChannel(scales, 0))
    _dynamic("dynamic_qb4", nibbles, DataType.QBINT4, Blockwise(blocks, 0, 32))

    for dtype, q in (("float32", None), ("int8", [Q["int8"], PerTensor(0.03, 0), OUT["int8"]])):
        left, right = array(0, (3, 4, 6), dtype), array(1, (3, 6, 5), dtype)
        graph = one_node(NodeKind.BATCH_MATRIX_MULTIPLY, [left, right], (3, 4, 5), q)
        _add(f"batch_matrix_multiply_{dtype}", graph, left, right)

    pool = Pool2dAttributes((1, 1, 1, 1), (3, 3), (2, 2))
    _node(NodeKind.AVG_POOLING_2D, "float32", (2, 5, 4, 12), attributes=pool)
    _node(NodeKind.MAX_POOLING_2D, "float32 int8 uint8", (2, 5, 4, 12), same=True, attributes=pool)
    for flags, shape in ((FLAG_KEEP_DIMS, (2, 1, 1, 12)), (0, (2, 12))):
        _node(NodeKind.GLOBAL_AVG_POOLING_2D, "float32 int8 uint8", shape, flags=flags)
    b = GraphBuilder()
    x_, value = b.input((1, 8, 6, 3)), b.output((1, 4, 3, 3))
    index = b.output((1, 4, 3, 3), DataType.INT32)
    b.node(NodeKind.ARG_MAX_POOLING_2D, [x_], [value, index],
           attributes=Pool2dAttributes((0,) * 4, (2, 2), (2, 2)))  # fmt: skip
    _add("arg_max_pooling_2d", b.graph, array(0, (1, 8, 6, 3)))

    every = "float32 float16 int8 uint8"
    for kind, output, attributes in (
        (NodeKind.STATIC_TRANSPOSE, (2, 12, 9, 7), TransposeAttributes((0, 3, 1, 2))),
        (NodeKind.STATIC_RESHAPE, (126, 12), ReshapeAttributes((0, 12))),
        (NodeKind.STATIC_SLICE, (1, 5, 7, 4), SliceAttributes((1, 2, 0, 3), (1, 5, 7, 4))),
        (NodeKind.STATIC_CONSTANT_PAD, (2, 11, 9, 12),
         PadAttributes((0, 1, 2, 0), (0, 1, 0, 0), 0.5)),
        (NodeKind.STATIC_RESIZE_BILINEAR_2D, (2, 13, 5, 12), ResizeAttributes(13, 5)),
    ):  # fmt: skip
        resizes = kind == NodeKind.STATIC_RESIZE_BILINEAR_2D
        _node(kind, every, output, same=True, attributes=attributes,
              flags=FLAG_ALIGN_CORNERS if resizes else 0)  # fmt: skip
    for count in (2, 3, 4, 5):
        kind = NodeKind[f"CONCATENATE_{count}"]
        _node(kind, "float32 int8", (2, 9, 7, 12 * count), count, same=True,
              attributes=ConcatenateAttributes(3))  # fmt: skip


_make()
