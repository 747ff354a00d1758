"""SiLU in fp32: found in graphs, beside float64 at every length, in place between other nodes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from native_harness import ISAS, THREADS, guarded, native, numbers, xnnpack
from torch import nn

import penstock
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.engine import NativeEngine, NativeExecutable
from penstock.runtime.engines.native.plan import Plan
from penstock.runtime.engines.planner import choose
from penstock.runtime.engines.protocol import Engine

FP32 = DataType.FP32
Activation = Callable[[torch.Tensor], torch.Tensor]


def silu(shape: tuple[int, ...], swapped: bool = False, between: bool = False) -> XnnGraph:
    values = [
        Value(0, FP32, shape, external_id=0, is_input=True),
        Value(1, FP32, shape),
        Value(2, FP32, shape, external_id=1, is_output=True),
    ]
    outputs = [2]
    if between:  # something else wants the sigmoid
        values[1] = Value(1, FP32, shape, external_id=2, is_output=True)
        outputs.append(1)
    product = Node(NodeKind.MULTIPLY, (1, 0) if swapped else (0, 1), (2,))
    return XnnGraph(values, [Node(NodeKind.SIGMOID, (0,), (1,)), product], [0], outputs)


def exact(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        return wide / (1 + np.exp(-wide))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_length(isa: str, threads: int) -> None:
    for size in (*range(1, 70), 40_000):
        x = numbers((size,), size) * np.float32(8)
        executable = native(isa).compile(silu((size,), size % 2 == 0), threads=THREADS[threads])
        executable.reshape([x.shape])
        with guarded([x, np.zeros_like(x)]) as (source, output):
            executable.run([source], [output])
            np.testing.assert_allclose(output, exact(x), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("isa", ISAS)
def test_extremes(isa: str) -> None:
    x = np.array([0, -0.0, 1e-30, 80, -80, 200, -200, 3e38, -3e38, np.inf, np.nan], np.float32)
    executable = native(isa).compile(silu(x.shape), threads=THREADS[1])
    executable.reshape([x.shape])
    output = np.zeros_like(x)
    executable.run([x], [output])
    assert math.isnan(output[-1])
    np.testing.assert_allclose(output[:-1], exact(x[:-1]), rtol=1e-6, atol=1e-5)


def test_what_is_none() -> None:
    """Its sigmoid and its product are nodes of their own then."""
    engine = native(ISAS[0])
    clamped = silu((3, 5))
    clamped.nodes[1].clamp = (0.0, 6.0)
    for graph, units in (
        (silu((3, 5)), [[0, 1]]), (silu((3, 5), between=True), [[0]]), (clamped, [[0]]),
    ):  # fmt: skip
        assert choose(graph, [engine, xnnpack()]) == [0, 0]
        assert engine.units(graph) == units


@pytest.mark.parametrize("isa", ISAS)
def test_in_place(isa: str) -> None:
    """Between two products, and before a sum that reads its input again."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            y = nn.functional.silu(x)
            z = nn.functional.silu(self.b(y) + x)
            return z * nn.functional.silu(self.b(z))

    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(1, 8, 9, 11)
    data = penstock.lower(model, (x,)).to_bytes()
    program = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])
    for _ in range(2):
        np.testing.assert_allclose(
            program(x.numpy())[0], model(x).detach().numpy(), rtol=1e-4, atol=1e-5
        )


def test_an_input_that_is_not_read_again_is_written_over() -> None:
    shape = (1, 4096)
    values = [Value(0, FP32, shape, external_id=0, is_input=True)]
    nodes = []
    for i in range(0, 6, 2):
        values += [Value(i + 1, FP32, shape), Value(i + 2, FP32, shape)]
        nodes += [
            Node(NodeKind.SIGMOID, (i,), (i + 1,)),
            Node(NodeKind.MULTIPLY, (i, i + 1), (i + 2,)),
        ]
    values[-1] = Value(6, FP32, shape, external_id=1, is_output=True)
    graph = XnnGraph(values, nodes, [0], [6])
    executable = native(ISAS[-1]).compile(graph, threads=THREADS[1])
    assert isinstance(executable, NativeExecutable)
    executable.reshape([shape])
    x, output = numbers(shape, 3), np.zeros(shape, np.float32)
    expected = exact(exact(exact(x)))
    executable.run([x], [output])
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    plan = executable._plan
    assert isinstance(plan, Plan)
    block = plan._keep[1]
    assert isinstance(block, np.ndarray) and block.nbytes < 2 * 4 * 4096


def single(kind: NodeKind, shape: tuple[int, ...]) -> XnnGraph:
    values = [
        Value(0, FP32, shape, external_id=0, is_input=True),
        Value(1, FP32, shape, external_id=1, is_output=True),
    ]
    return XnnGraph(values, [Node(kind, (0,), (1,))], [0], [1])


def exact_single(kind: NodeKind, x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    if kind is NodeKind.HARDSWISH:
        return wide * np.clip(wide + 3, 0, 6) / 6
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-wide))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [NodeKind.SIGMOID, NodeKind.HARDSWISH])
def test_single_activations(isa: str, kind: NodeKind) -> None:
    for size, threads in (*((n, 1) for n in range(1, 40)), (40_000, 2)):
        x = numbers((size,), size) * np.float32(8)
        executable = native(isa).compile(single(kind, x.shape), threads=THREADS[threads])
        executable.reshape([x.shape])
        with guarded([x, np.zeros_like(x)]) as (source, output):
            executable.run([source], [output])
            np.testing.assert_allclose(output, exact_single(kind, x), rtol=1e-6, atol=1e-6)
    x = np.array([0, -0.0, 90, -90, 200, -200, 3e38, -3e38, np.nan], np.float32)
    executable = native(isa).compile(single(kind, x.shape), threads=THREADS[1])
    executable.reshape([x.shape])
    output = np.zeros_like(x)
    executable.run([x], [output])
    assert math.isnan(output[-1])
    if kind is NodeKind.SIGMOID:
        np.testing.assert_allclose(output, exact_single(kind, x), rtol=1e-6, atol=1e-30)
    else:
        np.testing.assert_allclose(output[:6], exact_single(kind, x[:6]), rtol=1e-6)


def test_single_activations_go_where_their_neighbours_are() -> None:
    """One that nothing of ours makes or reads is XNNPACK's."""
    engines: list[Engine] = [NativeEngine(), xnnpack()]
    assert choose(single(NodeKind.SIGMOID, (3, 5)), engines) == [1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("quantize", ["static", "dynamic"])
@pytest.mark.parametrize("function", [torch.sigmoid, nn.functional.silu, nn.functional.hardswish])
def test_beside_int8_bits_are_xnnpacks(isa: str, quantize: str, function: Activation) -> None:
    model = nn.Sequential(nn.Linear(8, 250), Last(function)).eval()
    x = torch.randn(16, 8)
    data = penstock.lower(model, (x,), quantize=quantize).to_bytes()
    (wanted,) = penstock.load(data, threads=1, engine="xnnpack")(x)
    (found,) = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])(x)
    np.testing.assert_array_equal(found, wanted)


class Last(nn.Module):
    """Its result is the model's, and so is not quantized."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.function(x)
        return result
