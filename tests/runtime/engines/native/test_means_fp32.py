"""fp32 means over pixels: each instruction set beside float64 and XNNPACK."""

from __future__ import annotations

import numpy as np
import pytest
from native_harness import ISAS, THREADS, guarded, native, numbers, xnnpack

from penstock.graph.dtypes import DataType
from penstock.graph.graph import FLAG_KEEP_DIMS, Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind


def mean(shape: tuple[int, ...], clamp: tuple[float, float] | None = None) -> XnnGraph:
    result = (*shape[:-3], 1, 1, shape[-1])
    values = [
        Value(0, DataType.FP32, shape, external_id=0, is_input=True),
        Value(1, DataType.FP32, result, external_id=1, is_output=True),
    ]
    node = Node(NodeKind.GLOBAL_AVG_POOLING_2D, (0,), (1,), clamp=clamp, flags=FLAG_KEEP_DIMS)
    return XnnGraph(values, [node], [0], [1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_means(isa: str, threads: int) -> None:
    shapes = [(1, 1, 3, channels) for channels in range(1, 140, 3)]
    for shape in (*shapes, (2, 7, 7, 97), (1, 40, 41, 64), (5, 3, 2)):
        x = numbers(shape, shape[-1]) + np.float32(1)
        executable = native(isa).compile(mean(shape), threads=THREADS[threads])
        (result,) = executable.reshape([shape])
        wanted = x.astype(np.float64).mean((-3, -2), keepdims=True)
        with guarded([x, np.zeros(result, np.float32)]) as (source, output):
            executable.run([source], [output])
            np.testing.assert_allclose(output, wanted, rtol=1e-6, atol=1e-6)


def test_many_pixels_are_no_less_exact_than_xnnpack() -> None:
    shape = (1, 300, 300, 16)
    x = np.random.default_rng(0).random(shape, np.float32) + np.float32(5)
    wanted = x.astype(np.float64).mean((1, 2), keepdims=True)
    errors = []
    for engine in (native(ISAS[-1]), xnnpack()):
        executable = engine.compile(mean(shape), threads=THREADS[1])
        (result,) = executable.reshape([shape])
        output = np.zeros(result, np.float32)
        executable.run([x], [output])
        errors.append(np.abs(output - wanted).max())
    assert errors[0] <= errors[1] + 1e-6


@pytest.mark.parametrize("isa", ISAS)
def test_output_ranges_and_what_is_no_number(isa: str) -> None:
    x = numbers((1, 2, 2, 19), 3)
    x[0, 0, 0, 0], x[0, 1, 1, 18] = np.nan, np.inf
    executable = native(isa).compile(mean(x.shape, (-0.1, 0.2)), threads=THREADS[1])
    executable.reshape([x.shape])
    output = np.zeros((1, 1, 1, 19), np.float32)
    executable.run([x], [output])
    wanted = np.clip(x.mean((1, 2), keepdims=True), np.float32(-0.1), np.float32(0.2))
    np.testing.assert_allclose(output, wanted, atol=1e-6)
