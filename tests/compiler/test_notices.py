"""A compile that adds large constants says so, and which operators they are for; others do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import penstock


class Gap(nn.Module):
    """A mask of n * n that the model computes from nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        mask = torch.arange(self.size)[:, None] >= torch.arange(self.size)
        return (y @ y.mT).masked_fill(mask, -1.0) @ y


class Triangle(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tril()


class Looked(nn.Module):
    """A table outside of XNNPACK, made of a small parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.randn(1, 1024))

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(places, self.row.repeat(1000, 1) + 1)


class Tied(nn.Module):
    """One table for a kernel and for XNNPACK."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1000, 1000))

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.embedding(places, self.table), self.table)


ADDS: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], str, float]] = {
    "masked_fill": (Gap(1000), (torch.randn(1, 1000, 8),), "", 4.0),
    "triangle": (Triangle(), (torch.randn(1000, 1000),), "tril", 4.0),
    "kernel": (Looked(), (torch.tensor([3, 4]),), "add", 4.1),
}


@pytest.mark.parametrize("name", ADDS)
def test_large_constants_are_said(name: str) -> None:
    model, inputs, operator, megabytes = ADDS[name]
    lowered = penstock.lower(model, inputs)
    (notice,) = lowered.notices
    assert notice.kind == "constants"
    assert operator in notice.text
    said = float(str(notice).split("holds ")[1].split(" MB")[0])
    own = sum(weight.nbytes for weight in model.parameters()) / 1e6
    size = len(lowered.to_bytes()) / 1e6
    assert said >= megabytes * 0.95 and abs(said - size + own) < 0.1


MODELS: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "linear": (nn.Linear(1500, 1000), (torch.randn(1, 1500),)),
    "tied": (nn.Sequential(*[nn.Linear(600, 600)] * 4), (torch.randn(1, 600),)),
    "convolution": (
        nn.Sequential(nn.Conv2d(64, 512, 3), nn.BatchNorm2d(512), nn.ReLU(), nn.Flatten()),
        (torch.randn(1, 64, 9, 9),),
    ),
    "embedding": (nn.Embedding(1000, 600), (torch.tensor([1, 2]),)),
    "mask": (Gap(200), (torch.randn(1, 200, 8),)),
}


@pytest.mark.parametrize("scheme", [None, "dynamic", "static"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_no_notice(name: str, scheme: Any) -> None:
    model, inputs = MODELS[name]
    if scheme is not None and name == "embedding":
        pytest.skip("nothing to quantize")
    data = [inputs] if scheme == "static" else None
    lowered = penstock.lower(model.eval(), inputs, quantize=scheme, calibration=data)
    assert lowered.notices == ()


def test_a_tied_table_is_there_once() -> None:
    """Kernels and XNNPACK read the same bytes of the file."""
    model = Tied()
    lowered = penstock.lower(model, (torch.tensor([[3, 4]]),))
    assert lowered.notices == ()
    own = sum(weight.nbytes for weight in model.parameters())
    assert len(lowered.to_bytes()) < own + 100_000


def test_quantized_weights_hide_nothing() -> None:
    """Eight bits make the weights smaller by more than the mask is large."""
    model = nn.Sequential(nn.Linear(8, 2000), nn.Linear(2000, 1000), nn.Linear(1000, 8), Gap(1000))
    lowered = penstock.lower(model, (torch.randn(1, 1000, 8),), quantize="dynamic")
    (notice,) = lowered.notices
    assert "masked_fill" in notice.text or "where" in notice.text


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def test_names_that_fit_nothing() -> None:
    """A mistyped name would quantize what was to stay in float, and nobody would see it."""
    mistyped = penstock.Quantization(
        "static",
        skip=("haed", "body.*"),
        overrides={"body.7": "dynamic"},
        module_types={"Conv2d": None, "Sequential": "static"},
        operators={"conv9d": None, "linear": "static"},
    )
    x = torch.randn(3, 4)
    lowered = penstock.lower(Named(), (x,), quantize=mistyped, calibration=[(x,)])
    said = [str(n) for n in lowered.notices]
    names = ["skip names 'haed',", "overrides names 'body.7',", "'Conv2d',", "'conv9d',"]
    assert len(said) == len(names)
    assert all(name in text for name, text in zip(names, said, strict=True)), said
    right = penstock.Quantization("static", skip=("head",), overrides={"body.0": "dynamic"})
    assert penstock.lower(Named(), (x,), quantize=right, calibration=[(x,)]).notices == ()


def test_no_calibration_data() -> None:
    """Ranges of one batch, which is often torch.randn, are what most bad int8 models come from."""
    x = torch.randn(3, 4)
    (notice,) = penstock.lower(Named(), (x,), quantize="static").notices
    assert notice.kind == "calibration" and "give calibration data" in notice.text
    assert penstock.lower(Named(), (x,), quantize="dynamic").notices == ()


class Remembering(nn.Module):
    """Remembers its state in plain attributes; one table is made at the first call."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.cell, self.inner = nn.Linear(4, 4), inner
        self.h, self.calls, self.table = torch.zeros(1, 4), 0, None
        self.register_buffer("kept", torch.zeros(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(4.0)
        self.h = torch.tanh(self.cell(x) + self.h)
        self.calls += 1
        self.kept.add_(x)
        y = self.h + self.table + self.kept
        return y if self.inner is None else self.inner(y)


def test_state_that_no_program_keeps_is_said() -> None:
    model, x = Remembering(Remembering()).eval(), torch.randn(1, 4)
    h = model.h
    lowered = penstock.lower(model, (x,))
    (notice,) = [n for n in lowered.notices if n.kind == "state"]
    assert "stores values in h, calls, inner.h, inner.calls as" in str(notice)
    assert "register_buffer" in str(notice)
    assert model.h is h and model.calls == 0, "the model is as it was"
    assert torch.nn.Module.__setattr__.__module__ == "torch.nn.modules.module"
    assert "__getattribute__" not in vars(torch.nn.Module)


class Storing(nn.Module):
    """Stores what it computes in each call anew, for its hooks or for whoever looks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(4, 4))
        self.scores, self.rows = torch.zeros(1), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            self.rows = x.shape[0]
            x = self.layer(x) * self.rows
        self.scores = x.softmax(-1)
        return x + self.scores


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_each_call_writes_before_it_reads_it_is_no_state() -> None:
    assert penstock.lower(Storing().eval(), (torch.randn(3, 4),)).notices == ()


class Branching(Storing):
    """TorchDynamo traces its branches, between what it reads and what it stores."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.rows
        x = torch.cond(x.sum() > 0, torch.tanh, torch.relu, (self.layer(x),))
        self.rows = before + 1
        return x


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_state_around_branches_is_said() -> None:
    (notice,) = penstock.lower(Branching().eval(), (torch.randn(3, 4),)).notices
    assert "stores values in rows as" in str(notice)
    assert "__getattribute__" not in vars(torch.nn.Module)


def test_a_model_without_state_has_no_such_notice() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)).eval()
    assert not penstock.lower(model, (torch.randn(1, 3, 8, 8),)).notices
