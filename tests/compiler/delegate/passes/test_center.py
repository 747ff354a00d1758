"""Layer norms whose input is made without a mean do not take it away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from center_harness import (
    ADD,
    CHANNELS,
    CONCATENATE,
    MULTIPLY,
    PRODUCT,
    SQUARE,
    SUBTRACT,
    Norms,
    centred,
    differences,
)
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after, answers
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock.compiler.delegate.passes import center
from penstock.formats.payload_reader import read_payload
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)


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
