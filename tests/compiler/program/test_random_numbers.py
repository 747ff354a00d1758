"""Random numbers of both runtimes: their range, mean and spread, and that every run draws anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from emit_cases import Call
from emit_harness import Case, compile_and_run, run_stock, stock_outputs

ROWS = torch.full((200, 100), 0.25)
WEIGHTS = torch.tensor([0.1, 0.0, 0.6, 0.3]).expand(5000, 4).contiguous()


@dataclass(frozen=True)
class Distribution:
    """What a function of a tensor draws: mean, deviation and range."""

    function: Callable[[torch.Tensor], torch.Tensor]
    mean: float
    deviation: float
    low: float = -np.inf
    high: float = np.inf
    example: torch.Tensor = ROWS


UNIFORM, DIE = 12**-0.5, 35**0.5 / 12**0.5

DISTRIBUTIONS = {
    "rand_like": Distribution(torch.rand_like, 0.5, UNIFORM, 0, 1),
    "rand": Distribution(lambda x: torch.rand(x.shape) + 0 * x, 0.5, UNIFORM, 0, 1),
    "rand_of_no_generator": Distribution(
        lambda x: torch.rand(x.shape, generator=None) + 0 * x, 0.5, UNIFORM, 0, 1
    ),
    "randn_of_no_generator": Distribution(
        lambda x: torch.randn(x.shape, generator=None) + 0 * x, 0, 1
    ),
    "rand_like_of_doubles": Distribution(
        lambda x: torch.rand_like(x, dtype=torch.float64), 0.5, UNIFORM, 0, 1
    ),
    "rand_like_of_halves": Distribution(torch.rand_like, 0.5, UNIFORM, 0, 1, ROWS.half()),
    "randn_like": Distribution(torch.randn_like, 0, 1),
    "reparametrized": Distribution(lambda x: 3 + torch.randn_like(x) * x, 3, 0.25),
    "randint": Distribution(lambda x: torch.randint(1, 7, x.shape), 3.5, DIE, 1, 6),
    "randint_far": Distribution(
        lambda x: torch.randint(-(2**40), 2**40, x.shape), 0, 2**41 * UNIFORM, -(2**40), 2**40 - 1
    ),
    "randint_like": Distribution(lambda x: torch.randint_like(x, 1, 7), 3.5, DIE, 1, 6),
    "randint_below": Distribution(lambda x: torch.randint_like(x, 6), 2.5, DIE, 0, 5),
    "bernoulli": Distribution(torch.bernoulli, 0.25, 0.1875**0.5, 0, 1),
    "bernoulli_p": Distribution(lambda x: torch.bernoulli(x, 0.25), 0.25, 0.1875**0.5, 0, 1),
    "normal": Distribution(lambda x: torch.normal(x, x), 0.25, 0.25),
    "normal_in_place": Distribution(lambda x: torch.empty_like(x).normal_(1, 2), 1, 2),
    "uniform_in_place": Distribution(
        lambda x: torch.empty_like(x).uniform_(1, 3), 2, 2 * UNIFORM, 1, 3
    ),
    "exponential": Distribution(lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.5, 0),
    "multinomial": Distribution(lambda x: torch.multinomial(x, 1), 2.1, 0.69**0.5, 0, 3, WEIGHTS),
    "multinomial_with_replacement": Distribution(
        lambda x: torch.multinomial(x, 3, replacement=True), 2.1, 0.69**0.5, 0, 3, WEIGHTS
    ),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[np.ndarray], ...]]:
    """Two calls of each on ours and on the stock runtime."""
    directory = tmp_path_factory.mktemp("random")
    cases = {
        name: Case(name, lambda one=one: (Call(one.function), [(one.example,)] * 2))
        for name, one in {**DISTRIBUTIONS, "permutation": PERMUTATION, "order": ORDER}.items()
    }
    ours = {}
    for name, case in cases.items():
        ours[name] = [call[0] for call in compile_and_run(case, directory).ours]
    run_stock(directory)
    return {
        name: (ours[name], [call[0] for call in stock_outputs(case, directory)])
        for name, case in cases.items()
    }


PERMUTATION = Distribution(lambda x: x[torch.randperm(100)], 0, 0, example=torch.arange(100.0))
ORDER = Distribution(lambda x: torch.multinomial(x, 3), 0, 0, example=WEIGHTS)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(drawn: dict[str, tuple[list[np.ndarray], ...]], name: str) -> None:
    one = DISTRIBUTIONS[name]
    eager = one.function(one.example)
    for first, second in drawn[name]:
        assert first.dtype == eager.numpy().dtype
        assert first.shape == eager.shape
        values = first.astype(np.float64)
        assert one.low <= values.min() <= values.max() <= one.high
        error = one.deviation / first.size**0.5
        assert abs(values.mean() - one.mean) < 6 * error
        assert abs(values.std() / one.deviation - 1) < 0.06
        assert (first != second).any()


def test_permutation(drawn: dict[str, tuple[list[np.ndarray], ...]]) -> None:
    for first, second in drawn["permutation"]:
        assert (np.sort(first) == np.arange(100)).all()
        assert (first != second).any()


def test_without_replacement(drawn: dict[str, tuple[list[np.ndarray], ...]]) -> None:
    """Each once, the one of weight 0 never; the first drawn by its weight."""
    for first, _ in drawn["order"]:
        assert (np.sort(first, -1) == [0, 2, 3]).all()
        assert abs((first[:, 0] == 2).mean() - 0.6) < 0.05


def test_cases_are_compiled(tmp_path: Path) -> None:
    """What is drawn is no constant of the file."""
    case = Case("one", lambda: (Call(lambda x: x + torch.rand(3)), [(torch.zeros(3),)]))
    lowered = compile_and_run(case, tmp_path).lowered
    assert "aten::rand" in {o.name for o in lowered.program.methods[0].operators}
