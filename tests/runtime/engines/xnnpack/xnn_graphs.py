"""Small graphs: two that many tests take, running them, quantizing what goes into them."""

from __future__ import annotations

from typing import Any

import numpy as np
from graph_builder import GraphBuilder

from penstock.graph.dtypes import PerTensor
from penstock.graph.graph import FLAG_TRANSPOSE_B, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind, ReshapeAttributes
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def run(
    graph: XnnGraph, *inputs: np.ndarray, threads: int = 1, engine: XnnpackEngine | None = None
) -> list[np.ndarray]:
    """Compile ``graph`` and run it once."""
    executable = (engine or XnnpackEngine()).compile(graph, threads=Threads(threads))
    shapes = executable.reshape([a.shape for a in inputs])
    values = {v.id: v for v in graph.values}
    outputs = [
        np.empty(shape, values[i].dtype.traits.array)
        for i, shape in zip(graph.outputs, shapes, strict=True)
    ]
    executable.run(inputs, outputs)
    return outputs


def quantize(real: np.ndarray, q: PerTensor, dtype: Any = np.int8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.clip(np.rint(real / q.scale) + q.zero_point, info.min, info.max).astype(dtype)


def dequantize(array: np.ndarray, q: PerTensor) -> np.ndarray:
    return (array.astype(np.float64) - q.zero_point) * q.scale


def random(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attention(length: int = 16, heads: int = 2, width: int = 8) -> XnnGraph:
    """softmax(q kᵀ) v over a first dimension of variable length, on one input."""
    b = GraphBuilder()
    x = b.input((length, heads * width))
    split = b.value((length, heads, width))
    b.node(NodeKind.STATIC_RESHAPE, [x], [split], attributes=ReshapeAttributes((0, heads, width)))
    scores, weights = b.value((length, heads, heads)), b.value((length, heads, heads))
    flags = FLAG_TRANSPOSE_B
    b.node(NodeKind.BATCH_MATRIX_MULTIPLY, [split, split], [scores], flags=flags)
    b.node(NodeKind.SOFTMAX, [scores], [weights])
    y = b.output((length, heads, width))
    b.node(NodeKind.BATCH_MATRIX_MULTIPLY, [weights, split], [y])
    return b.graph


def attend(x: np.ndarray, heads: int = 2) -> np.ndarray:
    split = x.reshape(len(x), heads, -1).astype(np.float64)
    scores = split @ split.transpose(0, 2, 1)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)) @ split


def convolutions(count: int = 4, size: int = 24) -> XnnGraph:
    b = GraphBuilder()
    x = b.input((1, size, size, 16))
    for i in range(count):
        w, c = b.constant(random(i, (16, 3, 3, 16)) / 10), b.constant(random(i, (16,)))
        y = (b.output if i == count - 1 else b.value)((1, size, size, 16))
        a = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), 1, 16, 16)
        b.node(NodeKind.CONV_2D, [x, w, c], [y], attributes=a)
        x = y
    return b.graph
