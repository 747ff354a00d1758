"""int8 ranges: operators whose values lie far inside and far outside of their inputs' range.

Every operator case stands between two linear layers, or right behind the model's inputs, and its
inputs are scaled and shifted so that numbers of its own (padding, bounds, what it is joined with)
are inside the inputs' range or far beyond. The answer of the int8 program, as the runtime gives it,
is compared with a model in which every value between two layers has the eight bits of its own
extremes, and with the stock flow's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from operator_cases import Case
from operator_harness import as_module
from sweep_cases import first_cases, named_cases
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

import penstock
from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Shared
from penstock.compiler.quantize.annotation import ACTIVATION_EPSILON

STOCK = Path(__file__).parent.parent / "compiler" / "quantize" / "stock_flow.py"

#: Permutations of a case's inputs: enough values for a signal-to-noise ratio that means something.
BATCHES = 8
#: How many decibels may be lost to a model of ideal ranges: one more rounding costs 3.
MOST_LOST = 3.5
#: At so many decibels nothing is wrong with a range.
GOOD = 38.0
#: With fewer an operator cannot be computed from eight bits (1 / x around zero), and says nothing.
LEAST = 10.0
#: Where few numbers are judged, how they happen to be rounded counts: ideal ranges are also tried
#: as much wider.
WIDER = (1.0, 1.003, 1.01, 1.02, 1.04)
#: A value that these join with a larger one has the range of both, for other readers too.
JOIN = ("cat", "stack")

SPREADS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "far beyond": lambda x: x * 60,
    "far inside": lambda x: x * 0.015,
    "above zero": lambda x: x.abs() * 0.5 + 8,
    "mostly negative": lambda x: torch.where(x > 0, x, x * 100),
}


class Between(nn.Module):
    """A function between linear layers that change nothing; ``ideal`` gives every value between
    layers eight bits of its own."""

    def __init__(self, function: nn.Module, inputs: list[Tensor], *, layers: bool) -> None:
        super().__init__()
        self.function = function
        self.before = nn.ModuleList(_same(x) if layers else nn.Identity() for x in inputs)
        with torch.no_grad():
            results = _flat(function(*inputs))
        self.after = nn.ModuleList(map(_same, results))

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        middle = [layer(x) for layer, x in zip(self.before, inputs, strict=True)]
        results = _flat(self.function(*middle))
        return [layer(y) for layer, y in zip(self.after, results, strict=True)]

    def ideal(
        self,
        batches: list[tuple[Tensor, ...]],
        *,
        shared: bool,
        joined: bool = False,
        wider: float = 1.0,
    ) -> list[list[Tensor]]:
        """The results of each batch. ``shared``: a result of the function has eight bits of the
        extremes of the function's inputs and its own together; ``joined``: and of those of the
        other results. Ranges are ``wider`` than the extremes."""

        def rounded(rows: list[list[Tensor]]) -> list[list[Tensor]]:
            columns = (_round(column, (), wider) for column in zip(*rows, strict=True))
            return [list(row) for row in zip(*columns, strict=True)]

        rows = rounded([list(batch) for batch in batches])
        if any(not isinstance(layer, nn.Identity) for layer in self.before):
            rows = rounded([[m(x) for m, x in zip(self.before, r, strict=True)] for r in rows])
        known = [x for row in rows for x in row if x.dtype == torch.float32] if shared else []
        with _LayersInside():
            results = [_flat(self.function(*row)) for row in rows]
        if joined:
            known += [y for row in results for y in row]
        columns = zip(*results, strict=True)
        rows = [list(row) for row in zip(*(_round(c, known, wider) for c in columns), strict=True)]
        return rounded([[m(y) for m, y in zip(self.after, r, strict=True)] for r in rows])


class _LayersInside(TorchFunctionMode):
    """Layers of the function itself have eight bits too: for what they read, for each channel of
    their weights, for what they give."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in LAYERS:
            return func(*args, **(kwargs or {}))
        x, weight, *rest = args
        axis = LAYERS[func]
        channels = [_round((w,), (-w,))[0] for w in weight.unbind(axis)]
        (x,) = _round((x,))
        (y,) = _round((func(x, torch.stack(channels, axis), *rest, **(kwargs or {})),))
        return y


#: Layers with weights, and the dimension of their output channels.
LAYERS: dict[Any, int] = {
    F.linear: 0, F.conv1d: 0, F.conv2d: 0, F.conv3d: 0,
    F.conv_transpose1d: 1, F.conv_transpose2d: 1, F.conv_transpose3d: 1,
}  # fmt: skip


#: A linear layer has the square of so many weights at most.
WIDEST = 512


