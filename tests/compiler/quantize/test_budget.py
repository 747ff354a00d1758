"""Accuracy budgets: few operators in float, and what was promised is reached on both runtimes."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import sqnr_db
from torch import nn

import penstock
from penstock.compiler.quantize import AccuracyBudget, BudgetOutcome
from penstock.compiler.quantize.measure import decibels, difference, power
from penstock.compiler.quantize.search import Search
from penstock.errors import InputError, QuantizationError

STOCK = Path(__file__).parents[1] / "program" / "stock_process.py"


class OneBadLayer(nn.Module):
    """The rows of ``bad`` differ by a factor of 1000, and ``after`` makes up for it: with one scale
    for all of a weight, and with one for all of its result, these two lose nearly everything."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.before = nn.Linear(16, 32)
        self.bad, self.after = nn.Linear(32, 32, bias=False), nn.Linear(32, 32)
        self.last = nn.Linear(32, 8)
        factors = torch.logspace(-1.5, 1.5, 32)
        with torch.no_grad():
            self.bad.weight *= factors[:, None]
            self.after.weight /= factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.before(x))
        return self.last(torch.relu(self.after(self.bad(x))))


class Block(nn.Module):
    """A transformer's block, with several results in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.norm = nn.LayerNorm(32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(x)
        weights = (self.query(y) @ self.key(y).mT / 32**0.5).softmax(-1)
        x = x + weights @ self.value(y)
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return {"rows": x, "mean": x.mean(1)}


def rows(count: int, seed: int) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(64, 16, generator=generator),) for _ in range(count)]


SEEN, UNSEEN = rows(4, 1), rows(3, 2)


def lower(model: nn.Module, budget: AccuracyBudget, **given: Any) -> Any:
    options = {"quantize": "static", "calibration": SEEN, "held_out": UNSEEN, **given}
    return penstock.lower(model, options["calibration"][0], accuracy=budget, **options)


def outcome(lowered: Any) -> BudgetOutcome:
    found = lowered.quantization.budget
    assert isinstance(found, BudgetOutcome)
    return found


def measured(program: Any, model: nn.Module, batches: list[tuple[torch.Tensor]]) -> float:
    with torch.no_grad():
        expected = torch.cat([model(*batch) for batch in batches])
    found = [np.array(program(*(x.numpy() for x in batch))[0]) for batch in batches]
    return sqnr_db(expected, torch.from_numpy(np.concatenate(found)))


def on_stock(lowered: Any, batches: list[tuple[torch.Tensor]], folder: Path) -> list[Any]:
    lowered.save(folder / "m.pte")
    inputs = [[x.numpy() for x in batch] for batch in batches]
    (folder / "m.in.pkl").write_bytes(pickle.dumps(inputs))
    subprocess.run([sys.executable, str(STOCK), str(folder)], check=True, timeout=300)
    answers: list[Any] = pickle.loads((folder / "m.out.pkl").read_bytes())
    assert not isinstance(answers, str), answers
    return answers


def test_what_does_the_harm_stays_in_float(tmp_path: Path) -> None:
    model = OneBadLayer().eval()
    plain = penstock.lower(
        model, SEEN[0], quantize="static_per_tensor", calibration=SEEN, held_out=UNSEEN
    )
    assert plain.quantization is not None
    assert plain.quantization.cost().held_out_db < 18  # type: ignore[operator]
    lowered = lower(model, AccuracyBudget(sqnr=30), quantize="static_per_tensor")
    found = outcome(lowered)
    assert {layer.module for layer in found.chosen} == {"bad", "after"}
    assert found.reached >= 30 > found.int8
    assert found.extra_bytes == pytest.approx(3 * 2 * 32 * 32, rel=0.05)
    assert found.extra_seconds > 0
    reasons = {layer.module: layer.reason for layer in lowered.quantization.floating}
    assert "accuracy budget" in str(reasons["bad"])
    # One delegate, in which two operators are float between conversions.
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    assert measured(penstock.load(lowered.to_bytes()), model, UNSEEN) > 29.5
    stock = torch.from_numpy(
        np.concatenate([out for (out,) in on_stock(lowered, UNSEEN, tmp_path)])
    )
    with torch.no_grad():
        assert sqnr_db(torch.cat([model(*batch) for batch in UNSEEN]), stock) > 29.5
    json.dumps(found.as_dict(), allow_nan=False)
    assert "in float: " in str(found) and "bad" in str(found)


@pytest.mark.parametrize("asked", [34.0, 37.0, 40.0])
def test_as_few_as_there_can_be(asked: float) -> None:
    """Against all sets of operators."""
    model = OneBadLayer().eval()
    given = {"calibration": SEEN[:2], "held_out": UNSEEN[:1]}
    plain = penstock.lower(model, SEEN[0], quantize="static", **given)  # type: ignore[arg-type]
    assert plain.quantization is not None
    heads = [layer.head for layer in plain.quantization.quantized]
    assert len(heads) == 4
    sizes = []
    for count in range(len(heads)):
        for chosen in itertools.combinations(heads, count):
            options = penstock.Quantization("static_per_channel", float_nodes=chosen)
            report = penstock.lower(model, SEEN[0], quantize=options, **given).quantization  # type: ignore[arg-type]
            assert report is not None
            if report.cost().held_out_db >= asked:  # type: ignore[operator]
                sizes.append(count)
                break
        if sizes:
            break
    found = outcome(lower(model, AccuracyBudget(sqnr=asked), **given))
    assert len(found.chosen) <= sizes[0]
    assert found.reached >= asked


def test_what_was_chosen_can_be_said_by_hand() -> None:
    model = OneBadLayer().eval()
    lowered = lower(model, AccuracyBudget(sqnr=36))
    found = outcome(lowered)
    assert found.chosen
    options = penstock.Quantization(
        "static_per_channel",
        float_nodes=tuple(layer.node for layer in found.chosen),
        observers=found.observers,  # type: ignore[arg-type]
    )
    again = penstock.lower(model, SEEN[0], quantize=options, calibration=SEEN, held_out=UNSEEN)
    assert again.quantization is not None
    assert again.quantization.cost().held_out_db == pytest.approx(found.reached, abs=0.2)
    assert {layer.node for layer in again.quantization.quantized} == {
        layer.node for layer in lowered.quantization.quantized
    }


def test_a_budget_that_int8_meets_changes_nothing() -> None:
    model = OneBadLayer().eval()
    lowered = lower(model, AccuracyBudget(sqnr=8))
    assert not outcome(lowered).kept and outcome(lowered).trials == 1
    plain = penstock.lower(model, SEEN[0], quantize="static", calibration=SEEN)
    assert lowered.to_bytes() == plain.to_bytes()


@pytest.mark.parametrize("scheme", ["dynamic", "static", "4bit"])
def test_dynamic_shapes_and_schemes(scheme: str, tmp_path: Path) -> None:
    model = Block().eval()
    generator = torch.Generator().manual_seed(5)
    data = [(torch.randn(2, size, 32, generator=generator),) for size in (6, 9, 12, 5)]
    shapes = {"x": {1: torch.export.Dim("tokens", max=16)}}
    given = {
        "quantize": scheme, "calibration": data[:2], "held_out": data[2:], "dynamic_shapes": shapes,
    }  # fmt: skip
    plain = penstock.lower(model, data[0], **given)  # type: ignore[arg-type]
    assert plain.quantization is not None
    before = plain.quantization.cost().held_out_db
    assert before is not None
    lowered = lower(model, AccuracyBudget(sqnr=before + 4), **given)
    found = outcome(lowered)
    assert found.int8 == pytest.approx(before, abs=0.1) and found.reached >= before + 4
    assert 0 < len(found.chosen) < len(plain.quantization.quantized)
    assert len(lowered.delegation.subgraphs) == len(plain.delegation.subgraphs)
    program = penstock.load(lowered.to_bytes())
    answers = on_stock(lowered, data, tmp_path)
    for batch, stock in zip(data, answers, strict=True):
        with torch.no_grad():
            expected = model(*batch)
        ours = program(batch[0].numpy())
        assert ours["rows"].shape == expected["rows"].shape
        for one, name in zip(stock, ("rows", "mean"), strict=True):
            assert sqnr_db(expected[name], torch.from_numpy(one)) > before
            assert sqnr_db(expected[name], torch.from_numpy(np.array(ours[name]))) > before


def test_a_metric_calls_what_it_gets_as_the_model() -> None:
    model = Block().eval()
    generator = torch.Generator().manual_seed(6)
    data = [torch.randn(1, 8, 32, generator=generator) for _ in range(8)]
    with torch.no_grad():
        truth = [model(x)["mean"] for x in data]
    scores: list[float] = []

    def agreement(candidate: Any) -> float:
        found = [candidate(x.numpy() if i % 2 else x) for i, x in enumerate(data)]
        assert all(set(one) == {"rows", "mean"} for one in found)
        pairs = zip(found, truth, strict=True)
        scores.append(-float(sum((f["mean"] - t).abs().mean() for f, t in pairs)))
        return scores[-1]

    calibration = [(x,) for x in data]
    budget = AccuracyBudget(metric=agreement, allowed_drop=0.02)
    lowered = lower(model, budget, calibration=calibration, held_out=None)
    found = outcome(lowered)
    assert scores[0] == pytest.approx(0.0, abs=1e-5) and found.floating == scores[0]
    assert found.unit == "metric" and found.int8 == scores[1] < -0.02
    assert found.reached >= found.floating - 0.02 - 1e-6
    assert found.trials == len(scores) - 1
    assert 0 < len(found.chosen) < 6


def test_an_observer_is_chosen_where_it_matters() -> None:
    """A few large values decide the result: a range that cuts them off costs all."""

    class Peaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 2, bias=False)
            with torch.no_grad():
                self.last.weight.zero_()
                self.last.weight[:, 0] = 1.0
                self.first.weight[0] *= 0.01
                self.first.weight[0, 0] = 6.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(256, 64, generator=generator),) for _ in range(4)]
    model = Peaks().eval()
    given = {"calibration": data[:2], "held_out": data[2:]}
    plain = penstock.lower(model, data[0], quantize="static", **given)  # type: ignore[arg-type]
    assert plain.quantization is not None
    before = plain.quantization.cost().held_out_db
    assert before is not None
    found = outcome(lower(model, AccuracyBudget(sqnr=before + 1), **given))
    assert found.observers and set(found.observers.values()) == {"minmax"}
    assert found.reached >= before + 1 and not found.chosen


def raises(_model: Any) -> float:
    raise ZeroDivisionError("no data")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sqnr": 300.0}, r"budget of 300.0 dB cannot be met: the nearest of \d+ mixtures has \d+"),
        ({"metric": raises}, "metric failed for the float model: ZeroDivisionError: no data"),
        ({"metric": lambda _: float("nan")}, "metric gave nan for the float model"),
        ({"metric": lambda _: "good"}, "metric gave a str for the float model"),
        ({"metric": lambda m: m(1, 2)}, "calls the model in another way"),
        ({"metric": lambda _: []}, "metric gave a list for the float model"),
        ({"metric": lambda _: [1.0, math.nan]}, "metric gave nan for the float model"),
        ({"metric": lambda _: [[1.0], [2.0]]}, "a number, or one for each sample"),
        (
            {"metric": lambda _: 1.0, "held_out": raises},
            "held-out metric failed for the float model: ZeroDivisionError",
        ),
    ],
)
def test_budgets_that_fail(given: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantizationError, match=message) as error:
        lower(OneBadLayer(), AccuracyBudget(**given))
    assert "\n" not in str(error.value)


def test_bad_data_and_options() -> None:
    model, budget = OneBadLayer(), AccuracyBudget(sqnr=30)
    for given, message in (
        ({"calibration": []}, "calibration data holds no batch"),
        ({"held_out": []}, "held-out data holds no batch"),
        ({"held_out": [(torch.randn(64, 15),)]}, r"held-out batch 0, input x: expected float32"),
    ):
        options = {"quantize": "static", "calibration": SEEN, "held_out": UNSEEN, **given}
        with pytest.raises(QuantizationError, match=message):
            penstock.lower(model, SEEN[0], accuracy=budget, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="quantize"):
        penstock.lower(model, SEEN[0], accuracy=budget)
    for wrong, message in (
        ({}, "either sqnr"),
        ({"sqnr": 30.0, "metric": raises}, "either sqnr"),
        ({"sqnr": float("nan")}, "nan"),
        ({"metric": raises, "allowed_drop": -1.0}, "allowed_drop"),
        ({"metric": 3}, "a function"),
        ({"sqnr": 30.0, "trials": 0}, "trials"),
        ({"sqnr": 30.0, "held_out": raises}, "held_out goes with a metric"),
        ({"metric": raises, "held_out": 3}, "held_out is 3; give a function"),
    ):
        with pytest.raises(QuantizationError, match=message):
            AccuracyBudget(**wrong)  # type: ignore[arg-type]


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).argmax(-1)


def test_results_without_floats_need_a_metric() -> None:
    with pytest.raises(QuantizationError, match="give the accuracy budget a metric"):
        lower(Integers(), AccuracyBudget(sqnr=30))
    truth = [Integers().eval()(x) for (x,) in UNSEEN]

    def agreement(candidate: Any) -> float:
        pairs = zip(UNSEEN, truth, strict=True)
        return float(np.mean([(candidate(x) == t).float().mean() for (x,), t in pairs]))

    found = outcome(lower(Integers(), AccuracyBudget(metric=agreement, allowed_drop=1.0)))
    assert not found.kept


def test_the_search_finds_the_least_and_never_asks_twice() -> None:
    worth = {"a": 5.0, "b": 4.0, "c": 2.0, "d": 1.0, "e": 0.5}
    asked: list[frozenset[str]] = []

    def score(floats: frozenset[str]) -> float:
        asked.append(floats)
        return sum(worth[name] for name in floats)

    steps = [frozenset({name}) for name in "aebcd"]
    search = Search(score, target=9.0, trials=40, harm=lambda f: -sum(worth[n] for n in f))
    assert search.fewest(steps, 2) == {"a", "b"}
    assert len(asked) == len(set(asked)) == search.tried <= 8
    few = Search(score, target=9.0, trials=2)
    assert few.fewest(steps, 5) == frozenset("abcde")
    never = Search(score, target=20.0, trials=40)
    assert never.fewest(steps, 1, set("ab")) is None
    assert never.nearest == 12.5


def test_numbers_of_numpy_are_numbers() -> None:
    """And a drop is of a metric: beside decibels it would say nothing."""
    assert AccuracyBudget(sqnr=np.float32(20.0)).sqnr == 20.0
    drop = np.float64(0.5)
    assert AccuracyBudget(metric=lambda model: 1.0, allowed_drop=drop).allowed_drop == 0.5
    with pytest.raises(QuantizationError, match=r"allowed_drop is 1 and goes with a metric"):
        AccuracyBudget(sqnr=20, allowed_drop=1)
    with pytest.raises(QuantizationError, match="trials is True"):
        AccuracyBudget(sqnr=20, trials=True)


def test_results_that_are_no_numbers_reach_nothing() -> None:
    """Where the float model gives none there is nothing to compare with; where only the quantized
    one does, its error is endless."""
    model, bad = OneBadLayer(), (torch.full((64, 16), math.nan),)
    with pytest.raises(QuantizationError, match="no finite number for batch 1 of"):
        lower(model, AccuracyBudget(sqnr=10), held_out=[(torch.randn(64, 16),), bad])
    one, no_number = torch.ones(2), torch.tensor([1.0, math.nan])
    assert decibels(power(one), difference(one, no_number)) == -math.inf
    assert decibels(power(one), difference(one, torch.tensor([1.0, -math.inf]))) == -math.inf
    assert decibels(power(no_number), difference(no_number, one)) == math.inf
