"""The quantizer in a flow of one's own, and what calibration data may look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graphs import SmallNet, aten, calls, captured, is_quantized, quantized, run, sqnr_db
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import penstock
from penstock.compiler.progress import Timed
from penstock.compiler.quantize import XNNPACKQuantizer
from penstock.compiler.quantize.flow import quantize
from penstock.errors import QuantizationError
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind

ARITHMETIC = (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY)

torch.manual_seed(0)
IMAGES = torch.randn(2, 3, 8, 8)


class InPlace(nn.Module):
    """As models write it: in-place operators on values that others still read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean, -1, 1)  # type: ignore[arg-type]
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        y += 0.25
        torch.relu_(y)
        return self.head(y.permute(0, 2, 3, 1)) * 2


@pytest.mark.parametrize("scheme", ["static", "static_per_tensor", "dynamic"])
@pytest.mark.parametrize("model", [SmallNet(), InPlace()], ids=["SmallNet", "InPlace"])
def test_in_torchaos_own_flow_it_does_the_same(model: nn.Module, scheme: str) -> None:
    model.eval()
    module = torch.export.export(model, (IMAGES,)).module()
    quantizer = XNNPACKQuantizer(scheme)
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        prepared(IMAGES)
        theirs = convert_pt2e(prepared)(IMAGES)
        expected = model(IMAGES)
    converted, report = quantized(model, (IMAGES,), scheme)
    ours = run(converted, IMAGES)
    assert sqnr_db(expected, theirs) > 25
    assert sqnr_db(theirs, ours) > 30, "the two flows differ"
    assert [d.operator for d in quantizer.plan.quantized] == [d.operator for d in report.quantized]


def test_weights_that_are_rounded_when_the_model_runs() -> None:
    """``convert_pt2e(fold_quantize=False)`` leaves them in float, behind a quantize."""
    model = SmallNet().eval()
    module = torch.export.export(model, (IMAGES,)).module()
    prepared = prepare_pt2e(module, XNNPACKQuantizer())
    prepared(IMAGES)
    converted = convert_pt2e(prepared, fold_quantize=False)
    lowered = penstock.lower(torch.export.export(converted, (IMAGES,)))
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(IMAGES)
    assert sqnr_db(converted(IMAGES), torch.from_numpy(found)) > 35