class Pointwise(nn.Module):
    """A convolution by one weight of 1, for rows that are long."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.conv(x.reshape(-1, 1, x.shape[-1]))
        return rows.reshape(x.shape)


def _same(x: Tensor) -> nn.Module:
    """A layer over the last dimension that gives what it is given."""
    if x.dtype != torch.float32 or x.dim() == 0:
        return nn.Identity()
    size = x.shape[-1]
    if size > WIDEST:
        return Pointwise()
    layer = nn.Linear(size, size, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def _flat(results: Any) -> list[Tensor]:
    return list(pytree.tree_leaves(results))


def _round(
    column: tuple[Tensor, ...], others: Sequence[Tensor] = (), wider: float = 1.0
) -> list[Tensor]:
    """``column`` with eight bits for ``wider`` times its extremes and those of ``others``."""
    if column[0].dtype != torch.float32:
        return list(column)
    low = min(0.0, *(float(x.min()) for x in (*column, *others)))
    high = max(0.0, *(float(x.max()) for x in (*column, *others)))
    scale = max(wider * (high - low) / 255, ACTIVATION_EPSILON)
    zero = round(-128 - wider * low / scale)
    return [torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127) for x in column]


def _sqnr(references: list[Tensor], found: list[Tensor]) -> float:
    reference = torch.cat([x.flatten() for x in references]).double()
    noise = reference - torch.cat([x.flatten() for x in found]).double()
    power, lost = float(reference.square().mean()), float(noise.square().mean())
    return 10 * np.log10(power / lost) if lost else np.inf


def _finite(x: Tensor) -> Tensor:
    """``x`` with its largest finite number for infinities, and 0 for NaN: calibration refuses
    those, and no range holds them."""
    known = x[x.isfinite()].abs()
    most = float(known.max()) if known.numel() else 1.0
    return x.nan_to_num(0.0, most, -most)


def _batches(case: Case, spread: str) -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)

    def drawn(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        order = torch.randperm(x.numel(), generator=generator)
        return SPREADS[spread](_finite(x).contiguous().flatten()[order].reshape(x.shape))

    return [tuple(map(drawn, case.inputs)) for _ in range(BATCHES)]


class Sample:
    """One case with one spread, and what eager gives."""

    def __init__(self, case: Case, spread: str, *, layers: bool) -> None:
        self.batches = _batches(case, spread)
        self.model = Between(as_module(case.function), list(self.batches[0]), layers=layers).eval()
        with torch.no_grad():
            self.expected = [self.model(*batch) for batch in self.batches]

    @property
    def has_answers(self) -> bool:
        return all(
            y.dtype == torch.float32 and y.numel() and y.isfinite().all() and y.abs().max() < 1e8
            for row in self.expected
            for y in row
        )

    def ratios(self, rows: list[list[Tensor]]) -> list[float]:
        """The signal-to-noise ratio of each result, in decibels."""
        columns = zip(zip(*self.expected, strict=True), zip(*rows, strict=True), strict=True)
        return [_sqnr(list(reference), list(found)) for reference, found in columns]

    def ours(self, quantize: Literal["static"] | None = "static") -> list[float]:
        lowered = penstock.lower(
            self.model,
            self.batches[0],
            quantize=quantize,
            calibration=self.batches if quantize else None,
        )
        program = penstock.load(lowered.to_bytes())
        arrays = [[x.numpy() for x in batch] for batch in self.batches]
        return self.ratios([[torch.tensor(y) for y in program(*batch)] for batch in arrays])

    def ideal(self, entry: str) -> list[float]:
        """The ratios with ideal ranges: of each result the lowest, among those of WIDER."""
        shared, joined = entry in _shared(), entry in JOIN
        with torch.no_grad():
            rows = [
                self.model.ideal(self.batches, shared=shared, joined=joined, wider=wider)
                for wider in WIDER
            ]
        tries = [self.ratios(row) for row in rows]
        return list(map(min, zip(*tries, strict=True)))


def _quantizable() -> set[str]:
    return {entry.name for entry in registry.entries() if entry.quantization is not None}


def _shared() -> set[str]:
    """What averages or interpolates keeps its inputs' parameters."""
    return {entry.name for entry in registry.entries() if isinstance(entry.quantization, Shared)}


def _check(case: Case, spread: str, *, layers: bool) -> None:
    sample = Sample(case, spread, layers=layers)
    if not sample.has_answers:
        pytest.skip("eager gives no finite answers")
    found, ideal = sample.ours(), sample.ideal(case.entry)
    worse = {
        i: f"result {i}: {ours:.1f} dB, {best:.1f} dB with ideal ranges"
        for i, (ours, best) in enumerate(zip(found, ideal, strict=True))
        if best >= LEAST and ours < min(best - MOST_LOST, GOOD)
    }
    if worse:  # No int8 program is better than its operators are in float.
        floats = sample.ours(None)
        worse = {i: line for i, line in worse.items() if found[i] < floats[i] - MOST_LOST}
    assert not worse, "; ".join(worse.values())


def _fast() -> Iterator[Any]:
    """Each quantizable entry once, the spreads and places by turns."""
    cases = [(name, case) for name, case in first_cases() if case.entry in _quantizable()]
    for number, (name, case) in enumerate(cases):
        spread = list(SPREADS)[number % len(SPREADS)]
        yield pytest.param(case, spread, number % 2 == 0, id=f"{name}-{spread}")


