"""Calibration data that cannot be right is refused; masks, which may be infinite, are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from graphs import sqnr_db
from torch import Tensor, nn

import penstock
from penstock.errors import QuantizationError

INF, NAN = math.inf, math.nan
LOWEST = torch.finfo(torch.float32).min


def spoilt(value: float, *shape: int) -> Tensor:
    x = torch.randn(shape)
    x.view(-1)[3] = value
    return x


def answer(model: nn.Module, args: tuple[Tensor, ...], calibration: Any = None) -> Any:
    lowered = penstock.lower(model, args, quantize="static", calibration=calibration)
    return lowered, [torch.tensor(y) for y in penstock.load(lowered.to_bytes())(*args)]


def refused(model: nn.Module, args: tuple[Tensor, ...], calibration: Any) -> str:
    with pytest.raises(QuantizationError) as caught:
        penstock.lower(model, args, quantize="static", calibration=calibration)
    (line,) = str(caught.value).splitlines()
    return line


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_in_the_data(value: float) -> None:
    good = torch.randn(4, 8)
    line = refused(Net(), (good,), [(good,), (good,), (spoilt(value, 4, 8),)])
    assert "calibration batch 2: input x holds" in line and "linear (body.0," in line


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("first", [nn.MaxPool2d(2), nn.ReLU(), nn.ZeroPad2d(1), nn.LeakyReLU()])
def test_in_pictures_that_something_else_reads_first(first: nn.Module, value: float) -> None:
    model = nn.Sequential(first, nn.Conv2d(3, 4, 1))
    data = [(spoilt(value, 1, 3, 8, 8),)]
    if isinstance(first, (nn.ReLU, nn.MaxPool2d)) and value == -INF:
        answer(model, (torch.randn(1, 3, 8, 8),), data)  # zero, or what is beside it
        return
    assert "batch 0: input input_1 holds" in refused(model, (torch.randn(1, 3, 8, 8),), data)


class Log(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.log(self.first(x)) + 1)


def test_arising_inside() -> None:
    """The operator that makes it is named, not the one that meets it."""
    line = refused(Log(), (torch.randn(4, 8),), None)
    assert line.startswith("the example inputs: log (")
    assert "gives NaN" in line and __file__ in line


def test_in_a_weight() -> None:
    model = Net()
    model.body[2].weight.data[0, 0] = NAN  # type: ignore[union-attr,index]
    for scheme in ("static", "dynamic"):
        with pytest.raises(QuantizationError, match=r"constant body\.2\.weight holds NaN"):
            penstock.lower(model, (torch.randn(4, 8),), quantize=scheme)


def test_nan_that_the_model_handles_is_none_of_our_business() -> None:
    class Clean(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.nan_to_num(x, 0.0))

    x = torch.randn(4, 8)
    _, (found,) = answer(Clean(), (x,), [(x,), (spoilt(NAN, 4, 8),)])
    assert torch.isfinite(found).all()


class Attention(nn.Module):
    """Scores of two sums, so that the sum with the mask would be int8."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.r, self.k, self.v = (nn.Linear(8, 6) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.q(x) + self.r(x) + mask
        return torch.softmax(scores, -1) * self.v(x)


@pytest.mark.parametrize("value", [-INF, LOWEST, -1e9, -1e4])
def test_masks_as_inputs_stay_in_float(value: float) -> None:
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(5, 8)
    mask = torch.zeros(5, 6).masked_fill(torch.arange(6) > 3, value)
    lowered, (found,) = answer(model, (x, mask), [(x, mask), (torch.randn(5, 8), mask)])
    assert sqnr_db(model(x, mask), found) > 30
    reasons = [layer.reason for layer in lowered.quantization.layers if layer.operator == "add"]
    assert any("a mask" in str(reason) for reason in reasons), reasons
    assert {layer.operator for layer in lowered.quantization.quantized} >= {"linear"}


def test_without_a_mask_the_same_sum_is_int8() -> None:
    model, x = Attention().eval(), torch.randn(5, 8)
    lowered, _ = answer(model, (x, torch.randn(5, 6)))
    assert all(layer.quantized for layer in lowered.quantization.layers if layer.operator == "add")


def test_what_the_ranges_come_from_is_said() -> None:
    x = torch.randn(4, 8)
    lowered, _ = answer(Net(), (x,))
    assert "calibrated on the example inputs alone" in str(lowered.quantization).splitlines()[0]
    lowered, _ = answer(Net(), (x,), [(x,)] * 3)
    assert "calibrated on 3 batches" in str(lowered.quantization).splitlines()[0]
    lowered, _ = answer(Net(), (x,), iter([(x,)]))
    assert "calibrated on 1 batch" in str(lowered.quantization).splitlines()[0]
    report = penstock.lower(Net(), (x,), quantize="dynamic").quantization
    assert report is not None and report.calibration == ""


class Counting(nn.Module):
    """Each call adds one to a buffer, and its result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("state", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + self.state
        self.state.add_(1.0)
        return y


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_state_is_the_callers_and_the_files(batches: int) -> None:
    model, x = Counting().eval(), torch.randn(1, 4)
    lowered = penstock.lower(model, (x,), quantize="static", calibration=[(x,)] * batches)
    assert not model.state.any()  # type: ignore[operator,union-attr]
    str(lowered.quantization.table())  # type: ignore[union-attr]
    assert not model.state.any()  # type: ignore[operator,union-attr]
    program = penstock.load(lowered.to_bytes())
    for _ in range(batches):
        with torch.no_grad():
            (found,), expected = program(x), model(x).numpy()
        assert np.abs(found - expected).max() < 0.15


def test_batches_are_calls_one_after_the_other() -> None:
    """The ranges hold what the last batch leaves."""
    model, x = Counting().eval(), torch.zeros(1, 4)
    program = penstock.load(
        penstock.lower(model, (x,), quantize="static", calibration=[(x,)] * 20).to_bytes()
    )
    found = [program(x)[0].max() for _ in range(20)]
    assert found[-1] > 18


def test_a_batch_that_the_model_fails_on_is_named() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(4, 8), nn.Linear(8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.linear(self.table(ids))

    good, bad = torch.tensor([0, 3]), torch.tensor([0, 9])
    line = refused(Rows(), (good,), [(good,), (bad,)])
    assert line.startswith("calibration batch 1: the model fails on it")


@pytest.mark.parametrize("size", [1e6, 1e30])
def test_sums_far_beyond_their_clamp(size: float) -> None:
    """XNNPACK has no integers for a result of [0, 6] out of sums of millions: that layer stays in
    float, the others become int8."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )  # fmt: skip
    batches = [(torch.randn(1, 3, 8, 8) * size,) for _ in range(4)]
    lowered = penstock.lower(layers, batches[0], quantize="static", calibration=batches)
    report = lowered.quantization
    assert report is not None
    (kept,) = report.floating
    assert "too small beside its sums" in str(kept.reason) and len(report.quantized) == 2
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(*batches[0])
    with torch.no_grad():
        assert sqnr_db(layers(*batches[0]), torch.from_numpy(found)) > 30