def test_both_readers_of_a_value_changed_in_place() -> None:
    """``y`` after ``relu_(y)`` is the changed value, also when a quantize comes between."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            z = y * 2
            y.relu_()
            return y + z

    model = Model()
    prepared = prepare_pt2e(torch.export.export(model, (IMAGES,)).module(), XNNPACKQuantizer())
    prepared(IMAGES)
    assert sqnr_db(model(IMAGES), convert_pt2e(prepared)(IMAGES)) > 30


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * scale + ids


ARGS = (torch.randn(2, 4),)
KWARGS = {"scale": torch.randn(2, 4), "ids": torch.ones(2, 1, dtype=torch.int64)}


def two_inputs(calibration: Any) -> Any:
    program = torch.export.export(TwoInputs(), ARGS, KWARGS)
    module = program.module(check_guards=False)
    return quantize(module, ARGS, "static", calibration, example_kwargs=KWARGS)


@pytest.mark.parametrize(
    "batch",
    [
        (ARGS[0] * 3, KWARGS["scale"], KWARGS["ids"]),
        [ARGS[0] * 3, KWARGS["scale"], KWARGS["ids"]],
        {"ids": KWARGS["ids"], "scale": KWARGS["scale"], "x": ARGS[0] * 3},
        (np.asarray(ARGS[0]) * 3, np.asarray(KWARGS["scale"]), np.ones((2, 1), np.int64)),
    ],
    ids=["tuple", "list", "by name", "numpy"],
)
def test_forms_of_a_batch(batch: Any) -> None:
    module, _ = two_inputs([batch])
    scale = calls(module, aten.linear.default)[0].args[0].args[1]
    expected = (ARGS[0] * 3).max().clamp(min=0) - (ARGS[0] * 3).min().clamp(max=0)
    # (Of 8 values the range is twice what was seen.)
    assert scale == pytest.approx(2.0 * float(expected) / 255, rel=0.3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (ARGS, r"batch 1: expected 3 inputs, found 1; give what the model takes and no more: x, "),
        ({"x": ARGS[0]}, r"batch 1: expected the inputs x, scale, ids, found x; give these names"),
        ((ARGS[0], KWARGS["scale"], torch.ones(2, 2, dtype=torch.int64)),
         r"batch 1, input ids: expected int64 \[2, 1\], found int64 \[2, 2\]"),
        ((ARGS[0], KWARGS["scale"].double(), KWARGS["ids"]),
         r"batch 1, input scale: expected float32 \[2, 4\], found float64 \[2, 4\]"),
        ((torch.randn(2, 4, 1), KWARGS["scale"], KWARGS["ids"]),
         r"batch 1, input x: expected float32 \[2, 4\], found float32 \[2, 4, 1\]; give the sizes"),
        ((ARGS[0][0], KWARGS["scale"], KWARGS["ids"]),
         r"batch 1, input x: expected float32 \[2, 4\], found float32 \[4\]; give whole batches"),
        ((ARGS[0].to("meta"), KWARGS["scale"], KWARGS["ids"]), r"with values, found a meta one"),
        ((ARGS[0], KWARGS["scale"].to_sparse(), KWARGS["ids"]), r"scale: .* a sparse_coo one"),
        (("text", KWARGS["scale"], KWARGS["ids"]),
         r"batch 1, input x: expected a tensor, found a str"),
        ((ARGS, KWARGS["scale"], KWARGS["ids"]), r"batch 1: expected 3 inputs structured like"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit(batch: Any, message: str) -> None:
    good = (*ARGS, *KWARGS.values())
    with pytest.raises(QuantizationError, match=message):
        two_inputs([good, batch])


@pytest.mark.parametrize("data", [IMAGES, {"x": IMAGES}, 5, "data"])
def test_calibration_that_is_no_sequence_of_batches(data: Any) -> None:
    with pytest.raises(QuantizationError, match="iterable of input tuples"):
        quantized(SmallNet(), (IMAGES,), "static", data)


def test_what_makes_batches_is_not_taken_for_them() -> None:
    samples = TensorDataset(IMAGES)
    for data, message in ((lambda: [IMAGES], "call it"), (samples, "TensorDataset.*DataLoader")):
        with pytest.raises(QuantizationError, match=message):
            quantized(SmallNet(), (IMAGES,), "static", data)


def test_no_batches_at_all() -> None:
    with pytest.raises(QuantizationError, match="holds no batch"):
        quantized(SmallNet(), (IMAGES,), "static", [])


def test_dynamic_dimensions_may_vary_and_others_not() -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    module = captured(SmallNet(), (IMAGES,), dynamic_shapes=({0: batch},))
    data = (torch.randn(n, 3, 8, 8) for n in (1, 5))
    quantize(module, (IMAGES,), "static", data)
    module = captured(SmallNet(), (IMAGES,), dynamic_shapes=({0: batch},))
    with pytest.raises(QuantizationError, match=r"batch 0, input x: .*, 8, 8\], found .*, 8, 9\]"):
        quantize(module, (IMAGES,), "static", [torch.randn(2, 3, 8, 9)])


class TwoSources(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([self.first(x).relu(), self.second(memory).relu()], 1))


def test_an_input_may_be_empty_and_a_batch_may_not() -> None:
    """An empty value has no mean that biases could be corrected by."""
    torch.manual_seed(0)
    model, args = TwoSources().eval(), (torch.randn(1, 8, 8), torch.randn(1, 4, 8))
    size = torch.export.Dim("size", min=0, max=64)
    data = [(torch.randn(1, 8, 8), torch.randn(1, n, 8)) for n in (0, 4)]
    module = captured(model, args, dynamic_shapes=({}, {1: size}))
    converted, _ = quantize(module, args, "static", data)
    assert sqnr_db(model(*args), run(converted, *args)) > 25

    batch = torch.export.Dim("batch", min=0, max=16)
    module = captured(SmallNet(), (IMAGES,), dynamic_shapes=({0: batch},))
    with pytest.raises(QuantizationError, match=r"batch 1 is empty \(float32 \[0, 3, 8, 8\]\)"):
        quantize(module, (IMAGES,), "static", [IMAGES, IMAGES[:0]])


def test_values_whose_squares_are_beyond_float32() -> None:
    torch.manual_seed(0)
    model, args = nn.Conv2d(3, 4, 3), (IMAGES * 1e30,)
    converted, _ = quantized(model, args, "static")
    expected = model(*args) / 1e30
    assert sqnr_db(expected, run(converted, *args) / 1e30) > 30


def test_more_batches_widen_the_range_and_progress_is_told() -> None:
    told: list[Any] = []

    class Progress:
        def stage(self, name: str, total: int | None = None) -> Any:
            told.append([name, total, 0])
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *unused: Any) -> None:
            pass

        def advance(self, steps: int = 1) -> None:
            told[-1][2] += steps

        def note(self, text: str) -> None:
            pass

    loader = DataLoader(TensorDataset(torch.cat([IMAGES, IMAGES * 100])), batch_size=2)
    timed = Timed(Progress())
    module, _ = quantize(captured(SmallNet(), (IMAGES,)), (IMAGES,), "static", loader, timed)
    assert ["calibrate", 2, 2] in told
    assert set(timed.timings) == {name for name, _, _ in told}
    scale = calls(module, aten.conv2d.default)[0].args[0].args[1]
    assert scale > float(IMAGES.abs().max()) / 2


def test_report() -> None:
    model = SmallNet().eval()
    module, report = quantized(model, (IMAGES,), "static", [IMAGES, IMAGES * 0.5])
    by_operator = {layer.operator: layer for layer in report.layers}
    linear = by_operator["linear"]
    assert linear.module == "head" and linear.quantized and linear.reason is None
    assert is_quantized(calls(module, aten.linear.default)[0])
    module.graph.erase_node(next(reversed(module.graph.nodes)))  # the report has its own graph
    measured = [layer.sqnr_db for layer in report.layers]
    assert all(value is not None and 20 < value < 70 for value in measured)
    text = report.table()
    assert "5 of 5 operators in int8 (static_per_channel)" in text and "dB" in text
    assert "head" in str(report) and "dB" not in str(report)


def test_report_agrees_with_the_outputs() -> None:
    model = SmallNet().eval()
    other = torch.randn(2, 3, 8, 8)
    module, report = quantized(model, (IMAGES,), "static", [other])
    expected = sqnr_db(model(other), run(module, other))
    assert report.layers[-1].sqnr_db == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("function", "is_int8"),
    [
        (lambda a, b: a + b, True),
        (lambda a, b: a + 1e-4 * b, False),
        (lambda a, b: a - 1e-4 * b, False),
        (lambda a, b: a * b, True),
        (lambda a, b: (a + 3.0 * b) - 3.0 * b, True),
    ],
)
def test_report_on_scales_that_are_far_apart(function: Any, is_int8: bool) -> None:
    """The report and the compiled graph agree on what is computed in int8."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(function(self.a(x), self.b(x)))

    lowered = penstock.lower(Joined().eval(), (IMAGES,), quantize="static")
    layer = [x for x in lowered.quantization.layers if x.operator in ("add", "sub", "mul")][-1]
    assert layer.quantized == is_int8
    assert is_int8 or "scales are too far apart" in str(layer.reason)
    program = read_program(lowered.to_bytes())
    ((delegate,),) = (method.delegates for method in program.methods)
    graph = read_payload(delegate.payload, program.named_data)
    results = [
        graph.values[node.outputs[0]].dtype for node in graph.nodes if node.kind in ARITHMETIC
    ]
    assert (results[-1] is DataType.QINT8) == is_int8


def test_report_on_data_that_can_be_read_once() -> None:
    _, report = quantized(SmallNet(), (IMAGES,), "static", iter([IMAGES]))
    assert report.layers[0].sqnr_db is not None
