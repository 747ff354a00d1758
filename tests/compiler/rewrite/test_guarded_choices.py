"""Choices between results of which one would not be a number: inside a delegate, with eager's
answers, not-a-number where that is chosen included."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rewrites_harness import Model, rewritten

import penstock
from penstock.compiler.rewrite import guarded_choices

where = torch.where
X = torch.tensor([[0.0, -1.5, 2.5, 0.5], [1.0, -0.0, math.inf, -math.inf]])
Y = torch.tensor([[3.0, 0.0, -2.0, 0.0], [0.0, 1.0, 4.0, -1.0]])


GUARDED: dict[str, Callable[..., Any]] = {
    "logarithm": lambda x, y: where(x > 0, x.log(), x * 2),
    "chosen not-a-number": lambda x, y: where(x > -2, x.log(), x * 2),
    "power and products": lambda x, y: where(x > 0.04, ((x + 0.05) / 1.05) ** 2.4, x / 12.9),
    "quotient": lambda x, y: where(y == 0, 0.0, 3 * (x - 1) / y + 1),
    "both": lambda x, y: where(x > 0, x.sqrt(), (-x).log()),
    "one in the other": lambda x, y: where(x > 1, (x - 1).log().add(2).sqrt(), -x),
    "filled": lambda x, y: (x / y).masked_fill(y == 0, 7.0),
    "two conditions": lambda x, y: where((y > 0) & (x < 1), y.rsqrt(), x),
    "infinite numerator": lambda x, y: where(y > 2, x / y, x),
    "infinite where it is filled": lambda x, y: (x * 2 / y).masked_fill(y < 2, 7.0),
    "length": lambda x, y: where(
        x.norm(dim=1, keepdim=True) > 2, x / x.norm(dim=1, keepdim=True), x
    ),
    "mask of fewer rows": lambda x, y: where(y[:1] > 0, x.sqrt(), x),
}
OUTSIDE: dict[str, Callable[..., Any]] = {
    "read elsewhere": lambda x, y: (where(x > 0, (z := x.log()), x), z),
    "mask of more rows": lambda x, y: where(x > 0, y[:1].log(), x),
    "numerator that overflows": lambda x, y: where(y != 0, (x * 90).exp() / y, x),
    "mask from outside": lambda x, y: where((x * 3).nan_to_num().long() > 0, x.log(), x),
    "product with infinity": lambda x, y: where(x == 0, y, x * math.inf),
    "product with another tensor": lambda x, y: where(x > 0, x.log() * y.exp(), x),
}


@pytest.mark.parametrize("name", GUARDED)
def test_guarded(name: str) -> None:
    """One delegate; infinite inputs too."""
    model = Model(GUARDED[name])
    _, targets = rewritten(model, (X, Y), guarded_choices.apply)
    assert sum(count for target, count in targets.items() if "where" in target) >= 2 - (
        "filled" in name
    )
    lowered = penstock.lower(model, (X, Y))
    assert len(lowered.delegation.subgraphs) == 1
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes(), engine="xnnpack")(X, Y)
    torch.testing.assert_close(
        torch.from_numpy(found.copy()), model(X, Y), rtol=1e-5, atol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize("name", OUTSIDE)
def test_left_alone(name: str) -> None:
    model = Model(OUTSIDE[name])
    before, _ = rewritten(model, (X, Y))
    after, _ = rewritten(model, (X, Y), guarded_choices.apply)
    assert len(after.graph.nodes) == len(before.graph.nodes)
    found = penstock.load(penstock.lower(model, (X, Y)).to_bytes())(X, Y)
    expected = model(X, Y)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(one.copy()), other, rtol=1e-5, atol=1e-6, equal_nan=True
        )


def test_masks_of_masks() -> None:
    """Each is looked at once: all the ways through them would take for ever."""

    def chosen(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mask = x > 0
        for number in range(40):
            mask = (mask & (x < 10 + number)) | (mask & (y < number))
        return where(mask, x.log(), y)

    _, targets = rewritten(Model(chosen), (X, Y), guarded_choices.apply)
    assert sum(count for target, count in targets.items() if "where" in target) == 2
