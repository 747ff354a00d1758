"""Padding by zeros becomes that of the convolutions that read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

import penstock
from penstock.compiler.delegate.passes import fold_padding
from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind, PadAttributes, TransposeAttributes

SIZE, CHANNELS = (9, 11), 4


def padded(
    pre: tuple[int, ...] = (0, 0, 1, 0), post: tuple[int, ...] = (0, 2, 1, 0), value: float = 0.0,
    depthwise: bool = False, first: bool = False, readers: int = 1, integers: bool = False,
    shown: bool = False,
) -> XnnGraph:  # fmt: skip
    """Padding and convolutions of stride 2 that read it; ``first``: by way of a transpose."""
    sketch = GraphBuilder()
    kind = (DataType.QINT8, PerTensor(0.05, 3)) if integers else (DataType.FP32, None)
    sizes = (2, *SIZE, CHANNELS)
    total = tuple(a + b + c for a, b, c in zip(pre, sizes, post, strict=True))
    order = (0, 3, 1, 2) if first else (0, 1, 2, 3)

    def turned(of: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(of[axis] for axis in order)

    x = sketch.input(turned(sizes), *kind)
    y = sketch.apply(
        NodeKind.STATIC_CONSTANT_PAD, (x,), turned(total),
        PadAttributes(turned(pre), turned(post), value), dtype=kind[0], quantization=kind[1],
    )  # fmt: skip
    ends = [y] if shown else []
    if first:
        y = sketch.apply(
            NodeKind.STATIC_TRANSPOSE, (y,), total, TransposeAttributes((0, 2, 3, 1)),
            dtype=kind[0], quantization=kind[1],
        )  # fmt: skip
    channels = total[3]
    groups, within, outputs = (channels, 1, 1) if depthwise else (1, channels, 5)
    made = channels if depthwise else 5
    taps = (1, 3, 3, channels) if depthwise else (5, 3, 3, channels)
    shape = (total[0], (total[1] + 1 - 3) // 2 + 1, (total[2] - 3) // 2 + 1, made)
    conv = Conv2dAttributes((1, 0, 0, 0), (3, 3), (2, 2), (1, 1), groups, within, outputs)
    for _ in range(readers):
        if integers:
            data = np.random.default_rng(1).integers(-127, 128, taps).astype(np.int8)
            scales = np.linspace(0.001, 0.002, made, dtype=np.float32)
            axis = 3 if depthwise else 0
            weight = sketch.value(taps, DataType.QCINT8, PerChannel(scales, axis), data)
            bias, out = INVALID_VALUE_ID, (DataType.QINT8, PerTensor(0.02, -2))
        else:
            weight, bias, out = sketch.random(*taps), sketch.random(made), (DataType.FP32, None)
        ends.append(
            sketch.apply(
                NodeKind.DEPTHWISE_CONV_2D if depthwise else NodeKind.CONV_2D,
                (y, weight, bias),
                shape,
                conv,
                (-1.0, 1.0) if integers else None,
                dtype=out[0],
                quantization=out[1],
            )  # fmt: skip
        )
    return sketch.finish(*ends)


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_padding_moves_into_convolutions(integers: bool, depthwise: bool, first: bool) -> None:
    graph = padded(integers=integers, depthwise=depthwise, first=first, readers=2)
    changed = after(graph, fold_padding.apply)
    assert NodeKind.STATIC_CONSTANT_PAD not in kinds(changed)
    assert kinds(changed)[NodeKind.STATIC_TRANSPOSE] == int(first)
    for node in changed.nodes:
        if isinstance(node.attributes, Conv2dAttributes):
            assert node.attributes.padding == (1, 1, 2, 1)


def test_padding_that_others_read_stays_for_them() -> None:
    changed = after(padded(shown=True), fold_padding.apply)
    assert kinds(changed) == {NodeKind.STATIC_CONSTANT_PAD: 1, NodeKind.CONV_2D: 1}
    (conv,) = [node for node in changed.nodes if node.kind is NodeKind.CONV_2D]
    assert conv.inputs[0] in changed.inputs


@pytest.mark.parametrize(
    "graph",
    [
        padded(value=1.0),
        padded(pre=(0, 0, 0, 2)),
        padded(post=(0, 1, 1, 1)),
        padded(pre=(1, 0, 0, 0)),
        padded(first=True, post=(0, 0, 0, 1)),
    ],
)
def test_other_padding_stays(graph: XnnGraph) -> None:
    assert NodeKind.STATIC_CONSTANT_PAD in kinds(after(graph, fold_padding.apply))


class Same(torch.nn.Module):
    """Two convolutions as TensorFlow pads them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, 2)
        self.second = torch.nn.Conv2d(8, 8, 5, 2, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(torch.nn.functional.pad(x, (0, 1, 0, 1))))
        return self.second(torch.nn.functional.pad(x, (1, 2, 1, 2)))


@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_whole_model(scheme: str | None, dynamic: bool) -> None:
    torch.manual_seed(0)
    model, x = Same().eval(), torch.randn(2, 3, 16, 20)
    shapes = None
    if dynamic:
        shapes = ({0: torch.export.Dim("b", max=4), 2: torch.export.Dim("h", min=8, max=32)},)
    lowered = penstock.lower(
        model, (x,), quantize=scheme, calibration=None if scheme is None else [(x,)],
        dynamic_shapes=shapes,
    )  # fmt: skip
    assert len(lowered.delegation.subgraphs) == 1
    program = penstock.load(lowered.to_bytes())
    for image in (x, torch.randn(1, 3, 12, 20)) if dynamic else (x,):
        (found,) = program(image)
        with torch.no_grad():
            expected = model(image).numpy()
        noise = np.square(found - expected).sum() / np.square(expected).sum()
        assert noise < (1e-10 if scheme is None else 1e-2)
