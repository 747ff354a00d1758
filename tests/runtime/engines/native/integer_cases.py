"""Random graphs of one product in int8 with static quantization."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from native_harness import THREADS, guarded, native, roomy

from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.graph import (
    FLAG_TENSORFLOW_SAME_PADDING,
    INVALID_VALUE_ID,
    Node,
    Value,
    XnnGraph,
)
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.runtime.engines.protocol import Engine


@dataclass(frozen=True)
class Product:
    """What ``seed`` does not draw. ``attributes`` None: fully-connected."""

    shape: tuple[int, ...]
    outputs: int
    attributes: Conv2dAttributes | None
    seed: int
    flags: int = 0
    depthwise: bool = False
    transposed: bool = False

    def graph(self) -> tuple[XnnGraph, np.ndarray]:
        """The graph and an input. Weights are of all sizes, in some graphs the largest there are;
        the output's scale is such that most answers lie within its range."""
        draw, numbers = random.Random(self.seed), np.random.default_rng(self.seed)
        a = self.attributes
        kind = NodeKind.FULLY_CONNECTED if a is None else NodeKind.CONV_2D
        if self.transposed:
            kind = NodeKind.CONV_TRANSPOSE_2D
        filter: tuple[int, ...] = (self.outputs, self.shape[-1])
        if a is not None:
            filter = (self.outputs, *a.kernel, a.group_input_channels)
        if self.depthwise:
            assert a is not None
            kind, filter = NodeKind.DEPTHWISE_CONV_2D, (1, *a.kernel, self.outputs)
        if draw.random() < 0.3:
            weights = numbers.choice(np.array([-128, 127], np.int8), filter)
        else:
            weights = numbers.integers(-127, 128, filter).astype(np.int8)
        depth = math.prod(filter) // self.outputs
        x = numbers.integers(-128, 128, self.shape).astype(np.int8)
        source = PerTensor(float(np.float32(draw.uniform(0.001, 0.1))), draw.randint(-128, 127))
        wanted = source.scale * 75 * 75 * math.sqrt(depth) / draw.uniform(30, 200)
        scales = (numbers.uniform(0.5, 2, self.outputs) * 0.01).astype(np.float32)
        result = PerTensor(float(np.float32(wanted * 0.01)), draw.randint(-128, 127))
        values = [Value(0, DataType.QINT8, self.shape, source, None, 0, True)]
        if draw.random() < 0.8:
            whole = PerChannel(scales, 3 if self.depthwise else 0)
            values.append(Value(1, DataType.QCINT8, filter, whole, weights))
        else:
            values.append(Value(1, DataType.QINT8, filter, PerTensor(0.011, 0), weights))
        if with_bias := draw.random() < 0.8:
            bias = numbers.integers(-20000, 20000, self.outputs).astype(np.int32)
            of_bias = (scales * np.float32(source.scale)).astype(np.float32)
            values.append(
                Value(2, DataType.QCINT32, bias.shape, PerChannel(of_bias, 0), bias)
                if values[1].dtype is DataType.QCINT8
                else Value(2, DataType.QINT32, bias.shape, PerTensor(0.011 * source.scale, 0), bias)
            )
        zero, step = result.zero_point, result.scale
        ranges = (None, (0.0, math.inf), (-step * (zero + 100), step * (90 - zero)))
        clamp = draw.choice(ranges if -90 < zero < 80 else ranges[:1])
        inputs = (0, 1, 2 if with_bias else INVALID_VALUE_ID)
        node = Node(kind, inputs, (3,), a, clamp, self.flags)
        shapes = {value.id: value.shape for value in values}
        infer([node], shapes)
        values.append(Value(3, DataType.QINT8, shapes[3], result, None, 1, False, True))
        return XnnGraph(values, [node], [0], [3]), x


def convolution(seed: int, *, depthwise: bool = False) -> Product:
    """A random convolution: 3x3 with stride 1 in a third of the cases, which has a way of its own,
    and where an output is larger than nothing."""
    draw = random.Random(seed)
    groups = draw.choice((1, 1, 1, 2, 3))
    inputs, outputs = draw.choice((draw.randint(1, 40), 16, 48)), draw.randint(1, 70)
    kernel = draw.choice(((3, 3), (3, 3), (1, 1), (5, 5), (draw.randint(1, 9), draw.randint(1, 7))))
    stride = draw.choice(((1, 1), (1, 1), (2, 2), (draw.randint(1, 3), draw.randint(1, 3))))
    dilation = draw.choice(((1, 1), (1, 1), (2, 2), (draw.randint(1, 4), draw.randint(1, 4))))
    if depthwise:
        groups, inputs, outputs = draw.choice((draw.randint(1, 140), 16, 64, 96)), 1, 1
    same = draw.random() < 0.2
    padding = [0] * 4 if same else [draw.randint(0, 4) for _ in range(4)]
    height, width = (
        max(draw.randint(1, 20), (k - 1) * d + 1 - before - behind, 1)
        for k, d, before, behind in zip(
            kernel, dilation, padding[0::3], (padding[2], padding[1]), strict=True
        )
    )
    attributes = Conv2dAttributes(
        (padding[0], padding[1], padding[2], padding[3]),
        kernel, stride, dilation, groups, inputs, outputs,
    )  # fmt: skip
    shape = (draw.randint(1, 3), height, width, groups * inputs)
    flags = FLAG_TENSORFLOW_SAME_PADDING if same else 0
    # As a depthwise convolution, or as one with as many groups.
    return Product(
        shape, groups * outputs, attributes, seed, flags, depthwise and draw.random() < 0.7
    )


def answer(engine: Engine, graph: XnnGraph, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """What a graph of one input and one output makes of ``x``."""
    executable = engine.compile(graph, threads=THREADS[threads])
    (shape,) = executable.reshape([x.shape])
    output = np.full(shape, 77, np.int8)
    executable.run([roomy(x)], [output])
    return output


def check_avx2(graph: XnnGraph, x: np.ndarray, threads: int = 1) -> None:
    """The kernels of AVX2 have the bits of those in plain C."""
    expected = answer(native("scalar"), graph, x)
    np.testing.assert_array_equal(answer(native("avx2"), graph, x, threads), expected)


def check_avx2_guarded(graph: XnnGraph, x: np.ndarray) -> None:
    """... and touch nothing outside of the input and the output."""
    expected = answer(native("scalar"), graph, x)
    executable = native("avx2").compile(graph, threads=THREADS[1])
    executable.reshape([x.shape])
    with guarded([x, np.zeros_like(expected)]) as (image, output):
        executable.run([image], [output])
        np.testing.assert_array_equal(output, expected)
