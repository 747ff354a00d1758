"""Graphs that contradict themselves are refused with one clear line, and never crash."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xnn_samples
from children import environment
from graph_builder import GraphBuilder

from penstock.errors import InvalidProgramError, PenstockError, UnsupportedError
from penstock.graph.dtypes import DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
)
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack import input_shapes
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

ROOT = Path(__file__).parents[4]


def sample(name: str) -> XnnGraph:
    graph = xnn_samples.SAMPLES[name][0]
    return XnnGraph(
        [dataclasses.replace(v) for v in graph.values],
        [dataclasses.replace(n) for n in graph.nodes],
        list(graph.inputs),
        list(graph.outputs),
    )


def refuse(graph: XnnGraph, message: str, error: type[PenstockError] = InvalidProgramError) -> None:
    with pytest.raises(error, match=message or None) as caught:
        XnnpackEngine().compile(graph, threads=Threads(1))
    assert "\n" not in str(caught.value)


def node(**changes: object) -> Callable[[XnnGraph], None]:
    return lambda graph: graph.nodes.__setitem__(0, dataclasses.replace(graph.nodes[0], **changes))


def attributes(**changes: object) -> Callable[[XnnGraph], None]:
    def change(graph: XnnGraph) -> None:
        new = dataclasses.replace(graph.nodes[0].attributes, **changes)  # type: ignore[type-var]
        graph.nodes[0].attributes = new

    return change


def value(index: int, **changes: object) -> Callable[[XnnGraph], None]:
    return lambda graph: [setattr(graph.values[index], k, v) for k, v in changes.items()]  # type: ignore[func-returns-value,return-value]


CASES = {
    "a filter smaller than the attributes say": (
        "conv_2d_float32", attributes(group_output_channels=50), "filter",
    ),
    "a filter with fewer bytes than its shape": (
        "conv_2d_float32", value(1, data=bytes(100)), "100 bytes",
    ),
    "a bias of another length": ("conv_2d_float32", value(2, shape=(9,)), ""),
    "a computed filter": ("conv_2d_float32", value(1, data=None), "constant|nothing before"),
    "a window larger than its input": (
        "max_pooling_2d_float32", attributes(kernel=(30, 3)), "window of 30",
    ),
    "a stride of nothing": ("max_pooling_2d_float32", attributes(stride=(0, 1)), ""),
    "three kernel sizes": ("max_pooling_2d_float32", attributes(kernel=(1, 2, 3)), ""),
    "a permutation that repeats": (
        "static_transpose_float32", attributes(perm=(0, 1, 1, 2)), "permute",
    ),
    "a shape of another size": (
        "static_reshape_float32", attributes(new_shape=(5, 5)), "cannot become",
    ),
    "two inferred dimensions": ("static_reshape_float32", attributes(new_shape=(0, 0)), ""),
    "an axis that is not there": ("concatenate_2_float32", attributes(axis=4), ""),
    "an axis below zero": ("concatenate_2_float32", attributes(axis=-5), "axis"),
    "a slice beyond the end": (
        "static_slice_float32", attributes(offsets=(1, 2, 0, 30)), "",
    ),
    "a padding below zero": (
        "static_constant_pad_float32", attributes(pre=(-1, 0, 0, 0)), "-1",
    ),
    "a padding of integers": ("static_constant_pad_float32", value(0, dtype=DataType.INT32), ""),
    "a resize to nothing": ("static_resize_bilinear_2d_float32", attributes(height=0), ""),
    "flags that nobody knows": ("add_float32", node(flags=0x80), "flags 0x80"),
    "an empty output range": ("add_float32", node(clamp=(2.0, 1.0)), "range"),
    "a NaN for a bound": ("add_float32", node(clamp=(math.nan, 1.0)), ""),
    "an input that is not there": ("add_float32", node(inputs=(0, 77)), "77"),
    "one input too few": ("add_float32", node(inputs=(0,)), "1 inputs"),
    "an output that is an input": ("add_float32", node(outputs=(0,)), ""),
    "a value that is read before it is computed": ("add_float32", node(inputs=(0, 2)), "2"),
    "mixed element types": ("add_float32", value(1, dtype=DataType.FP16), "FP16"),
    "shapes that do not broadcast": ("add_float32", value(1, shape=(2, 9, 7, 11)), "go together"),
    "attributes of another kind": (
        "add_float32", node(attributes=ConcatenateAttributes(0)), "attributes",
    ),
    "a node that the runtime lacks": (
        "add_float32", node(kind=NodeKind.SCALED_DOT_PRODUCT_ATTENTION), "",
    ),
    "seven dimensions": ("abs_float32", value(0, shape=(1,) * 7), "dimensions"),
    "a dimension of nothing": ("abs_float32", value(0, shape=(2, 0, 7, 12)), "shape"),
    "another rank than declared": ("abs_float32", value(1, shape=(2, 63, 12)), "declared"),
    "a type that no file has": ("abs_float32", value(0, dtype=DataType.PFP32), "PFP32"),
    "a scale of zero": ("abs_int8", value(0, quantization=PerTensor(0.0, 0)), "scale"),
    "a subnormal scale": ("abs_int8", value(0, quantization=PerTensor(1e-40, 0)), "scale"),
    "an infinite scale": ("abs_int8", value(0, quantization=PerTensor(math.inf, 0)), "scale"),
    "a zero point out of range": ("abs_int8", value(0, quantization=PerTensor(1.0, 128)), "128"),
    "8 bits without a scale": ("abs_int8", value(0, quantization=None), "QINT8"),
    "a scale for floats": ("abs_float32", value(0, quantization=PerTensor(1.0, 0)), "FP32"),
    "too few scales": (
        "conv_2d_qc8", value(1, quantization=PerChannel(np.ones(3, np.float32), 0)), "scales",
    ),
    "scales along another axis": (
        "conv_2d_qc8", value(1, quantization=PerChannel(np.ones(6, np.float32), 3)), "axis 3",
    ),
    "one scale below zero": (
        "fully_connected_qc8",
        value(1, quantization=PerChannel(np.linspace(-1, 1, 19, dtype=np.float32), 0)), "scales",
    ),
    "the wrong dimensions per token": (
        "dynamic_qc8", value(1, quantization=PerToken(2)), "2 dimensions per token",
    ),
    "an external id out of range": ("abs_float32", value(0, external_id=5000), "5000"),
    "an external id twice": ("abs_float32", value(0, external_id=1), "external ids"),
    "both input and output": ("abs_float32", value(0, is_output=True), ""),
    "an output that nobody computes": ("abs_float32", lambda graph: graph.nodes.clear(), "output"),
    "indices of half a word": ("arg_max_pooling_2d", value(2, dtype=DataType.FP16), "FP16"),
    "a 4-bit row of odd length": ("dynamic_qc4", value(2, shape=(10, 63)), ""),
    "an inner dimension that differs": (
        "fully_connected_float32", value(0, shape=(3, 4, 32)), "",
    ),
    "matrices that do not fit": (
        "batch_matrix_multiply_float32", value(1, shape=(3, 7, 5)), "inner dimensions 6 and 7",
    ),
    "an output padding beyond the stride": (
        "conv_transpose_2d_float32", attributes(adjustment=(2, 0)), "output padding",
    ),
    "a transposed convolution of nothing": (
        "conv_transpose_2d_float32", attributes(padding=(99, 0, 0, 0)), "output would have shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    name, change, message = CASES[case]
    graph = sample(name)
    change(graph)
    refuse(graph, message)


def test_element_types_that_xnnpack_lacks_are_unsupported() -> None:
    graph = sample("conv_2d_float32")
    graph.values[2].dtype = DataType.INT32
    refuse(graph, r"node 0 \(CONV_2D\)", UnsupportedError)


def test_a_graph_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder()
    x, y = b.input((1, 1)), b.output((1 << 20, 1 << 20))
    b.node(
        NodeKind.STATIC_CONSTANT_PAD, [x], [y],
        attributes=PadAttributes((0, 0), ((1 << 20) - 1, (1 << 20) - 1), 0.0),
    )  # fmt: skip
    refuse(b.graph, "4398.0 GB", UnsupportedError)
    monkeypatch.setattr(input_shapes, "available_memory", lambda: 1 << 20)
    XnnpackEngine().compile(sample("abs_float32"), threads=Threads(1))


def test_a_pool_whose_tables_exceed_the_memory_is_refused() -> None:
    b = GraphBuilder()
    side = 200_000
    x, y = b.input((1, 1, side, 1)), b.output((1, 1, side // 2 + 1, 1))
    pool = Pool2dAttributes((0, 0, 0, 0), (1, side // 2), (1, 1))
    b.node(NodeKind.MAX_POOLING_2D, [x], [y], attributes=pool)
    refuse(b.graph, "80.0 GB", UnsupportedError)


def test_declared_sizes_of_intermediate_values_cost_nothing() -> None:
    """A file that overstates them does not make XNNPACK reserve memory."""
    b = GraphBuilder()
    x, middle, y = b.input((2, 3)), b.value((1 << 30, 1 << 30)), b.output((2, 3))
    b.node(NodeKind.ABS, [x], [middle])
    b.node(NodeKind.SQUARE, [middle], [y])
    executable = XnnpackEngine().compile(b.graph, threads=Threads(1))
    array, out = np.full((2, 3), -2.0, np.float32), np.empty((2, 3), np.float32)
    executable.run([array], [out])
    assert (out == 4.0).all()


def test_damage_at_random_never_crashes() -> None:
    """In a process of its own, which a crash would end."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("xnn_mutations.py")), "0", "8000"],
        capture_output=True, text=True, timeout=300,
        env=environment(),
    )  # fmt: skip
    last = done.stdout.splitlines()[-2:]
    assert done.returncode == 0, (last, done.stderr[-1000:])
    assert "'ran'" in last[-1] and "'InvalidProgramError'" in last[-1]


def test_integer_division_is_refused_for_it_can_trap() -> None:
    b = GraphBuilder()
    ids = [b.input((1, 3), DataType.INT32), b.input((1, 3), DataType.INT32)]
    b.node(NodeKind.DIV, ids, [b.output((1, 3), DataType.INT32)])
    refuse(b.graph, "INT32")


def test_a_dilation_beyond_the_input_is_refused() -> None:
    graph = sample("conv_2d_float32")
    a = graph.nodes[0].attributes
    assert isinstance(a, Conv2dAttributes)
    graph.nodes[0].attributes = dataclasses.replace(a, dilation=(1 << 30, 1))
    refuse(graph, "window of 2147483649")
