"""Calls of a delegate, with an executable that is not XNNPACK's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidProgramError, UnsupportedError
from penstock.formats.program import (
    Allocation,
    Delegate,
    DelegateCall,
    Dynamism,
    Program,
    ScalarType,
    Tensor,
)
from penstock.formats.program import Method as MethodData
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Value, XnnGraph
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.method import Method
from penstock.runtime.method_values import COPIED_OUTPUT_BYTES
from penstock.runtime.program import LoadedProgram


class Doubling:
    """outputs = 2 * inputs; remembers what it was given."""

    def __init__(self) -> None:
        self.shapes: list[Any] = []
        self.calls: list[tuple[list[Any], list[Any]]] = []

    def reshape(self, input_shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        self.shapes.append(tuple(input_shapes))
        return tuple(input_shapes)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        self.calls.append((list(inputs), list(outputs)))
        for source, target in zip(inputs, outputs, strict=True):
            assert source.flags.c_contiguous and target.flags.c_contiguous
            target[...] = (source * 2).astype(target.dtype)

    def profile(self) -> list[Any]:
        return []


def method(
    source: Tensor, target: Tensor, kind: DataType = DataType.FP32, out_kind: DataType | None = None
) -> tuple[Method, Doubling]:
    """One delegate between an input and an output; its arguments come output first."""

    def physical(tensor: Tensor) -> tuple[int, ...]:
        return tuple(tensor.shape[axis] for axis in tensor.dim_order or range(len(tensor.shape)))

    graph = XnnGraph(
        [
            Value(0, kind, physical(source), external_id=1, is_input=True),
            Value(1, out_kind or kind, physical(target), external_id=0, is_output=True),
        ],
        inputs=[0],
        outputs=[1],
    )
    executable = Doubling()
    data = MethodData(
        "forward",
        [source, target],
        [0],
        [1],
        [DelegateCall(0, (1, 0))],
        delegates=[Delegate("XnnpackBackend", b"")],
        memory_sizes=[0, 1 << 20],
    )
    return Method(data, lambda _: BoundDelegate("XnnpackBackend", graph, executable)), executable


def tensor(*shape: int, dtype: ScalarType = ScalarType.FLOAT, **rest: Any) -> Tensor:
    return Tensor(dtype, shape, **rest)


def test_input_goes_in_where_it_is() -> None:
    one, executable = method(
        tensor(4, allocation=Allocation(1, 0)), tensor(4, allocation=Allocation(1, 0))
    )
    x = np.arange(4, dtype=np.float32)
    results = [one.run([x])[0] for _ in range(3)]
    assert executable.calls[0][0][0] is x
    assert executable.shapes == [((4,),)]
    for result in results:
        np.testing.assert_array_equal(result, x * 2)
    # A small output is computed in one place, and the caller gets a copy.
    places = {outputs[0].ctypes.data for _, outputs in executable.calls}
    assert len(places) == 1 and results[0].ctypes.data not in places


def test_large_output_is_made_for_the_caller() -> None:
    size = COPIED_OUTPUT_BYTES
    one, executable = method(
        tensor(size, allocation=Allocation(1, 0)), tensor(size, allocation=Allocation(1, 0))
    )
    x = np.ones(size, np.float32)
    first, second = one.run([x])[0], one.run([x])[0]
    assert executable.calls[0][1][0] is first and executable.calls[1][1][0] is second


def test_channels_last_is_nhwc_to_the_engine() -> None:
    last = (0, 2, 3, 1)
    one, executable = method(tensor(1, 3, 4, 5, dim_order=last), tensor(1, 3, 4, 5, dim_order=last))
    x = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    (y,) = one.run([x])
    assert executable.shapes == [((1, 4, 5, 3),)]
    np.testing.assert_array_equal(y, x * 2)


def test_int64_is_widened() -> None:
    one, executable = method(
        tensor(5, dtype=ScalarType.INT), tensor(5, dtype=ScalarType.LONG), DataType.INT32
    )
    (y,) = one.run([np.arange(-2, 3, dtype=np.int32)])
    assert executable.calls[0][1][0].dtype == np.int32
    assert y.dtype == np.int64 and y.tolist() == [-4, -2, 0, 2, 4]


def test_bfloat16_goes_as_bits() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = tensor(3, dtype=ScalarType.BFLOAT16)
    one, executable = method(half, half, DataType.BF16)
    one.run([np.ones(3, ml_dtypes.bfloat16)])
    (inputs, outputs) = executable.calls[0]
    assert inputs[0].dtype == outputs[0].dtype == np.uint16


def test_dynamic_shapes() -> None:
    dynamic = tensor(8, 2, dynamism=Dynamism.DYNAMIC_BOUND)
    one, executable = method(dynamic, dynamic)
    for rows in (8, 3, 3, 8, 1):
        x = np.random.default_rng(rows).random((rows, 2), np.float32)
        np.testing.assert_array_equal(one.run([x])[0], x * 2)
    assert [shape for ((shape),) in executable.shapes] == [(8, 2), (3, 2), (8, 2), (1, 2)]


@pytest.mark.parametrize(
    ("source", "target", "kind", "message"),
    [
        (tensor(4, dtype=ScalarType.HALF), tensor(4), DataType.FP32, "is float16"),
        (tensor(4, dtype=ScalarType.LONG), tensor(4), DataType.INT32, "is int64"),
        (tensor(4), tensor(4, dtype=ScalarType.CHAR), DataType.FP32, "is int8"),
    ],
)
def test_values_must_fit_the_payload(
    source: Tensor, target: Tensor, kind: DataType, message: str
) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        method(source, target, kind)


def test_unknown_backends_are_named() -> None:
    data = MethodData("forward", [], [], [], [], delegates=[Delegate("QnnBackend", b"")])
    with pytest.raises(UnsupportedError, match="'QnnBackend'"):
        LoadedProgram(Program([data])).method()


def test_a_call_costs_little() -> None:
    """Around the engine: 30 microseconds at most, of which this takes about 4."""
    one, executable = method(tensor(4), tensor(4))
    x = np.ones(4, np.float32)
    executable.run = lambda inputs, outputs: None  # type: ignore[method-assign]
    best = 1.0
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(20):
            one(x)
        best = min(best, (time.perf_counter() - start) / 20)
    assert best < 30e-6
