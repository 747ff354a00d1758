"""One product of each family of XNNPACK's kernels, with its answer: do they compute rightly here?

XNNPACK picks kernels by the processor's features. Where one of them is wrong on a processor (or the
processor, or what emulates it), all models of that family are, silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind

_SHAPE, _ROWS, _IN, _OUT = (1, 4, 5, 32), 20, 32, 9
#: How far an answer may be off, in parts of the largest of the right ones.
_TOLERANCE = {"fp32": 1e-5, "int8": 0.01, "dynamic": 0.015}


@dataclass
class Families:
    """A graph whose outputs are the products, and its ``inputs``; ``expected`` has, in their order,
    the family of each, its answer and how far off it may be."""

    graph: XnnGraph = field(default_factory=XnnGraph)
    inputs: list[np.ndarray] = field(default_factory=list)
    expected: list[tuple[str, np.ndarray, float]] = field(default_factory=list)

    def value(self, shape: tuple[int, ...], **options: object) -> int:
        number = len(self.graph.values)
        dtype = options.pop("dtype", DataType.FP32)
        self.graph.values.append(Value(number, dtype, shape, **options))  # type: ignore[arg-type]
        return number

    def input(self, array: np.ndarray, **options: object) -> int:
        """One more input of the graph, which holds ``array``."""
        number = self.value(
            array.shape, external_id=len(self.inputs), is_input=True, **options
        )  # fmt: skip
        self.graph.inputs.append(number)
        self.inputs.append(array)
        return number

    def node(self, kind: NodeKind, inputs: tuple[int, ...], output: int, **options: object) -> int:
        self.graph.nodes.append(Node(kind, inputs, (output,), **options))  # type: ignore[arg-type]
        return output

    def product(
        self, family: str, kind: NodeKind, x: int, weights: int, answer: np.ndarray, *,
        quantized: PerTensor | None = None, attributes: object = None,
    ) -> None:  # fmt: skip
        """A product of ``x`` and ``weights`` as one more output, which is ``answer``."""
        output = len(self.graph.outputs)
        dtype = DataType.FP32 if quantized is None else DataType.QINT8
        y = self.value(
            answer.shape, dtype=dtype, quantization=quantized,
            external_id=len(self.inputs) + output, is_output=True,
        )  # fmt: skip
        inputs = (
            (x, weights)
            if kind == NodeKind.BATCH_MATRIX_MULTIPLY
            else (x, weights, INVALID_VALUE_ID)
        )
        self.node(kind, inputs, y, attributes=attributes)
        self.graph.outputs.append(y)
        self.expected.append((family, answer, _TOLERANCE[family.split()[0]]))


def _pattern(*shape: int, step: int, top: int) -> np.ndarray:
    """Integers from -top to top that repeat late."""
    count = int(np.prod(shape))
    return ((np.arange(count) * step) % (2 * top + 1) - top).reshape(shape)


def given() -> np.ndarray:
    """The graph's input: quarters, so that products of them are exact in fp32."""
    return (_pattern(*_SHAPE, step=37, top=16) / 4).astype(np.float32)


