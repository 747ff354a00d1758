"""The shapes that ``benchmarks.kernels`` measures: those of the zoo's models, one node each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from penstock.graph.dtypes import (
    Blockwise,
    DataType,
    PerChannel,
    PerTensor,
    PerToken,
    Quantization,
)
from penstock.graph.graph import FLAG_KEEP_DIMS, INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.graph.weights import float_to_bfloat16


@dataclass(frozen=True)
class Shape:
    """A product, or the mean of an int8 image. ``size`` is the image's side, or the number of rows
    for fully-connected."""

    kind: NodeKind
    size: int
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    int8: bool = False

    @property
    def type(self) -> str:
        """The element type's name in the table."""
        return "int8" if self.int8 else "fp32"

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.kind is NodeKind.FULLY_CONNECTED:
            return f"fully-connected {self.inputs} to {self.outputs}, {self.size} rows"
        if self.kind is NodeKind.GLOBAL_AVG_POOLING_2D:
            return f"mean of {self.inputs} channels on {self.size}x{self.size}"
        window = f"{self.kernel[0]}x{self.kernel[1]}"
        window += f" stride {self.stride}" if self.stride > 1 else ""
        window += f" dilation {self.dilation}" if self.dilation > 1 else ""
        image = f"{self.size}x{self.size}"
        if self.kind is NodeKind.DEPTHWISE_CONV_2D:
            return f"depthwise {window}, {self.inputs} channels on {image}"
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        window = f"transposed {window}" if self._transposed else window
        return f"{window}, {self.inputs} to {self.outputs}{groups} on {image}"

    @property
    def operations(self) -> int:
        """A multiply-add is two, an addition one."""
        if self.kind is NodeKind.GLOBAL_AVG_POOLING_2D:
            return self.size**2 * self.inputs
        graph = self.graph()
        values = {value.id: value for value in graph.values}
        output = prod(values[graph.outputs[0]].shape)
        depthwise = self.kind is NodeKind.DEPTHWISE_CONV_2D
        # Each value of a transposed one's input takes part as often as its filter has values.
        places = self.size**2 * self.outputs if self._transposed else output
        return 2 * places * prod(self.kernel) * (1 if depthwise else self.inputs // self.groups)

    @property
    def _transposed(self) -> bool:
        return self.kind is NodeKind.CONV_TRANSPOSE_2D

    def graph(self) -> XnnGraph:
        """One node with random weights."""
        if self.kind is NodeKind.GLOBAL_AVG_POOLING_2D:
            return self._mean()
        rng = np.random.default_rng(0)
        fully_connected = self.kind is NodeKind.FULLY_CONNECTED
        depthwise = self.kind is NodeKind.DEPTHWISE_CONV_2D
        image = (
            (self.size, self.inputs) if fully_connected else (1, self.size, self.size, self.inputs)
        )
        filter: tuple[int, ...] = (self.outputs, *self.kernel, self.inputs // self.groups)
        attributes, axis = None, 0
        if fully_connected:
            filter = (self.outputs, self.inputs)
        else:
            y, x = (self.dilation * (size // 2) for size in self.kernel)
            if self._transposed:
                y, x = ((size - self.stride) // 2 for size in self.kernel)
            each = (
                (1, 1) if depthwise else (self.inputs // self.groups, self.outputs // self.groups)
            )
            attributes = Conv2dAttributes(
                (y, x, y, x), self.kernel, (self.stride,) * 2, (self.dilation,) * 2,
                self.inputs if depthwise else self.groups, *each,
            )  # fmt: skip
        if depthwise:
            filter, axis = (1, *self.kernel, self.inputs), 3
        scales = np.full(self.outputs, 0.01, np.float32)
        if self.int8:
            types = (DataType.QINT8, DataType.QCINT8, DataType.QCINT32)
            weights = rng.integers(-127, 128, filter).astype(np.int8)
            bias = rng.integers(-1000, 1000, self.outputs).astype(np.int32)
            ports = (PerTensor(0.02, 3), PerTensor(0.05 * prod(filter) ** 0.5, -5))
            inner = (PerChannel(scales, axis), PerChannel(scales * np.float32(0.02), 0))
        else:
            types = (DataType.FP32,) * 3
            weights = rng.standard_normal(filter).astype(np.float32)
            bias = rng.standard_normal(self.outputs).astype(np.float32)
            ports, inner = (None, None), (None, None)  # type: ignore[assignment]
        values = [
            Value(0, types[0], image, ports[0], external_id=0, is_input=True),
            Value(1, types[1], filter, inner[0], data=weights),
            Value(2, types[2], (self.outputs,), inner[1], data=bias),
        ]
        node = Node(self.kind, (0, 1, 2), (3,), attributes)
        shapes = {value.id: value.shape for value in values}
        infer([node], shapes)
        values.append(Value(3, types[0], shapes[3], ports[1], external_id=1, is_output=True))
        return XnnGraph(values, [node], [0], [3])

    def _mean(self) -> XnnGraph:
        image, pixel = (1, self.size, self.size, self.inputs), (1, 1, 1, self.inputs)
        values = [
            Value(0, DataType.QINT8, image, PerTensor(0.02, 3), None, 0, True),
            Value(1, DataType.QINT8, pixel, PerTensor(0.01, -5), None, 1, False, True),
        ]
        return XnnGraph(values, [Node(self.kind, (0,), (1,), flags=FLAG_KEEP_DIMS)], [0], [1])


@dataclass(frozen=True)
class DynamicShape:
    """A fully-connected product of rows that are quantized at run time, with the quantization.
    ``bits`` of a weight; ``block``: weights that share a scale, 0 for those of a channel."""

    size: int
    inputs: int
    outputs: int
    bits: int
    block: int = 0

    @property
    def type(self) -> str:
        """The element type's name in the table."""
        blocks = f" in blocks of {self.block}" if self.block else ""
        return f"int{self.bits}{blocks}, rows quantized at run time"

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"fully-connected {self.inputs} to {self.outputs}, {self.size} rows"

    @property
    def operations(self) -> int:
        """A multiply-add is two."""
        return 2 * self.size * self.inputs * self.outputs

    def graph(self) -> XnnGraph:
        """Two nodes with random weights."""
        rng = np.random.default_rng(0)
        rows = rng.integers(0, 256, (self.outputs, self.inputs * self.bits // 8)).astype(np.uint8)
        count = self.outputs * (self.inputs // self.block if self.block else 1)
        scales = rng.uniform(0.001, 0.01, count).astype(np.float32)
        quantization: Quantization = PerChannel(scales, 0)
        dtype, weights = (
            (DataType.QCINT4, rows) if self.bits == 4 else (DataType.QCINT8, rows.view(np.int8))
        )
        if self.block:
            dtype = DataType.QBINT4
            quantization = Blockwise(float_to_bfloat16(scales), 0, self.block)
        fp32, source = DataType.FP32, (self.size, self.inputs)
        values = [
            Value(0, fp32, source, external_id=0, is_input=True),
            Value(1, DataType.QDINT8, source, PerToken(1)),
            Value(2, dtype, (self.outputs, self.inputs), quantization, weights),
            Value(3, fp32, (self.size, self.outputs), external_id=1, is_output=True),
        ]
        nodes = [
            Node(NodeKind.CONVERT, (0,), (1,)),
            Node(NodeKind.FULLY_CONNECTED, (1, 2, INVALID_VALUE_ID), (3,)),
        ]
        return XnnGraph(values, nodes, [0], [3])


def _convolutions(int8: bool) -> list[Shape]:
    conv = NodeKind.CONV_2D
    return [
        Shape(conv, 224, 3, 64, (7, 7), 2, int8=int8),
        Shape(conv, 224, 3, 32, (3, 3), 2, int8=int8),
        Shape(conv, 56, 64, 64, (3, 3), int8=int8),
        Shape(conv, 28, 128, 128, (3, 3), int8=int8),
        Shape(conv, 14, 256, 256, (3, 3), int8=int8),
        Shape(conv, 7, 512, 512, (3, 3), int8=int8),
        Shape(conv, 256, 64, 64, (3, 3), int8=int8),
        Shape(conv, 56, 128, 128, (3, 3), 2, int8=int8),
        Shape(conv, 28, 2048, 256, (3, 3), dilation=12, int8=int8),
        Shape(conv, 17, 192, 192, (7, 1), int8=int8),
        Shape(conv, 17, 192, 192, (1, 7), int8=int8),
        Shape(conv, 14, 512, 512, (3, 3), groups=32, int8=int8),
        Shape(conv, 56, 256, 512, stride=2, int8=int8),
        Shape(conv, 56, 64, 256, int8=int8),
        Shape(conv, 56, 256, 64, int8=int8),
        Shape(conv, 14, 1024, 256, int8=int8),
        Shape(conv, 7, 512, 2048, int8=int8),
        Shape(conv, 112, 16, 96, int8=int8),
        Shape(conv, 112, 32, 16, int8=int8),
        Shape(conv, 56, 96, 24, int8=int8),
        Shape(conv, 28, 32, 192, int8=int8),
        Shape(conv, 14, 576, 96, int8=int8),
    ]


def _transposed(int8: bool) -> list[Shape]:
    sizes = (
        (28, 256, 128, 2),
        (56, 64, 32, 2),
        (16, 256, 128, 4),
        (64, 128, 64, 4),
        (112, 64, 3, 4),
    )
    return [
        Shape(NodeKind.CONV_TRANSPOSE_2D, size, inputs, outputs, (side, side), 2, int8=int8)
        for size, inputs, outputs, side in sizes
    ]


def _depthwise(int8: bool) -> list[Shape]:
    sizes = (
        (112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (28, 192, 3, 2), (14, 384, 3, 1),
        (7, 960, 3, 1), (28, 240, 5, 1), (14, 672, 5, 1), (56, 96, 7, 1), (14, 384, 7, 1),
    )  # fmt: skip
    return [
        Shape(NodeKind.DEPTHWISE_CONV_2D, size, channels, channels, (side, side), stride, int8=int8)
        for size, channels, side, stride in sizes
    ]


def _fully_connected(int8: bool) -> list[Shape]:
    sizes = ((1, 1280, 1000), (1, 2048, 1000), (128, 384, 1536), (197, 768, 768), (197, 768, 3072))
    return [
        Shape(NodeKind.FULLY_CONNECTED, rows, inputs, outputs, int8=int8)
        for rows, inputs, outputs in sizes
    ]


def _dynamic() -> list[DynamicShape]:
    sizes = ((576, 576), (576, 192), (576, 1536), (1536, 576), (2048, 2048))
    return [
        DynamicShape(rows, inputs, outputs, bits, block)
        for bits, block in ((4, 32), (4, 0), (8, 0))
        for rows in (1, 128)
        for inputs, outputs in (*sizes, *(((576, 49152),) if bits == 8 and rows == 1 else ()))
    ]


SHAPES: list[Shape | DynamicShape] = [
    shape
    for int8 in (False, True)
    for shape in (
        *_convolutions(int8),
        *_transposed(int8),
        *_depthwise(int8),
        *_fully_connected(int8),
    )
]
SHAPES += [
    Shape(NodeKind.GLOBAL_AVG_POOLING_2D, size, channels, channels, int8=True)
    for size, channels in ((112, 32), (28, 240), (14, 672), (7, 960))
]
SHAPES += _dynamic()
