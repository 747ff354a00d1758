"""Einstein sums whose result has two dynamic sizes: one piece, eager's answers at all sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock

BATCH, LENGTH = Dim("batch", max=8), Dim("length", max=64)
SIZES = {"b": BATCH, "s": LENGTH, "t": LENGTH}
FIXED = {"d": 6, "h": 2, "k": 3, "m": 5}


class Sum(nn.Module):
    """The sum of inputs, the last operand being a weight if ``weight`` says so."""

    def __init__(self, equation: str, weight: bool) -> None:
        super().__init__()
        self.equation = equation
        last = equation.partition("->")[0].split(",")[-1]
        self.weight = nn.Parameter(_filled(last, 0, 0)) if weight else None

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        weights = () if self.weight is None else (self.weight,)
        return torch.einsum(self.equation, *inputs, *weights) + 0.5


def _filled(term: str, batch: int, length: int) -> torch.Tensor:
    sizes = {**FIXED, "b": batch, "s": length, "t": length}
    shape = [sizes[label] for label in term]
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(term) + length))


@pytest.mark.parametrize(
    ("equation", "weight"),
    [
        ("bsd,md->bsm", True),
        ("bsd,md->bms", True),
        ("bsd,d->bs", True),
        ("bsd,dhk->bhsk", True),
        ("bshd,hdk->bsk", True),
        ("bshd,mhd->bhsm", True),
        ("bhsd,bhtd->bhst", False),
        ("bhst,bthd->bshd", False),
        ("bsd,btd->bts", False),
    ],
)
def test_one_piece_for_all_sizes(equation: str, weight: bool) -> None:
    terms = equation.partition("->")[0].split(",")
    terms = terms[:-1] if weight else terms
    shapes = tuple(
        {place: SIZES[label] for place, label in enumerate(term) if label in SIZES}
        for term in terms
    )
    model = Sum(equation, weight)
    example = tuple(_filled(term, 2, 5) for term in terms)
    lowered = penstock.lower(model, example, dynamic_shapes=(shapes,))
    assert not lowered.delegation.undelegated
    program = penstock.load(lowered.to_bytes(), threads=1)
    for batch, length in ((2, 5), (1, 9), (3, 1)):
        given = tuple(_filled(term, batch, length) for term in terms)
        (actual,) = program(*(tensor.numpy() for tensor in given))
        with torch.no_grad():
            expected = model(*given).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
