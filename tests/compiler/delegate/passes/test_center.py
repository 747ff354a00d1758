"""Layer norms whose input is made without a mean do not take it away."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after, answers
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock.compiler.delegate.passes import center
from penstock.formats.payload_reader import read_payload
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

PRODUCT, ADD, SUBTRACT = NodeKind.FULLY_CONNECTED, NodeKind.ADD, NodeKind.SUBTRACT
MULTIPLY, SQUARE, CONCATENATE = NodeKind.MULTIPLY, NodeKind.SQUARE, NodeKind.CONCATENATE_2
INVALID = 0xFFFFFFFF
CHANNELS = 8


class Norms(GraphBuilder):
    """Rows of CHANNELS numbers, and what a transformer does with them."""

    def shape(self, x: int) -> tuple[int, ...]:
        return self.graph.values[x].shape

    def rows(self, *lead: int, bias: bool = True) -> int:
        """What can be centred: a product [*lead, CHANNELS] of an input."""
        return self.product(self.input((*lead, 5)), CHANNELS, bias)

    def product(self, x: int, outputs: int = CHANNELS, bias: bool = True) -> int:
        last = self.random(outputs) if bias else INVALID
        inputs = (x, self.random(outputs, self.shape(x)[-1]), last)
        return self.apply(PRODUCT, inputs, (*self.shape(x)[:-1], outputs))

    def mean(self, x: int, factor: float = 1.0) -> int:
        row = self.constant(np.full((1, self.shape(x)[-1]), factor / self.shape(x)[-1]))
        return self.apply(PRODUCT, (x, row, INVALID), (*self.shape(x)[:-1], 1))

    def norm(self, x: int) -> int:
        """A layer norm."""
        centred = self.apply(SUBTRACT, (x, self.mean(x)), self.shape(x))
        variance = self.mean(self.apply(SQUARE, (centred,), self.shape(x)))
        safe = self.apply(ADD, (variance, self.constant(np.array(1e-5))), self.shape(variance))
        factor = self.apply(NodeKind.RECIPROCAL_SQUARE_ROOT, (safe,), self.shape(safe))
        return self.apply(MULTIPLY, (centred, factor), self.shape(x))

    def block(self, x: int) -> int:
        """``x + product(gelu(product(norm(x))))``"""
        wide = self.product(self.norm(x), 12)
        active = self.apply(NodeKind.GELU, (wide,), self.shape(wide))
        return self.apply(ADD, (x, self.product(active)), self.shape(x))


def differences(graph: XnnGraph) -> int:
    return kinds(graph)[SUBTRACT]


def centred(sketch: GraphBuilder, *outputs: int, tolerance: float = 2e-5) -> XnnGraph:
    return after(sketch.finish(*outputs), center.apply, tolerance)


@pytest.mark.parametrize("bias", [True, False])
def test_into_a_product(bias: bool) -> None:
    sketch = Norms()
    graph = centred(sketch, sketch.norm(sketch.rows(2, 3, bias=bias)))
    assert differences(graph) == 0
    assert kinds(graph)[PRODUCT] == 2  # the product and the variance


@pytest.mark.parametrize("kind", [NodeKind.CONV_2D, NodeKind.CONV_TRANSPOSE_2D])
@pytest.mark.parametrize("groups", [1, 2])
def test_into_a_convolution_of_one_group(kind: NodeKind, groups: int) -> None:
    sketch = Norms()
    conv = Conv2dAttributes(
        (1, 1, 1, 1), (3, 3), (1, 1), (1, 1), groups, 4 // groups, CHANNELS // groups
    )
    inputs = (
        sketch.input((1, 5, 5, 4)), sketch.random(CHANNELS, 3, 3, 4 // groups),
        sketch.random(CHANNELS),
    )  # fmt: skip
    x = sketch.apply(kind, inputs, (1, 5, 5, CHANNELS), conv)
    assert differences(centred(sketch, sketch.norm(x))) == (0 if groups == 1 else 1)


def test_through_residual_sums() -> None:
    sketch = Norms()
    x = sketch.rows(2, 3)
    for _ in range(3):
        x = sketch.block(x)
    assert differences(centred(sketch, sketch.norm(x))) == 0


def test_into_constants() -> None:
    """A token before the others, a position on each, and a constant for all that is read twice."""
    sketch = Norms()
    shared = sketch.random(CHANNELS)
    token, positions = sketch.random(2, CHANNELS), sketch.random(1, 4, CHANNELS)
    token = sketch.apply(
        NodeKind.STATIC_RESHAPE, (token,), (2, 1, CHANNELS), ReshapeAttributes((2, 1, CHANNELS))
    )
    x = sketch.apply(
        CONCATENATE, (token, sketch.rows(2, 3)), (2, 4, CHANNELS), ConcatenateAttributes(1)
    )
    x = sketch.apply(ADD, (positions, x), (2, 4, CHANNELS))
    x = sketch.apply(SUBTRACT, (x, shared), (2, 4, CHANNELS))
    other = sketch.apply(SQUARE, (shared,), (CHANNELS,))
    graph = centred(sketch, sketch.norm(x), other)
    assert differences(graph) == 1  # the shared constant's


def test_through_movement_of_rows_and_factors() -> None:
    sketch = Norms()
    x = sketch.rows(2, 6)
    x = sketch.apply(
        NodeKind.STATIC_SLICE, (x,), (2, 4, CHANNELS), SliceAttributes((0, 2, 0), (2, 4, 8))
    )
    x = sketch.apply(
        NodeKind.STATIC_TRANSPOSE, (x,), (4, 2, CHANNELS), TransposeAttributes((1, 0, 2))
    )
    x = sketch.apply(NodeKind.STATIC_RESHAPE, (x,), (8, CHANNELS), ReshapeAttributes((0, 8)))
    x = sketch.apply(MULTIPLY, (sketch.constant(np.array(3.0)), x), (8, CHANNELS))
    x = sketch.apply(NodeKind.NEGATE, (x,), (8, CHANNELS))
    x = sketch.apply(MULTIPLY, (x, sketch.input((8, 1))), (8, CHANNELS))
    x = sketch.apply(NodeKind.DIV, (x, sketch.constant(np.array([[7.0]]))), (8, CHANNELS))
    assert differences(centred(sketch, sketch.norm(x))) == 0


def test_a_value_twice_and_one_for_all_rows() -> None:
    sketch = Norms()
    x = sketch.rows(4)
    x = sketch.apply(ADD, (x, x), (4, CHANNELS))
    x = sketch.apply(SUBTRACT, (sketch.rows(1), x), (4, CHANNELS))
    assert differences(centred(sketch, sketch.norm(x))) == 1


def test_two_norms_of_one_value() -> None:
    sketch = Norms()
    x = sketch.rows(4)
    assert differences(centred(sketch, sketch.norm(x), sketch.norm(x))) == 0


# --- what comes from outside ---------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "left"), [(0, 1), (1, 2), (2, 1), (4, 1)])
def test_an_input_is_centred_once_if_that_pays(blocks: int, left: int) -> None:
    sketch = Norms()
    x = sketch.input((3, CHANNELS))
    for _ in range(blocks):
        x = sketch.block(x)
    assert differences(centred(sketch, sketch.norm(x))) == left


def test_the_sum_of_embeddings_is_centred_not_each() -> None:
    sketch = Norms()
    words, places = sketch.input((2, 3, CHANNELS)), sketch.input((3, CHANNELS))
    places = sketch.apply(
        NodeKind.STATIC_RESHAPE, (places,), (1, 3, CHANNELS), ReshapeAttributes((1, 3, CHANNELS))
    )
    x = sketch.apply(ADD, (words, places), (2, 3, CHANNELS))
    for _ in range(2):
        x = sketch.block(x)
    assert differences(centred(sketch, sketch.norm(x))) == 1


def test_beside_a_value_that_is_read_otherwise() -> None:
    """The value has a norm of its own, so its mean is taken in any case."""
    sketch = Norms()
    y = sketch.rows(3)
    z = sketch.apply(SQUARE, (y,), (3, CHANNELS))
    x = sketch.apply(ADD, (y, sketch.product(sketch.norm(y))), (3, CHANNELS))
    assert differences(centred(sketch, sketch.norm(x), z)) == 1


def test_not_of_infinities() -> None:
    sketch = Norms()
    mask = sketch.constant(np.array([0, -np.inf] * 4))
    x = sketch.apply(ADD, (sketch.rows(3), mask), (3, CHANNELS))
    graph = sketch.finish(sketch.norm(x))
    center.apply(graph)
    assert differences(graph) == 1


# --- what looks similar --------------------------------------------------------------------------


def read_elsewhere(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return sketch.norm(x), sketch.apply(NodeKind.TANH, (x,), (3, CHANNELS))


def answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return sketch.norm(x), x


def multiplied_by_channel(sketch: Norms) -> tuple[int, ...]:
    scaled = sketch.apply(MULTIPLY, (sketch.rows(3), sketch.random(CHANNELS)), (3, CHANNELS))
    return (sketch.norm(scaled),)


def clamped(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    sketch.graph.nodes[-1].clamp = (0.0, 1.0)
    return (sketch.norm(x),)


def clamped_sum(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(ADD, (sketch.rows(3), sketch.rows(3)), (3, CHANNELS), clamp=(0.0, 1.0))
    return (sketch.norm(x),)


def sum_with_a_row_constant(sketch: Norms) -> tuple[int, ...]:
    return (sketch.norm(sketch.apply(ADD, (sketch.rows(3), sketch.input((3, 1))), (3, CHANNELS))),)


def joined_channels(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        CONCATENATE, (sketch.rows(3), sketch.rows(3)), (3, 16), ConcatenateAttributes(1)
    )
    return (sketch.norm(x),)


def some_channels(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        NodeKind.STATIC_SLICE, (sketch.rows(3),), (3, 4), SliceAttributes((0, 2), (3, 4))
    )
    return (sketch.norm(x),)


def mixed_rows(sketch: Norms) -> tuple[int, ...]:
    x = sketch.move(sketch.rows(4), (2, 16))
    return (sketch.norm(x),)


def turned(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        NodeKind.STATIC_TRANSPOSE, (sketch.rows(8),), (8, CHANNELS), TransposeAttributes((1, 0))
    )
    return (sketch.norm(x),)


def tied(sketch: Norms) -> tuple[int, ...]:
    weight = sketch.random(CHANNELS, CHANNELS)
    x = sketch.input((3, CHANNELS))
    for _ in range(2):
        x = sketch.apply(PRODUCT, (x, weight, INVALID), (3, CHANNELS))
    return (sketch.norm(x),)


def square(sketch: Norms, x: int, mean: int) -> int:
    """``(x - mean)^2``"""
    return sketch.apply(SQUARE, (sketch.apply(SUBTRACT, (x, mean), (3, CHANNELS)),), (3, CHANNELS))


def not_the_mean(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (square(sketch, x, sketch.mean(x, 2.0)),)


def not_every_channel(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    row = sketch.constant(np.array([[0.25, 0] * 4]))
    return (square(sketch, x, sketch.apply(PRODUCT, (x, row, INVALID), (3, 1))),)


def mean_with_a_bias(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    sketch.graph.nodes[-1].inputs = (*sketch.graph.nodes[-1].inputs[:2], sketch.random(1))
    return (square(sketch, x, mean),)


def mean_itself(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    return square(sketch, x, mean), sketch.apply(SQUARE, (mean,), (3, 1))


def mean_answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    return square(sketch, x, mean), mean


def difference_answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (sketch.apply(SUBTRACT, (x, sketch.mean(x)), (3, CHANNELS)),)


def the_wrong_way_round(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (square(sketch, sketch.mean(x), x),)


def difference_from_another(sketch: Norms) -> tuple[int, ...]:
    return (square(sketch, sketch.rows(3), sketch.mean(sketch.rows(3))),)


@pytest.mark.parametrize(
    "make",
    [
        read_elsewhere, answered, multiplied_by_channel, clamped, clamped_sum,
        sum_with_a_row_constant, joined_channels, some_channels, mixed_rows, turned, tied,
        not_the_mean, not_every_channel, mean_with_a_bias, mean_itself, mean_answered,
        difference_answered, the_wrong_way_round, difference_from_another,
    ],
)  # fmt: skip
def test_stays(make: Callable[[Norms], tuple[int, ...]]) -> None:
    sketch = Norms()
    graph = sketch.finish(*make(sketch))
    before = copy.deepcopy(graph)
    graph = after(graph, center.apply, tolerance=0.0)
    assert kinds(graph) == kinds(before)


def test_integer_weights_stay() -> None:
    sketch = Norms()
    data = np.arange(40, dtype=np.int8).reshape(CHANNELS, 5)
    weight = sketch.value(data.shape, DataType.QINT8, PerTensor(0.01, 0), data)
    x = sketch.apply(PRODUCT, (sketch.input((3, 5)), weight, INVALID), (3, CHANNELS))
    graph = sketch.finish(sketch.norm(x))
    center.apply(graph)
    assert differences(graph) == 1
    assert graph.values[weight].data is data


def test_a_reshape_that_seems_to_keep_rows() -> None:
    """[8, n] to [n, 8] with n of 8 at most: the shapes are upper bounds."""
    sketch = Norms()
    x = sketch.input((CHANNELS, 8))
    x = sketch.apply(NodeKind.STATIC_RESHAPE, (x,), (8, CHANNELS), ReshapeAttributes((0, CHANNELS)))
    for _ in range(2):
        x = sketch.block(x)
    graph = sketch.finish(sketch.norm(x))
    center.apply(graph)
    (reshape,) = (n for n in graph.nodes if n.kind is NodeKind.STATIC_RESHAPE)
    assert reshape.inputs == (graph.inputs[0],)
    assert differences(graph) == 1


# --- any chain, and exactness --------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("npcxrtiasmfo"), min_size=1, max_size=9))
def test_any_chain(steps: list[str]) -> None:
    sketch = Norms()
    x = sketch.rows(2, 4)
    shape = (2, 4, CHANNELS)
    outputs = []
    for step in steps:
        if step == "n":
            outputs.append(sketch.norm(x))
        elif step == "p":
            x = sketch.block(x)
        elif step == "c":
            x = sketch.apply(ADD, (x, sketch.random(4, CHANNELS)), shape)
        elif step == "x":
            x = sketch.apply(SUBTRACT, (sketch.input(shape), x), shape)
        elif step == "r":
            moved = sketch.apply(
                NodeKind.STATIC_RESHAPE, (x,), (8, CHANNELS), ReshapeAttributes((8, CHANNELS))
            )
            x = sketch.apply(NodeKind.STATIC_RESHAPE, (moved,), shape, ReshapeAttributes(shape))
        elif step == "t":
            halves = [
                sketch.apply(
                    NodeKind.STATIC_SLICE, (x,), (2, 2, CHANNELS),
                    SliceAttributes((0, start, 0), (2, 2, CHANNELS)),
                )
                for start in (2, 0)
            ]  # fmt: skip
            x = sketch.apply(CONCATENATE, halves, shape, ConcatenateAttributes(1))
        elif step == "i":
            x = sketch.apply(ADD, (x, sketch.product(sketch.input(shape))), shape)
        elif step == "a":
            x = sketch.apply(NodeKind.TANH, (x,), shape)
        elif step == "s":
            x = sketch.apply(ADD, (x, x), shape)
        elif step == "m":
            x = sketch.apply(MULTIPLY, (x, sketch.random(2, 1, 1)), shape)
        elif step == "f":
            x = sketch.norm(x)
        else:
            outputs.append(sketch.apply(SQUARE, (x,), shape))
    graph = sketch.finish(sketch.norm(x), *outputs)
    before = differences(graph)
    assert differences(centred(sketch_of(graph), tolerance=1e-3)) <= before


def sketch_of(graph: XnnGraph) -> GraphBuilder:
    sketch = GraphBuilder()
    sketch.graph = graph
    return sketch


def test_at_least_as_exact() -> None:
    """Rows with a mean of 100 and a deviation of about 1, the answer judged by float64."""
    sketch = Norms()
    generator = np.random.default_rng(0)
    source = sketch.input((64, 16))
    weight = generator.standard_normal((CHANNELS * 4, 16)) / 4 + 10
    bias = generator.standard_normal(CHANNELS * 4) + 100
    inputs = (source, sketch.constant(weight), sketch.constant(bias))
    x = sketch.apply(PRODUCT, inputs, (64, CHANNELS * 4))
    graph = sketch.finish(sketch.norm(x))
    weight, bias = (np.asarray(graph.values[value].data, np.float64) for value in inputs[1:])
    rows = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32) @ weight.T + bias
    exact = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    before = np.abs(answers(graph)[0] - exact).max()
    now = np.abs(answers(after(graph, center.apply, 1e-3))[0] - exact).max()
    assert now < before / 4


@pytest.mark.parametrize("dynamic", [False, True])
def test_in_a_transformer(dynamic: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, norm_first=True, batch_first=True)
    encoder = torch.nn.TransformerEncoder(
        layer, 2, norm=torch.nn.LayerNorm(16), enable_nested_tensor=False
    )
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), encoder).eval()
    x = torch.randn(2, 5, 8)
    sizes = {0: torch.export.Dim("batch", max=4), 1: torch.export.Dim("tokens", min=2, max=16)}
    lowered = penstock.lower(model, (x,), dynamic_shapes=(sizes,) if dynamic else None)
    (delegate,) = lowered.program.methods[0].delegates
    graph = read_payload(delegate.payload, lowered.program.named_data)
    assert kinds(graph)[NodeKind.RECIPROCAL_SQUARE_ROOT] == 5
    assert differences(graph) == 0
    program = penstock.load(lowered.to_bytes())
    for size in [(2, 5), (3, 16)] if dynamic else [(2, 5)]:
        x = torch.randn(*size, 8)
        with torch.no_grad():
            expected = model(x).numpy()
        (found,) = program(x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
