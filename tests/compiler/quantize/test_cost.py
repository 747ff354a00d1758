"""What the report says of each layer, against the same computed by hand in eager PyTorch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graphs import SmallNet, sqnr_db
from torch import nn

import penstock
from penstock.compiler.quantize.cost import LayerCost, QuantizationCost
from penstock.compiler.quantize.measure import Spread, histogram_of
from penstock.errors import QuantizationError


class TwoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def data(count: int, scale: float = 1.0) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(count)
    return [(scale * torch.randn(32, 8, generator=generator),) for _ in range(count)]


def cost(model: nn.Module, quantize: Any, **given: Any) -> QuantizationCost:
    calibration = data(4)
    lowered = penstock.lower(
        model, calibration[0], quantize=quantize, calibration=calibration, **given
    )
    assert lowered.quantization is not None
    return lowered.quantization.cost()


def by_module(found: QuantizationCost) -> dict[str, LayerCost]:
    return {layer.module: layer for layer in found.layers}


def test_a_layers_own_error_is_of_that_layer_on_float_values() -> None:
    torch.manual_seed(0)
    model = TwoLinear()
    layers = by_module(cost(model, "dynamic"))
    batches = torch.cat([x for (x,) in data(4)])

    def rounded_rows(x: torch.Tensor) -> torch.Tensor:
        low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
        scale = ((high - low) / 255).clamp(min=2.0**-12)
        zero = (-128 - low / scale).round().int()
        return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, -128, 127)

    def rounded_weight(weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().amax(1) / 127
        zero = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)

    with torch.no_grad():
        inner = torch.relu(model.first(batches))
        second = model.second
        expected = second(inner)
        alone = nn.functional.linear(
            rounded_rows(inner), rounded_weight(second.weight), second.bias
        )
    own = layers["second"].calibration.own_db
    assert own is not None
    assert own == pytest.approx(sqnr_db(expected, alone), abs=0.1)
    assert layers["second"].calibration.accumulated_db < own  # type: ignore[operator]


def test_a_layer_in_float_has_no_error_of_its_own_but_what_came_before() -> None:
    torch.manual_seed(0)
    layers = by_module(cost(TwoLinear(), penstock.Quantization("dynamic", skip=("second",))))
    second = layers["second"]
    assert not second.quantized and second.calibration.own_db is None
    assert 20 < second.calibration.accumulated_db < 70  # type: ignore[operator]
    assert second.bytes == second.float_bytes == 4 * (16 * 4 + 4)
    assert second.seconds == second.float_seconds


def test_saturation_is_counted_on_held_out_data() -> None:
    torch.manual_seed(0)
    wide = cost(TwoLinear(), "static", held_out=data(3, scale=4.0))
    first = by_module(wide)["first"]
    assert first.calibration.saturated is not None and first.held_out is not None
    assert first.calibration.saturated < 0.01
    assert first.range is not None
    with torch.no_grad():
        torch.manual_seed(0)
        values = torch.relu(TwoLinear().first(torch.cat([x for (x,) in data(3, scale=4.0)])))
    beyond = float((values > first.range[1]).float().mean())
    assert beyond > 0.05
    assert first.held_out.saturated == pytest.approx(beyond, abs=0.01)
    assert wide.held_out_db < wide.calibration_db  # type: ignore[operator]
    histogram = first.held_out.activations
    assert histogram is not None and sum(histogram.counts) == values.numel()
    assert histogram.high >= float(values.max()) > first.range[1]


def test_worst_first_and_all_of_it_is_json() -> None:
    torch.manual_seed(0)
    images = [(torch.randn(2, 3, 8, 8),) for _ in range(3)]
    lowered = penstock.lower(
        SmallNet(), images[0], quantize="static", calibration=images, held_out=iter(images)
    )
    report = lowered.quantization
    assert report is not None
    found = report.cost()
    own = [layer.held_out.own_db for layer in found.quantized if layer.held_out]
    errors = [db for db in own if db is not None]
    assert len(own) == 5 and own == [*sorted(errors), *[None] * (5 - len(errors))]
    assert found.batches == found.held_out_batches == 3
    assert found.float_bytes > 2.5 * found.bytes
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["totals"]["bytes"] == found.bytes
    lines = str(found).splitlines()
    assert "5 of 5 operators" in lines[0]
    assert lines[5].split()[0] == found.layers[0].node


def test_what_only_moves_values_has_no_error_of_its_own() -> None:
    """It would have its producer's; where it reads floating point it is the one that rounds."""

    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x.view(8, 4, 8)).transpose(1, 2).reshape(8, 32)
            return self.second(y)

    torch.manual_seed(0)
    found = {layer.node: layer for layer in cost(Moves(), "static").layers}
    assert all(layer.quantized for layer in found.values())
    for name, layer in found.items():
        alone = name.startswith(("transpose", "reshape", "permute"))
        assert (layer.calibration.own_db is None) == alone, name
        assert (layer.calibration.saturated is None) == alone, name
        assert layer.calibration.accumulated_db is not None, name


