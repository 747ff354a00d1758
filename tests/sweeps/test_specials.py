"""Every operator with not-a-number, infinities, zeros, denormals and extremes in its inputs.

What eager answers is right, in float32 or in float64 (some of eager's kernels compute in float64,
and which ones differs with the size). Where ``delegate/limits.py`` says otherwise, an
entry may answer something else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from operator_cases import Case
from operator_harness import as_module
from sweep_cases import first_cases, named_cases

import penstock
from penstock.compiler.delegate.limits import LARGEST, LIMITS
from penstock.compiler.delegate.operators import registry

FEW = (math.nan, math.inf, -math.inf, -0.0, 1e-40, -LARGEST, 1e20)
ALL = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, 1.5e-38, -1.5e-38, 1e38, -1e38,
    LARGEST, -LARGEST, 1e20, -1e20, 1e9, -1e9, 100.0, 88.5, -88.5, 127.8, 166.9,
)  # fmt: skip
#: Of longer inputs as many places are taken, from one end to the other.
MOST_PLACES = 64


def places(size: int, most: int) -> list[int]:
    if size <= most:
        return list(range(size))
    return sorted({round(i * (size - 1) / (most - 1)) for i in range(most)})


@dataclass
class Finding:
    """``value`` in input ``source`` at ``place``: what an output holds, and what eager's does."""

    value: float
    source: int
    place: int
    ours: float
    eager: float


@dataclass
class Judge:
    """Eager's answers, in float32 and, where that can be had, in float64."""

    module: torch.nn.Module
    double: torch.nn.Module | None = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.double = copy.deepcopy(self.module).double()
        except (RuntimeError, TypeError):
            self.double = None

    def answers(self, inputs: Sequence[torch.Tensor]) -> list[list[np.ndarray]]:
        found = [_leaves(self.module(*inputs))]
        if self.double is not None:
            wide = [t.double() if t.is_floating_point() else t for t in inputs]
            try:
                found.append(_leaves(self.double(*wide)))
            except (RuntimeError, ValueError):  # it has constants of float32 inside
                self.double = None
        return found


def _leaves(outputs: Any) -> list[np.ndarray]:
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [np.asarray(torch.as_tensor(leaf).detach()).astype(np.float32) for leaf in leaves]


def agrees(ours: np.ndarray, eager: np.ndarray, tolerance: float) -> np.ndarray:
    """Where two arrays agree: infinities and not-a-number exactly, numbers within ``tolerance`` of
    the range of eager's."""
    numbers = np.isfinite(eager)
    known = eager[numbers].astype(np.float64)
    scale = max(float(np.ptp(known)), float(np.abs(known).max()), 1e-3) if known.size else 1e-3
    near = np.abs(ours.astype(np.float64) - eager) <= tolerance * scale
    same = (ours == eager) | (np.isnan(ours) & np.isnan(eager))
    result: np.ndarray = same | (np.isfinite(ours) & numbers & near)
    return result


def findings(case: Case, values: Sequence[float], most: int) -> Iterator[Finding]:
    """Where the compiled case differs from eager."""
    module = as_module(case.function)
    judge = Judge(module)
    program = penstock.load(penstock.lower(module, case.inputs).to_bytes(), threads=1)
    for source, tensor in enumerate(case.inputs):
        if tensor.dtype is not torch.float32:
            continue
        for place in places(tensor.numel(), most):
            for value in values:
                changed = tensor.detach().clone(memory_format=torch.contiguous_format)
                changed.view(-1)[place] = value
                inputs = [*case.inputs[:source], changed, *case.inputs[source + 1 :]]
                with np.errstate(all="ignore"), torch.no_grad():
                    eager = judge.answers(inputs)
                    ours = torch.utils._pytree.tree_leaves(program(*inputs))
                    for number, output in enumerate(ours):
                        fine = [agrees(output, one[number], case.tolerance) for one in eager]
                        wrong = np.argwhere(~np.logical_or.reduce(fine))
                        if len(wrong):
                            at = tuple(wrong[0])
                            found, wanted = float(output[at]), float(eager[0][number][at])
                            yield Finding(value, source, place, found, wanted)


def beyond_limits(case: Case, found: Sequence[Finding]) -> list[Finding]:
    return [
        one for one in found if not any(limit.covers(case.entry, one.value) for limit in LIMITS)
    ]


@pytest.mark.parametrize(("name", "case"), first_cases(), ids=lambda item: str(item)[:40])
def test_a_few_specials(name: str, case: Case) -> None:
    wrong = beyond_limits(case, list(findings(case, FEW, 2)))
    assert not wrong, f"{name}: {len(wrong)} findings, such as {wrong[:3]}"


@pytest.mark.sweep
def test_all_specials_everywhere() -> None:
    """Nothing differs beyond the table of limits, and nothing in the table is there in vain."""
    wrong: list[str] = []
    needed: set[tuple[str, str]] = set()
    for name, case in named_cases():
        found = list(findings(case, ALL, MOST_PLACES))
        beyond = beyond_limits(case, found)
        if beyond:
            wrong.append(f"{name}: {len(beyond)} findings, such as {beyond[:2]}")
        for limit in LIMITS:
            if any(limit.covers(case.entry, one.value) for one in found):
                needed.add((limit.effect, case.entry))
    assert not wrong, "\n".join(wrong)
    stated = {(limit.effect, entry) for limit in LIMITS for entry in limit.entries}
    assert not stated - needed, "the table of limits says more than is needed"


def test_limits_name_entries() -> None:
    known = {entry.name for entry in registry.entries()}
    assert not {entry for limit in LIMITS for entry in limit.entries} - known
