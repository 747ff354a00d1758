"""Recurrent layers and cells with int8 weights, whose rows are quantized in each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from operator_harness import sqnr
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import penstock
from penstock.compiler.quantize import XNNPACKQuantizer
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.dtypes import DataType
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

torch.manual_seed(11)


class Flat(nn.Module):
    """A layer or cell whose results are one tuple of tensors."""

    def __init__(
        self, layer: nn.Module, begin: Callable[..., Any] = lambda *states: states
    ) -> None:
        super().__init__()
        self.layer, self.begin = layer, begin

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        found = self.layer(x, *self.begin(*states))
        return tuple(torch.utils._pytree.tree_leaves(found))


class Learned(nn.Module):
    """A layer that begins at a state that it has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.h = nn.GRU(6, 10), nn.Parameter(torch.randn(1, 1, 10))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.layer(x, self.h.expand(1, x.shape[1], 10))
        return found


def pair(h: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor]]:
    return ((h, c),)


#: By name: a model, the shapes of its inputs, and how many matrices of int8 its file has.
MODELS: dict[str, tuple[nn.Module, list[tuple[int, ...]], int]] = {
    "lstm": (Flat(nn.LSTM(6, 10)), [(5, 1, 6)], 2),
    "lstm of all kinds": (
        Flat(nn.LSTM(6, 10, 2, batch_first=True, bidirectional=True)), [(3, 5, 6)], 8,
    ),
    "lstm with projections": (Flat(nn.LSTM(6, 10, 2, proj_size=4)), [(5, 3, 6)], 6),
    "lstm from a state": (
        Flat(nn.LSTM(6, 10, bias=False), pair), [(5, 2, 6), (1, 2, 10), (1, 2, 10)], 2,
    ),
    "lstm of one sequence": (Flat(nn.LSTM(6, 10)), [(5, 6)], 2),
    "gru": (Flat(nn.GRU(6, 10, 2, bidirectional=True)), [(5, 2, 6)], 12),
    "gru from a state": (Flat(nn.GRU(6, 10, bias=False)), [(5, 6), (1, 10)], 3),
    "gru from a constant": (Learned(), [(4, 2, 6)], 3),
    "rnn": (Flat(nn.RNN(6, 10, 2)), [(5, 2, 6)], 4),
    "rnn of relu": (Flat(nn.RNN(6, 10, nonlinearity="relu")), [(5, 2, 6)], 2),
    "lstm cell": (Flat(nn.LSTMCell(6, 10), pair), [(3, 6), (3, 10), (3, 10)], 2),
    "gru cell": (Flat(nn.GRUCell(6, 10)), [(3, 6), (3, 10)], 4),
    "rnn cell": (Flat(nn.RNNCell(6, 10, nonlinearity="relu")), [(6,), (10,)], 2),
}  # fmt: skip


def graph_of(lowered: penstock.LoweredProgram) -> XnnGraph:
    """The graph of the one delegate."""
    program = read_program(lowered.to_bytes())
    (delegate,) = program.methods[0].delegates
    return read_payload(delegate.payload, program.named_data)


def answers(data: bytes, inputs: tuple[Tensor, ...], **options: Any) -> list[np.ndarray]:
    program = penstock.load(data, threads=1, **options)
    return [np.asarray(y) for y in program(*(x.numpy() for x in inputs))]