@pytest.mark.parametrize(("case", "spread", "layers"), list(_fast()))
def test_ranges(case: Case, spread: str, layers: bool) -> None:
    _check(case, spread, layers=layers)


@pytest.mark.sweep
@pytest.mark.parametrize("layers", [True, False], ids=["between layers", "behind inputs"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in named_cases()])
def test_all_ranges(case: Case, spread: str, layers: bool) -> None:
    _check(case, spread, layers=layers)


def _brings_its_own() -> dict[str, tuple[Callable[..., Any], tuple[int, ...]]]:
    """Name → a function with values of its own, and the shape of its input."""
    picture = (2, 3, 6, 6)
    return {
        "padding": (lambda x: F.pad(x, (1, 1, 1, 1), value=7.0), picture),
        "negative padding": (lambda x: F.pad(x, (2, 0), value=-30.0), picture),
        "padding after a pool": (lambda x: F.pad(F.max_pool2d(x, 2), (1, 1), value=9.0), picture),
        "clamp from below": (lambda x: F.max_pool2d(x, 2).clamp(min=5.0), picture),
        "clamp to negative": (lambda x: x.flip(-1).clamp(-4.0, -2.0), picture),
        "clamp of a sum": (lambda x: (x + x.flip(-1)).clamp(3.0, 6.0), picture),
        "relu": (lambda x: x.flip(-1).relu(), picture),
        "masked fill": (lambda x: x.masked_fill(x > 0.3, -25.0), picture),
        "where": (lambda x: torch.where(x > 0, x, 40.0), picture),
        "where of a constant mask": (
            lambda x: torch.where(torch.arange(6) > 2, x, torch.tensor(17.0)), picture,
        ),
        "maximum": (lambda x: torch.maximum(x, torch.tensor(11.0)), picture),
        "minimum": (lambda x: torch.minimum(x, torch.full((6,), -11.0)), picture),
        "concatenation": (lambda x: torch.cat([x, torch.full((2, 1, 6, 6), 50.0)], 1), picture),
        "concatenation beside another reader": (
            lambda x: (torch.cat([x, torch.full((2, 1, 6, 6), 50.0)], 1), x.abs()), picture,
        ),
        "stack": (lambda x: torch.stack([x, torch.full((2, 3, 6, 6), -20.0)], 1), picture),
        "replaced slice": (
            lambda x: torch.slice_scatter(x, torch.full((2, 3, 6, 2), 33.0), 3, 1, 3), picture,
        ),
        "full like": (lambda x: x * torch.full_like(x, 0.01) + torch.full_like(x, 21.0), picture),
        "sum of a window": (lambda x: F.avg_pool2d(x, 2, divisor_override=1), picture),
        "threshold": (lambda x: F.threshold(x, 0.2, -15.0), picture),
    }  # fmt: skip


@pytest.mark.parametrize("layers", [True, False], ids=["between layers", "behind inputs"])
@pytest.mark.parametrize("name", list(_brings_its_own()))
def test_values_of_its_own(name: str, layers: bool) -> None:
    function, shape = _brings_its_own()[name]
    inputs = (torch.randn(shape, generator=torch.Generator().manual_seed(5)),)
    _check(Case(name, function, inputs), "as it is", layers=layers)


@pytest.mark.sweep
def test_beside_the_stock_flow(tmp_path: Path) -> None:
    """Of every quantizable entry, spreads and places by turns: at most two decibels below the
    stock flow."""
    samples: list[tuple[str, Sample]] = []
    cases = [(name, case) for name, case in first_cases() if case.entry in _quantizable()]
    cases += [(n, Case(n, f, (torch.randn(s),))) for n, (f, s) in _brings_its_own().items()]
    for number, (name, case) in enumerate(cases):
        spread, layers = list(SPREADS)[number % len(SPREADS)], number % 2 == 0
        sample = Sample(case, spread, layers=layers)
        if sample.has_answers:
            samples.append((f"{name}, {spread}, layers {layers}", sample))
    jobs = []
    for number, (_, sample) in enumerate(samples):
        path = tmp_path / f"{number}.pt2"
        torch.export.save(torch.export.export(sample.model, sample.batches[0]), path)
        jobs.append(
            {
                "model": str(path), "scheme": "static_per_channel",
                "calibration": sample.batches, "inputs": sample.batches, "may_fail": True,
            }
        )  # fmt: skip
    torch.save(jobs, tmp_path / "jobs.pt")
    command = [sys.executable, str(STOCK), str(tmp_path / "jobs.pt"), str(tmp_path / "result.pt")]
    subprocess.run(command, check=True, capture_output=True)
    worse = []
    for (name, sample), rows in zip(samples, torch.load(tmp_path / "result.pt"), strict=True):
        if rows is None:
            continue
        pairs = zip(sample.ours(), sample.ratios(rows), strict=True)
        worse += [
            f"{name}: {ours:.1f} dB, stock {stock:.1f} dB"
            for ours, stock in pairs
            if ours < min(stock - 2.0, GOOD)
        ]
    assert not worse, "\n".join(worse)
