"""Accuracy budgets keep as few operators in float as there can be: against all smaller sets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import penstock
from penstock.compiler.quantize import AccuracyBudget, BudgetOutcome, budget
from penstock.compiler.quantize.interpreter import Snapshot


def uneven(model: nn.Module) -> nn.Module:
    """Rows of different sizes, so that operators differ in what rounding them costs."""
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.mul_(torch.randn(value.shape[0], *[1] * (value.dim() - 1)).mul(0.8).exp())
    return model.eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for i in (0, 2):
            x = torch.relu(x + self.blocks[i + 1](torch.relu(self.blocks[i](x))))
        return torch.as_tensor(self.head(x.mean((2, 3))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(24), nn.LayerNorm(24)
        self.query, self.key, self.value = (nn.Linear(24, 24) for _ in range(3))
        self.out, self.head = nn.Linear(24, 24), nn.Linear(24, 5)
        self.up, self.down = nn.Linear(24, 48), nn.Linear(48, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        weights = (self.query(y) @ self.key(y).mT / 5).softmax(-1)
        x = x + self.out(weights @ self.value(y))
        x = x + self.down(nn.functional.gelu(self.up(self.second(x))))
        return torch.as_tensor(self.head(x.mean(1)))


SHAPES = {Residual: (4, 3, 8, 8), Transformer: (4, 7, 24)}


def chosen_and_least(
    kind: type[Residual] | type[Transformer], scheme: str, seed: int, gains: Sequence[float]
) -> list[tuple[int, int]]:
    """How many operators a budget of so many dB more than int8 has keeps in float, and how many
    the smallest set has that meets it, of all sets that are smaller."""
    torch.manual_seed(seed)
    model = uneven(kind())
    generator = torch.Generator().manual_seed(seed)
    data = [(torch.randn(SHAPES[kind], generator=generator),) for _ in range(6)]
    given = {"quantize": scheme, "calibration": data[:3], "held_out": data[3:]}
    runs: list[budget._Run] = []
    outcome = budget._Run.outcome

    def noted(run: budget._Run) -> BudgetOutcome:
        runs.append(run)
        return outcome(run)

    def within(sqnr: float) -> BudgetOutcome:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budget._Run, "outcome", noted)
            lowered = penstock.lower(
                model,
                data[0],
                accuracy=AccuracyBudget(sqnr=sqnr),
                **given,  # type: ignore[arg-type]
            )
        assert lowered.quantization is not None and lowered.quantization.budget is not None
        return lowered.quantization.budget

    int8 = within(-50.0).int8
    found = []
    for gain in gains:
        result = within(int8 + gain)
        assert result.reached >= int8 + gain
        found.append((len(result.chosen), least(runs[-1], len(result.chosen))))
    return found


def least(run: budget._Run, most: int) -> int:
    """The size of the smallest set of operators in float that meets the target; ``most`` at the
    most. Mixtures have the observers that the search chose."""
    names = [decision.node.name for decision in run.base.plan.quantized]
    for count in range(most):
        for names_in_float in itertools.combinations(names, count):
            mixture = run.mixtures.make(frozenset(names_in_float), run.observers)
            if mixture is None:
                continue
            if run.judge.scores(Snapshot.of(mixture.converted)).mean >= run.judge.target:
                return count
    return most


@pytest.mark.parametrize(
    ("kind", "scheme", "gain"),
    [(Residual, "static", 6.0), (Transformer, "static", 6.0), (Transformer, "dynamic", 6.0)],
)
def test_of_another_architecture(
    kind: type[Residual] | type[Transformer], scheme: str, gain: float
) -> None:
    ((count, best),) = chosen_and_least(kind, scheme, 0, [gain])
    assert 0 < count == best


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [(Residual, "static"), (Transformer, "static"), (Transformer, "dynamic")],
)
def test_of_more_networks(kind: type[Residual] | type[Transformer], scheme: str, seed: int) -> None:
    for count, best in chosen_and_least(kind, scheme, seed, [3.0, 6.0]):
        assert best <= count <= best + 1, (count, best)