class Unlike(nn.Module):
    """Joins large values with small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small, self.last = (
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(8, 4, 1),
        )
        with torch.no_grad():
            self.small.weight.mul_(0.005)
            self.small.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.cat([self.large(x), self.small(x)], 1))
        return result


def test_a_coarse_concatenation_is_named() -> None:
    torch.manual_seed(0)
    model, inputs = Unlike().eval(), (torch.randn(1, 3, 8, 8),)
    report = penstock.lower(model, inputs, quantize="static").quantization
    assert report is not None
    (note,) = report.cost().notes
    assert "conv2d_1 takes" in note and "leave cat in float" in note and note in str(report.cost())
    apart = penstock.Quantization("static", float_nodes=("cat",))
    report = penstock.lower(model, inputs, quantize=apart).quantization
    assert report is not None and report.cost().notes == ()


def test_one_reason_is_said_once_with_a_count() -> None:
    model = nn.Sequential(nn.Linear(8, 8), *[nn.Softmax(-1) for _ in range(5)])
    lowered = penstock.lower(model, data(1)[0], quantize="dynamic")
    report = lowered.quantization
    assert report is not None
    for text in (
        str(report),
        str(report.cost()),
        report._repr_html_(),
        report.cost()._repr_html_(),
    ):
        assert text.count("XNNPACK has it in float only") == 1, text
    assert "5 (softmax): XNNPACK has it in float only" in str(report.cost())


def test_progress_is_told_of_the_measurement() -> None:
    told: list[tuple[str, int | None, int]] = []

    class Told:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Any]:
            stage = SimpleNamespace(steps=0)
            stage.advance = lambda steps=1: setattr(stage, "steps", stage.steps + steps)
            yield stage
            told.append((name, total, stage.steps))

    lowered = penstock.lower(
        TwoLinear(), data(1)[0], quantize="static", calibration=data(4), held_out=data(3)
    )
    assert lowered.quantization is not None
    lowered.quantization.cost(progress=Told())
    lowered.quantization.cost(iter(data(2)), progress=Told())
    assert told == [("measure", 7, 7), ("measure", None, 2)]


def test_four_bits_take_an_eighth() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    rows = torch.randn(8, 64)
    lowered = penstock.lower(model, (rows,), quantize="4bit", calibration=[(rows,)])
    assert lowered.quantization is not None
    layers = by_module(lowered.quantization.cost())
    first = layers["0"]
    assert first.bytes == 64 * 128 // 2 + 2 * 64 * 128 // 32 + 4 * 128
    assert first.calibration.own_db < layers["2"].calibration.own_db  # type: ignore[operator]


def test_what_is_given_must_fit() -> None:
    model = TwoLinear()
    for held_out, message in (
        ([], "held-out data holds no batch"),
        ([(torch.randn(3, 9),)], r"held-out batch 0, input x: expected float32 \[32, 8\]"),
        (torch.randn(32, 8), "held-out must be an iterable"),
        ([*data(1), (torch.full((32, 8), math.nan),)], "held-out batch 1: .* no finite number"),
    ):
        with pytest.raises(QuantizationError, match=message):
            cost(model, "static", held_out=held_out)


def test_histograms() -> None:
    spread = Spread()
    spread.add(torch.tensor([0.5, -0.25, 0.125]))
    spread.add(torch.tensor([7.0, float("inf"), -3.0]))
    found = spread.histogram()
    assert found is not None
    assert sum(found.counts) == 5
    assert found.low <= -3.0 and found.high >= 7.0
    constant = histogram_of(torch.zeros(4))
    assert constant is not None and sum(constant.counts) == 4
    assert histogram_of(torch.zeros(0)) is None
    assert math.isfinite(constant.low) and math.isfinite(constant.high)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.lstm(x)[0])
        return result


def test_what_stays_in_float_counts_in_the_totals() -> None:
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(1, 5, 8)
    kept = penstock.Quantization("dynamic_per_channel", operators={"lstm": None})
    lowered = penstock.lower(model, (x,), quantize=kept, calibration=[(x,)])
    assert lowered.quantization is not None
    found = lowered.quantization.cost()
    states = 2 * 16 * 4  # what the LSTM starts from is a constant too
    assert found.float_bytes == sum(p.nbytes for p in model.parameters()) + states
    lstm = next(layer for layer in found.layers if layer.operator == "lstm")
    assert lstm.bytes == lstm.float_bytes == sum(p.nbytes for p in model.lstm.parameters()) + states
    assert lstm.macs == 5 * 4 * 16 * (8 + 16)
    picked = next(layer for layer in found.layers if layer.operator == "getitem")
    assert picked.reason == "it picks a result, which is in float"