def families(*, convert: bool = True) -> Families:
    """The graph and its answers. ``convert``: the input of static int8 is a CONVERT's output, else
    an input of the graph."""
    found = Families()
    x = given()
    rows = x.reshape(_ROWS, _IN).astype(np.float64)
    source = found.input(x)
    static = PerTensor(0.25, -3)
    if convert:
        stored = found.value(_SHAPE, dtype=DataType.QINT8, quantization=static)
        found.node(NodeKind.CONVERT, (source,), stored)
    else:
        signs = (x * 4 - 3).astype(np.int8)
        stored = found.input(signs, dtype=DataType.QINT8, quantization=static)
    weights = _pattern(_OUT, _IN, step=29, top=7)
    answer = (rows @ weights.T).reshape(*_SHAPE[:-1], _OUT)
    ones = np.full(_OUT, 1.0, np.float32)

    floats = found.value(weights.shape, data=weights.astype(np.float32))
    found.product("fp32 fully connected", NodeKind.FULLY_CONNECTED, source, floats, answer)
    right = _pattern(1, 4, _IN, 7, step=31, top=5)
    constant = found.value(right.shape, data=right.astype(np.float32))
    found.product(
        "fp32 batched", NodeKind.BATCH_MATRIX_MULTIPLY, source, constant, x.astype(float) @ right
    )
    taps = _pattern(1, 3, 3, _IN, step=23, top=3)
    deep = _depthwise(x.astype(float), taps)
    window = Conv2dAttributes((1,) * 4, (3, 3), (1, 1), (1, 1), _IN, 1, 1)
    constant = found.value(taps.shape, data=taps.astype(np.float32))
    found.product(
        "fp32 depthwise", NodeKind.DEPTHWISE_CONV_2D, source, constant, deep, attributes=window
    )

    # So much padding, so that there are enough outputs for Winograd's way.
    wide, filter = Conv2dAttributes((3,) * 4, (3, 3), (1, 1), (1, 1), 1, _IN, _IN), (_IN, 3, 3, _IN)
    taps3 = _pattern(*filter, step=41, top=5)
    constant = found.value(filter, data=taps3.astype(np.float32))
    found.product(
        "fp32 3x3 convolution", NodeKind.CONV_2D, source, constant,
        _convolution(x.astype(float), taps3), attributes=wide,
    )  # fmt: skip

    signed = weights.astype(np.int8)
    int8 = found.value(
        (_OUT, 1, 1, _IN), dtype=DataType.QCINT8, quantization=PerChannel(ones, 0), data=signed
    )
    point = Conv2dAttributes((0,) * 4, (1, 1), (1, 1), (1, 1), 1, _IN, _OUT)
    found.product(
        "int8 convolution", NodeKind.CONV_2D, stored, int8, answer,
        quantized=_step(answer), attributes=point,
    )  # fmt: skip
    constant = found.value(
        taps.shape, dtype=DataType.QCINT8, data=taps.astype(np.int8),
        quantization=PerChannel(np.full(_IN, 1.0, np.float32), 3),
    )  # fmt: skip
    found.product(
        "int8 depthwise", NodeKind.DEPTHWISE_CONV_2D, stored, constant, deep,
        quantized=_step(deep), attributes=window,
    )  # fmt: skip

    measured = found.value(_SHAPE, dtype=DataType.QDINT8, quantization=PerToken(1))
    found.node(NodeKind.CONVERT, (source,), measured)
    nibbles = (weights + 8).astype(np.uint8)
    packed = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    brain = np.full(_OUT, 0x3F80, np.uint16)  # 1.0 in bfloat16
    forms: tuple[tuple[str, DataType, Quantization, np.ndarray], ...] = (
        ("dynamic int8", DataType.QCINT8, PerChannel(ones, 0), signed),
        ("dynamic int4 per channel", DataType.QCINT4, PerChannel(ones, 0), packed),
        ("dynamic int4 in blocks", DataType.QBINT4, Blockwise(brain, 0, _IN), packed),
    )
    for family, dtype, quantization, data in forms:
        constant = found.value(weights.shape, dtype=dtype, quantization=quantization, data=data)
        found.product(family, NodeKind.FULLY_CONNECTED, measured, constant, answer)
    return found


def _step(answer: np.ndarray) -> PerTensor:
    """What int8 holds ``answer`` with."""
    return PerTensor(float(np.float32(np.abs(answer).max() / 120)), 2)


def _depthwise(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = x.shape
    total = np.zeros_like(x)
    for row in range(3):
        for column in range(3):
            total += padded[:, row : row + height, column : column + width] * taps[0, row, column]
    return total


def _convolution(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    total = np.zeros((1, height, width, len(taps)))
    for row in range(3):
        for column in range(3):
            part = padded[:, row : row + height, column : column + width]
            total += part @ taps[:, row, column].T
    return total


def those_of(found: Families, runs: Callable[[Node], bool]) -> Families:
    """``found`` without the nodes that do not ``run``, and without what reads their outputs."""
    kept: list[Node] = []
    gone: set[int] = set()
    for node in found.graph.nodes:
        if runs(node) and gone.isdisjoint(node.inputs):
            kept.append(node)
        else:
            gone.update(node.outputs)
    pairs = zip(found.graph.outputs, found.expected, strict=True)
    left = [(output, expected) for output, expected in pairs if output not in gone]
    outputs = [output for output, _ in left]
    places = {output: len(found.inputs) + place for place, output in enumerate(outputs)}
    values = [
        replace(v, external_id=places[v.id]) if v.id in places
        else replace(v, external_id=None, is_output=False) if v.is_output else v
        for v in found.graph.values
    ]  # fmt: skip
    graph = XnnGraph(values, kept, list(found.graph.inputs), outputs)
    return Families(graph, found.inputs, [expected for _, expected in left])


def empty_outputs(found: Families) -> list[np.ndarray]:
    """Arrays for the graph's outputs."""
    values = [found.graph.values[i] for i in found.graph.outputs]
    types = (np.float32 if value.quantization is None else np.int8 for value in values)
    return [np.empty(v.shape, dtype) for v, dtype in zip(values, types, strict=True)]


def wrong_families(found: Families, outputs: list[np.ndarray]) -> list[str]:
    """The families whose answers are not right, with how far off they are."""
    wrong = []
    for (family, answer, tolerance), output, i in zip(
        found.expected, outputs, found.graph.outputs, strict=True
    ):
        step = found.graph.values[i].quantization
        real = output.astype(np.float64)
        if isinstance(step, PerTensor):
            real = (real - step.zero_point) * step.scale
        off = float(np.abs(real - answer).max() / np.abs(answer).max())
        if not off <= tolerance:
            wrong.append(f"{family} (off by {off:.0%})")
    return wrong
