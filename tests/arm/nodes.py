"""What single nodes of XNNPACK compute from the same inputs: ``python nodes.py FILE`` writes their
outputs. Runs on both machines. Of int8 each pair or value there is, ties among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from graph_builder import GraphBuilder

from penstock.graph.dtypes import DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

INT8 = np.arange(-128, 128).astype(np.int8)
#: Scales: a power of two, which has ties, and what a calibration gives.
SCALES = ((0.5, 0.25, 0.5), (0.017353, 0.0021337, 0.009876))
Case = tuple[str, XnnGraph, list[np.ndarray]]


def quantized(scale: float, zero_point: int = 3) -> PerTensor:
    return PerTensor(float(np.float32(scale)), zero_point)


def integers() -> Iterator[Case]:
    """Nodes between int8 values."""
    left, right = (np.ascontiguousarray(v.ravel()) for v in np.meshgrid(INT8, INT8))
    for kind in (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY):
        for a, b, c in SCALES:
            g = GraphBuilder()
            x = [g.input(left.shape, DataType.QINT8, quantized(s)) for s in (a, b)]
            g.node(kind, x, [g.output(left.shape, DataType.QINT8, quantized(c, -5))])
            yield f"int8 {kind.name.lower()}, scale {c}", g.graph, [left, right]
    generator = np.random.default_rng(0)
    image = generator.integers(-128, 128, (1, 12, 12, 32)).astype(np.int8)
    for scale in (0.25, 0.0037):
        for kind, groups in ((NodeKind.CONV_2D, 1), (NodeKind.DEPTHWISE_CONV_2D, 32)):
            g = GraphBuilder()
            x = g.input(image.shape, DataType.QINT8, quantized(0.5))
            shape = (32, 3, 3, 32) if groups == 1 else (1, 3, 3, 32)
            data = generator.integers(-127, 128, shape).astype(np.int8)
            steps = np.full(32, scale, np.float32)
            axis = 0 if groups == 1 else 3
            w = g.constant(data, DataType.QCINT8, PerChannel(steps, axis))
            sizes = (groups, 1, 1) if groups > 1 else (1, 32, 32)
            a = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), *sizes)
            y = g.output(image.shape, DataType.QINT8, quantized(scale * 512, -1))
            g.node(kind, [x, w, None], [y], attributes=a)
            yield f"int8 {kind.name.lower()}, scale {scale}", g.graph, [image]
    for kind in (NodeKind.SIGMOID, NodeKind.TANH, NodeKind.HARDSWISH):
        g = GraphBuilder()
        x = g.input(INT8.shape, DataType.QINT8, quantized(0.05))
        g.node(kind, [x], [g.output(INT8.shape, DataType.QINT8, quantized(1 / 64, -9))])
        yield f"int8 {kind.name.lower()}", g.graph, [INT8]
    g = GraphBuilder()
    x = g.input(image.shape, DataType.QINT8, quantized(0.5))
    y = g.output((1, 32), DataType.QINT8, quantized(0.125, 0))
    g.node(NodeKind.GLOBAL_AVG_POOLING_2D, [x], [y])
    yield "int8 global average", g.graph, [image]
    reals = np.concatenate([np.arange(-300, 300) / 4, generator.normal(0, 40, 50000)])
    for scale in (0.5, 0.017353):
        g = GraphBuilder()
        x = g.input(reals.shape)
        g.node(NodeKind.CONVERT, [x], [g.output(reals.shape, DataType.QINT8, quantized(scale))])
        yield f"fp32 to int8, scale {scale}", g.graph, [reals.astype(np.float32)]
        g = GraphBuilder()
        x = g.input(INT8.shape, DataType.QINT8, quantized(scale))
        g.node(NodeKind.CONVERT, [x], [g.output(INT8.shape)])
        yield f"int8 to fp32, scale {scale}", g.graph, [INT8]


def dynamic() -> Iterator[Case]:
    """Rows that are quantized at run time, and their product."""
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((128, 384)).astype(np.float32)
    data = generator.integers(-127, 128, (96, 384)).astype(np.int8)
    steps = generator.uniform(0.001, 0.01, 96).astype(np.float32)
    g = GraphBuilder()
    x = g.input(rows.shape)
    measured = g.value(rows.shape, DataType.QDINT8, PerToken(1))
    g.node(NodeKind.CONVERT, [x], [measured])
    w = g.constant(data, DataType.QCINT8, PerChannel(steps, 0))
    g.node(NodeKind.FULLY_CONNECTED, [measured, w, None], [g.output((128, 96))])
    yield "dynamic int8 fully connected", g.graph, [rows]


def floats() -> Iterator[Case]:
    """Nodes in fp32."""
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((128, 384)).astype(np.float32)
    kinds = (
        NodeKind.SIGMOID, NodeKind.TANH, NodeKind.GELU, NodeKind.EXP, NodeKind.HARDSWISH,
        NodeKind.SOFTMAX, NodeKind.ABS, NodeKind.SQUARE,
    )  # fmt: skip
    for kind in kinds:
        g = GraphBuilder()
        x = g.input(rows.shape)
        g.node(kind, [x], [g.output(rows.shape)])
        yield f"fp32 {kind.name.lower()}", g.graph, [rows]
    for kind in (NodeKind.SQUARE_ROOT, NodeKind.RECIPROCAL_SQUARE_ROOT, NodeKind.LOG):
        g = GraphBuilder()
        x = g.input(rows.shape)
        g.node(kind, [x], [g.output(rows.shape)])
        yield f"fp32 {kind.name.lower()}", g.graph, [np.abs(rows) + 0.01]
    for kind in (NodeKind.ADD, NodeKind.MULTIPLY, NodeKind.DIV):
        g = GraphBuilder()
        x = [g.input(rows.shape), g.input(rows.shape)]
        g.node(kind, x, [g.output(rows.shape)])
        yield f"fp32 {kind.name.lower()}", g.graph, [rows, np.abs(rows[::-1]) + 0.01]
    g = GraphBuilder()
    x = g.input(rows.shape)
    g.node(NodeKind.FULLY_CONNECTED, [x, g.random(96, 384), None], [g.output((128, 96))])
    yield "fp32 fully connected", g.graph, [rows]
    image = np.ascontiguousarray(rows[:48].reshape(1, 24, 24, 32))
    g = GraphBuilder()
    x = g.input(image.shape)
    a = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), 1, 32, 32)
    g.node(
        NodeKind.CONV_2D, [x, g.random(32, 3, 3, 32), None], [g.output(image.shape)], attributes=a
    )
    yield "fp32 convolution", g.graph, [image]
    g = GraphBuilder()
    x = g.input(image.shape)
    a = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), 32, 1, 1)
    w = g.random(1, 3, 3, 32)
    g.node(NodeKind.DEPTHWISE_CONV_2D, [x, w, None], [g.output(image.shape)], attributes=a)
    yield "fp32 depthwise convolution", g.graph, [image]
    g = GraphBuilder()
    x = g.input(image.shape)
    g.node(NodeKind.GLOBAL_AVG_POOLING_2D, [x], [g.output((1, 32))])
    yield "fp32 global average", g.graph, [image]


def run(graph: XnnGraph, inputs: list[np.ndarray]) -> np.ndarray:
    """The output of a graph with one."""
    value = graph.values[graph.outputs[0]]
    output = np.empty(value.shape, np.int8 if value.quantization is not None else np.float32)
    XnnpackEngine().compile(graph, threads=Threads(1)).run(inputs, [output])
    return output


def main(file: Path) -> None:
    kept = {}
    for cases in (integers, dynamic, floats):
        for name, graph, inputs in cases():
            try:
                kept[name] = run(graph, inputs)
            except Exception as error:
                print(f"{name}: {error}", file=sys.stderr)
                raise
    np.savez(file, **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
