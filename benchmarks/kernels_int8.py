"""Our int8 kernels beside XNNPACK's, shape by shape: ``python -m benchmarks.kernels_int8``.

Each line is a node by itself, run by turns in both engines; the best run of each counts, in CPU
time of the one thread. ``PENSTOCK_ISA=avx2`` measures the kernels of smaller machines; XNNPACK then
still has what this machine has. Products by Winograd's way count as if they were all made, so they
can exceed the peak.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.peak import int8_peak
from penstock.graph.dtypes import DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

#: One run of a measurement takes at least so many seconds.
_SHORTEST = 0.003


@dataclass(frozen=True)
class Shape:
    """A square convolution, depthwise if ``outputs`` is 0; or a product of ``size`` rows, with
    ``dynamic`` of rows that are quantized at run time."""

    name: str
    size: int
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    product: bool = False
    dynamic: bool = False

    def graph(self) -> tuple[XnnGraph, np.ndarray, int]:
        """The graph, its input, and its number of operations."""
        numbers = np.random.default_rng(0)
        depthwise = not self.outputs
        groups = self.inputs if depthwise else self.groups
        inputs, outputs = self.inputs // groups, (self.outputs or self.inputs)
        side = self.kernel // 2 * self.dilation
        attributes = Conv2dAttributes(
            (side,) * 4, (self.kernel,) * 2, (self.stride,) * 2, (self.dilation,) * 2,
            groups, inputs, outputs // groups,
        )  # fmt: skip
        shape: tuple[int, ...] = (1, self.size, self.size, self.inputs)
        filter: tuple[int, ...] = (outputs, self.kernel, self.kernel, inputs)
        kind, axis = NodeKind.CONV_2D, 0
        if depthwise:
            kind, filter, axis = NodeKind.DEPTHWISE_CONV_2D, (1, *filter[1:3], outputs), 3
        if self.product:
            kind, shape, filter = NodeKind.FULLY_CONNECTED, (self.size, inputs), (outputs, inputs)
        weights = np.clip(numbers.normal(0, 36, filter), -127, 127).astype(np.int8)
        scales = np.full(outputs, 0.01, np.float32)
        values = [Value(1, DataType.QCINT8, filter, PerChannel(scales, axis), weights)]
        given = PerTensor(0.02, 3)
        made = PerTensor(0.02 * 0.01 * 36 * 75 * math.sqrt(math.prod(filter) / outputs) / 60, -5)
        if self.dynamic:
            values += [
                Value(0, DataType.FP32, shape, None, None, 0, True),
                Value(4, DataType.QDINT8, shape, PerToken(1)),
            ]
            convert = [Node(NodeKind.CONVERT, (0,), (4,))]
            x = numbers.standard_normal(shape, np.float32)
        else:
            values.append(Value(0, DataType.QINT8, shape, given, None, 0, True))
            convert = []
            x = numbers.integers(-128, 128, shape).astype(np.int8)
        node = Node(
            kind, (4 if self.dynamic else 0, 1, INVALID_VALUE_ID), (3,),
            None if self.product else attributes,
        )  # fmt: skip
        shapes = {value.id: value.shape for value in values}
        infer([*convert, node], shapes)
        dtype = DataType.FP32 if self.dynamic else DataType.QINT8
        made_as = None if self.dynamic else made
        values.append(Value(3, dtype, shapes[3], made_as, None, 1, False, True))
        operations = 2 * math.prod(shapes[3]) * math.prod(filter) // outputs
        return XnnGraph(values, [*convert, node], [0], [3]), x, operations


SHAPES = (
    Shape("ResNet, stem", 224, 3, 64, 7, 2),
    Shape("MobileNet, stem", 224, 3, 32, 3, 2),
    Shape("ResNet-18", 56, 64, 64, 3),
    Shape("ResNet-18", 28, 128, 128, 3),
    Shape("ResNet-18", 14, 256, 256, 3),
    Shape("ResNet-18", 7, 512, 512, 3),
    Shape("ResNet-18", 56, 64, 128, 3, 2),
    Shape("ResNet-50", 56, 64, 256),
    Shape("ResNet-50", 56, 256, 64),
    Shape("ResNet-50", 14, 1024, 256),
    Shape("ResNet-50", 7, 512, 2048),
    Shape("ResNet-50", 28, 512, 1024, 1, 2),
    Shape("MobileNetV2", 112, 32, 16),
    Shape("MobileNetV2", 112, 16, 96),
    Shape("MobileNetV2", 56, 24, 144),
    Shape("MobileNetV2", 28, 192, 32),
    Shape("MobileNetV2", 14, 96, 576),
    Shape("MobileNetV2", 7, 320, 1280),
    Shape("MobileNetV3", 14, 40, 240),
    Shape("ResNeXt", 56, 128, 128, 3, groups=32),
    Shape("DeepLabV3", 28, 256, 256, 3, dilation=12),
    Shape("MobileNetV2, depthwise", 112, 32, 0, 3),
    Shape("MobileNetV2, depthwise", 112, 96, 0, 3, 2),
    Shape("MobileNetV2, depthwise", 56, 144, 0, 3),
    Shape("MobileNetV2, depthwise", 14, 576, 0, 3),
    Shape("MobileNetV2, depthwise", 7, 960, 0, 3),
    Shape("EfficientNet, depthwise", 28, 240, 0, 5),
    Shape("EfficientNet, depthwise", 14, 672, 0, 5, 2),
    Shape("EfficientNet, depthwise", 7, 1152, 0, 5),
    Shape("ConvNeXt, depthwise", 14, 384, 0, 7),
    Shape("MobileNetV2, classifier", 1, 1280, 1000, product=True),
    Shape("MiniLM, at run time", 128, 384, 1536, product=True, dynamic=True),
    Shape("MiniLM, at run time", 128, 1536, 384, product=True, dynamic=True),
    Shape("ViT-B/16, at run time", 197, 768, 3072, product=True, dynamic=True),
    Shape("SmolLM2, at run time", 1, 576, 1536, product=True, dynamic=True),
    Shape("SmolLM2, at run time", 128, 576, 1536, product=True, dynamic=True),
)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each shape")
    parser.add_argument("--only", default="", help="shapes whose names have this")
    arguments = parser.parse_args()
    native, xnnpack = NativeEngine(everything=True), XnnpackEngine()
    vnni = Isa.AVX512VNNI in native.library.isa
    peak = int8_peak("avx512vnni" if vnni else "avx2")
    print(f"{', '.join(native.library.isa.names)}; peak {(peak or 0) / 1e9:.0f} GOP/s\n")
    print("| shape | | GOP/s | of the peak | XNNPACK | |\n| --- | --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        if arguments.only not in shape.name:
            continue
        graph, x, operations = shape.graph()
        ours, theirs = best([runner(e, graph, x) for e in (native, xnnpack)], arguments.seconds)
        share = f"{operations / ours / peak:.0%}" if peak else ""
        print(
            f"| {shape.name} | {described(shape)} | {operations / ours / 1e9:.0f} | {share} |"
            f" {operations / theirs / 1e9:.0f} | {theirs / ours:.2f} x |",
            flush=True,
        )


def described(shape: Shape) -> str:
    """The sizes, as they are usually written."""
    if shape.product:
        return f"{shape.size} x {shape.inputs} x {shape.outputs}"
    extra = f", dilation {shape.dilation}" if shape.dilation > 1 else ""
    extra += f", {shape.groups} groups" if shape.groups > 1 else ""
    extra += f", stride {shape.stride}" if shape.stride > 1 else ""
    channels = f"{shape.inputs} to {shape.outputs}" if shape.outputs else f"{shape.inputs}"
    taps = f"{shape.kernel}x{shape.kernel}"
    return f"{shape.size}x{shape.size}, {channels}, {taps}{extra}"


def runner(engine: Engine, graph: XnnGraph, x: np.ndarray) -> Callable[[], None]:
    """One call of the graph."""
    executable = engine.compile(graph, threads=Threads(1))
    (shape,) = executable.reshape([x.shape])
    output = np.empty(shape, np.int8 if x.dtype == np.int8 else np.float32)
    return lambda: executable.run([x], [output])


def best(runners: list[Callable[[], None]], seconds: float) -> Iterator[float]:
    """The shortest time of a call of each, by turns, in seconds."""
    counts = []
    for run in runners:
        run()
        start = time.perf_counter()
        run()
        counts.append(max(1, math.ceil(_SHORTEST / max(time.perf_counter() - start, 1e-7))))
    found = [math.inf] * len(runners)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for index, run in enumerate(runners):
            start = time.thread_time()
            for _ in range(counts[index]):
                run()
            found[index] = min(found[index], (time.thread_time() - start) / counts[index])
    return iter(found)


if __name__ == "__main__":
    main()
