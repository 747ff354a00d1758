"""Metrics with a number for each sample: how sure their mean is, and what other data says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.compiler.quantize import BudgetOutcome
from penstock.compiler.quantize.scores import Scores


class Classifier(nn.Module):
    """With one scale for all of a weight, the second layer loses much: its rows differ by a factor
    of 1000, for which the third makes up."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32, bias=False), nn.ReLU(),
            nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4),
        )  # fmt: skip
        factors = torch.logspace(-1.5, 1.5, 32)
        with torch.no_grad():
            self.layers[2].weight *= factors[:, None]
            self.layers[4].weight /= factors
            self.layers[6].weight *= 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


MODEL = Classifier().eval()
SEEN, SEARCHED, OTHERS = torch.randn(
    3, 1024, 16, generator=torch.Generator().manual_seed(8)
).unbind()


def agreement(rows: torch.Tensor) -> Callable[[Any], torch.Tensor]:
    """Of each row whether the first choice is the float model's: a metric."""
    with torch.no_grad():
        truth = MODEL(rows).argmax(-1)
    return lambda model: model(rows).argmax(-1) == truth


def outcome(**given: Any) -> BudgetOutcome:
    budget = penstock.AccuracyBudget(**given)
    lowered = penstock.lower(
        MODEL, (SEEN,), quantize="static_per_tensor", calibration=[(SEEN,)], accuracy=budget
    )
    assert lowered.quantization is not None
    found = lowered.quantization.budget
    assert isinstance(found, BudgetOutcome)
    return found


def test_the_mean_counts() -> None:
    """With the same choice as for a metric that gives the mean itself."""
    each = agreement(SEARCHED)
    one = outcome(metric=lambda model: float(each(model).float().mean()), allowed_drop=0.05)
    for kind in (torch.Tensor.float, torch.Tensor.numpy, torch.Tensor.tolist):
        many = outcome(metric=lambda model, kind=kind: kind(each(model)), allowed_drop=0.05)
        assert many.kept == one.kept and many.trials == one.trials
        assert many.reached == pytest.approx(one.reached, abs=1e-7)
        assert many.samples == len(SEARCHED) and many.uncertainty is not None
    assert one.samples is one.uncertainty is one.warning is None
    assert one.int8 < one.floating == 1.0 and one.chosen


def test_other_data_is_reported_and_decides_nothing() -> None:
    calls: list[float] = []
    each = agreement(OTHERS)

    def others(model: Any) -> torch.Tensor:
        found = each(model)
        calls.append(float(found.double().mean()))
        return found

    found = outcome(metric=agreement(SEARCHED), allowed_drop=0.05, held_out=others)
    without = outcome(metric=agreement(SEARCHED), allowed_drop=0.05)
    assert found.kept == without.kept and without.held_out is None
    held = found.held_out
    assert held is not None
    assert [held.floating, held.int8, held.reached] == pytest.approx(calls)
    assert held.int8 < held.floating == 1.0 and held.samples == len(OTHERS)
    assert found.reached >= 0.95 > found.int8
    assert f"held out: {held.reached:.5g} +- " in str(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["held_out"]["int8"] < 1


def test_a_metric_is_called_once_for_the_float_model_and_for_each_trial() -> None:
    calls = 0

    def counted(model: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return agreement(SEARCHED)(model)

    found = outcome(metric=counted, allowed_drop=0.05)
    assert found.uncertainty is not None and found.chosen
    assert calls == 1 + found.trials


def test_too_few_samples_to_show_the_drop() -> None:
    few = agreement(SEARCHED[:256])
    found = outcome(metric=few, allowed_drop=0.002, trials=64)
    assert found.warning == (
        "256 samples cannot show a drop of 0.002: one is 0.0039; give the metric at least 500"
    )
    assert f"warning: {found.warning}" in str(found)
    assert outcome(metric=few, allowed_drop=1 / 256).warning is None


def test_scores() -> None:
    right, wrong = Scores.of([1, 1, 1, 1]), Scores.of(np.array([True, False, True, True]))
    assert right.mean == 1.0 and wrong.mean == 0.75 and wrong.samples == 4
    # Differences 0, -1, 0, 0: a standard deviation of a half, but no less than 3 of 4.
    assert wrong.uncertainty(right) == pytest.approx(0.75)
    near = Scores.of(np.arange(100) * 0.01)
    other = Scores.of(np.arange(100) * 0.01 + np.tile([0.1, -0.1], 50))
    expected = 1.96 * np.std(np.tile([0.1, -0.1], 50), ddof=1) / 10
    assert near.uncertainty(other) == pytest.approx(expected)
    assert near.too_few_for(1e-4) is None  # steps of any size
    assert right.too_few_for(0.0) is None
    assert Scores.of(2).samples is None and Scores.of([2.5]) == Scores(2.5)
    assert right.uncertainty(Scores.of([1, 1])) is None
    assert math.isnan(Scores.of(math.nan).mean)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 400 draws of 200 paired answers, where 8 % turn wrong and 4 % right."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        kind = rng.random(200)
        before = np.where(kind < 0.04, 0.0, 1.0)
        after = np.where((kind >= 0.04) & (kind < 0.12), 0.0, 1.0)
        one, other = Scores.of(after), Scores.of(before)
        width = one.uncertainty(other)
        assert width is not None
        hits += abs(one.mean - other.mean + 0.04) <= width
    assert 0.92 <= hits / 400 <= 0.98