@pytest.mark.parametrize("name", MODELS)
def test_int8_weights(name: str) -> None:
    """All products are of rows in int8, each weight is in the file once, and what the quantized
    graph gives in PyTorch is what the program gives."""
    model, shapes, matrices = MODELS[name]
    inputs = tuple(torch.randn(shape) for shape in shapes)
    lowered = penstock.lower(model.eval(), inputs, quantize="dynamic")
    assert lowered.quantization is not None
    assert len(lowered.quantization.quantized) == 1
    assert not lowered.delegation.undelegated
    graph = graph_of(lowered)
    values = {value.id: value for value in graph.values}
    products = [node for node in graph.nodes if node.kind is NodeKind.FULLY_CONNECTED]
    assert {values[node.inputs[0]].dtype for node in products} == {DataType.QDINT8}
    assert {values[node.inputs[1]].dtype for node in products} == {DataType.QCINT8}
    assert len({node.inputs[1] for node in products}) == matrices
    with torch.no_grad():
        expected = [y.numpy() for y in model(*inputs)]
    module = torch.export.export(model, inputs).module()
    converted = convert_pt2e(prepare_pt2e(module, XNNPACKQuantizer("dynamic")))
    simulated = [y.detach().numpy() for y in converted(*inputs)]
    by_hand = penstock.lower(torch.export.export(converted, inputs)).to_bytes()
    kernels = penstock.lower(model, inputs, quantize="dynamic", delegate=False).to_bytes()
    for exact, rounded, *found in zip(
        expected, simulated,
        answers(lowered.to_bytes(), inputs),
        answers(lowered.to_bytes(), inputs, engine="xnnpack"),
        answers(by_hand, inputs), answers(kernels, inputs),
        strict=True,
    ):  # fmt: skip
        assert 30 < sqnr(rounded, exact) < 70
        for one in found:
            assert sqnr(one, rounded) > 90


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_batches_of_any_size(kind: type[nn.Module]) -> None:
    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(8, 20, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(x)[0]
            return found

    model = Outputs().eval()
    lowered = penstock.lower(
        model, (torch.randn(4, 5, 8),), quantize="dynamic",
        dynamic_shapes=({0: torch.export.Dim("batch", max=30)},),
    )  # fmt: skip
    delegated = {node.name for piece in lowered.delegation.subgraphs for node in piece}
    assert delegated & {"lstm", "gru"}
    for rows in (1, 30, 6, 4):
        x = torch.randn(rows, 5, 8)
        (found,) = answers(lowered.to_bytes(), (x,))
        assert sqnr(found, model(x).detach().numpy()) > 30


def test_what_the_report_says() -> None:
    model, x = Flat(nn.LSTM(32, 64)).eval(), torch.randn(6, 2, 32)
    report = penstock.lower(model, (x,), quantize="dynamic").quantization
    assert report is not None
    (layer,) = report.quantized
    assert (layer.operator, layer.form) == ("lstm", "int8")
    (ratio,) = (one.sqnr_db for one in report.quantized)
    assert ratio is not None and 35 < ratio < 60
    cost = next(layer for layer in report.cost().layers if layer.operator == "lstm")
    weights = 4 * 64 * (32 + 64)
    biases, scales = 2 * 4 * 4 * 64, 2 * 4 * 4 * 64
    states = 2 * 4 * 2 * 64
    assert cost.float_bytes == 4 * weights + biases + states
    assert cost.bytes == weights + biases + scales + states


def test_schemes() -> None:
    """4 bits are for linear layers; a static scheme leaves them in float unless it is told."""
    model, x = Flat(nn.LSTM(32, 64)).eval(), torch.randn(6, 2, 32)
    report = penstock.lower(model, (x,), quantize="4bit").quantization
    assert report is not None
    assert report.quantized[0].form == "int8: XNNPACK has 4-bit weights for linear layers alone"

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.layer = nn.Conv1d(8, 16, 3), nn.GRU(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(self.before(x).permute(2, 0, 1))[0]
            return found

    both, x = Both().eval(), torch.randn(2, 8, 9)
    report = penstock.lower(both, (x,), quantize="static", calibration=[(x,)]).quantization
    assert report is not None
    (reason,) = (layer.reason for layer in report.floating if layer.operator == "gru")
    assert reason is not None and "operators={'gru': 'dynamic'}" in reason
    mixed = penstock.Quantization("static_per_channel", operators={"gru": "dynamic_per_channel"})
    lowered = penstock.lower(both, (x,), quantize=mixed, calibration=[(x,)])
    assert lowered.quantization is not None
    quantized = {layer.operator for layer in lowered.quantization.quantized}
    assert quantized == {"convolution", "gru", "permute"}
    with torch.no_grad():
        assert sqnr(answers(lowered.to_bytes(), (x,))[0], both(x).numpy()) > 25
    for left in (
        penstock.Quantization("dynamic_per_channel", operators={"gru": None}),
        penstock.Quantization("dynamic_per_channel", skip=("layer",)),
    ):
        report = penstock.lower(both, (x,), quantize=left).quantization
        assert report is not None
        assert "gru" in {layer.operator for layer in report.floating}


def test_training_leaves_them_in_float() -> None:
    module = torch.export.export(Flat(nn.LSTM(6, 10)), (torch.randn(3, 1, 6),)).module()
    quantizer = XNNPACKQuantizer("dynamic", is_qat=True)
    quantizer.annotate(quantizer.transform_for_annotation(module))
    reasons = {d.operator: d.reason for d in quantizer.plan.decisions}
    assert reasons["lstm"] == "training for int8 does not round its state"


def test_too_long_for_its_weights() -> None:
    """What is unrolled has its weights once for each step, which bounds how long it may be."""
    model = Flat(nn.LSTM(8, 512)).eval()
    lowered = penstock.lower(model, (torch.randn(100, 1, 8),), quantize="dynamic")
    assert lowered.quantization is not None and len(lowered.quantization.quantized) == 1
    longer = nn.Sequential(nn.Linear(8, 8), model).eval()
    report = penstock.lower(longer, (torch.randn(200, 1, 8),), quantize="dynamic").quantization
    assert report is not None
    assert {layer.reason for layer in report.floating if layer.operator == "lstm"} == {
        "its weights would take 200 MiB when it is unrolled"
    }
