"""Calls in which a tensor has no elements: a batch of none, a selection of none.

Every case of the operator table with the first dimension of an input dynamic, called with none of
it, alone and between other operators; eager PyTorch says what comes out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from operator_cases import Case
from sweep_cases import first_cases, named_cases
from torch import nn

import penstock

#: Entries whose answer in PyTorch is not what follows from the sizes, and why.
EAGER_IS_WRONG = {"pixel_unshuffle": "PyTorch leaves the shape of a batch of none as it is"}


class Function(nn.Module):
    def __init__(self, function: nn.Module | Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def _varying(case: Case) -> list[Any]:
    """The dynamic shapes: the first dimension of each input, alike where they are alike."""
    sizes = {x.shape[0] for x in case.inputs if x.dim() and x.shape[0] > 1}
    dims = {n: torch.export.Dim(f"n{n}", min=0, max=n + 3) for n in sizes}
    return [{0: dims[x.shape[0]]} if x.dim() and x.shape[0] > 1 else None for x in case.inputs]


def _emptied(case: Case) -> list[torch.Tensor]:
    return [x[:0] if x.dim() and x.shape[0] > 1 else x for x in case.inputs]


def _check(case: Case) -> str | None:
    """Compares with eager; says why that could not be done."""
    module = case.function if isinstance(case.function, nn.Module) else Function(case.function)
    module = module.eval()
    shapes = _varying(case)
    if not any(shapes):
        return "no dimension varies"
    empty = _emptied(case)
    try:
        expected = torch.utils._pytree.tree_leaves(module(*empty))
    except (RuntimeError, IndexError, ValueError) as error:
        return f"eager: {error}"
    given = {"inputs": tuple(shapes)} if isinstance(module, Function) else tuple(shapes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lowered = penstock.lower(module, case.inputs, dynamic_shapes=given)
    except penstock.PenstockError as error:
        return f"not captured: {error}"
    program = penstock.load(lowered.to_bytes(), threads=1)
    for inputs in (empty, case.inputs, empty):
        outputs = program(*(x.numpy() for x in inputs))
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(module(*inputs))
        for found, value in zip(torch.utils._pytree.tree_leaves(outputs), expected, strict=True):
            reference = value.numpy()
            assert found.shape == reference.shape
            if inputs is empty:
                np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-5)
    return None


def _parameters(cases: list[tuple[str, Case]]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in cases])


@pytest.mark.sweep
@_parameters(named_cases())
def test_a_batch_of_none(case: Case) -> None:
    if case.entry in EAGER_IS_WRONG:
        pytest.skip(EAGER_IS_WRONG[case.entry])
    reason = _check(case)
    if reason is not None:
        pytest.skip(reason)


class Detect(nn.Module):
    """What a detector does with the boxes that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> Any:
        kept = boxes[scores > 0.5]
        classes = self.head(kept).softmax(-1)
        both = torch.cat([kept.relu(), boxes[:2]])
        spread = kept - kept.mean(0, keepdim=True)
        return (classes, both, kept.sum(0), kept.mean(0), kept.sum(), spread, kept @ kept.T,
                kept.T @ kept, nn.functional.pad(kept, (0, 0, 1, 1), value=2.0))  # fmt: skip


class Statistics(nn.Module):
    """Reductions over a dimension of which there may be nothing, and what is broadcast to it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        hidden = x.sigmoid()
        token = y.tanh()[None, None].expand(x.shape[0], 1, -1)
        return (hidden.sum(1), hidden.mean(1) * 2, 3 * hidden.sum((0, 1)),
                hidden - hidden.mean(1, True),
                torch.cat([token, hidden], 1), hidden.var(1), (x * x).sum(1).sqrt())  # fmt: skip


def _compare(module: nn.Module, program: Any, *inputs: torch.Tensor) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = module(*inputs)
    for i, (found, value) in enumerate(
        zip(program(*(x.numpy() for x in inputs)), expected, strict=True)
    ):
        np.testing.assert_allclose(
            found, value.numpy(), rtol=1e-4, atol=1e-5, err_msg=f"output {i}", strict=True
        )


@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
def test_no_detections(scheme: Any) -> None:
    module = Detect().eval()
    boxes, scores = torch.randn(5, 4), torch.tensor([0.1, 0.9, 0.7, 0.2, 0.6])
    data = penstock.lower(module, (boxes, scores), quantize=scheme).to_bytes()
    program = penstock.load(data, threads=1)
    if scheme is None:
        for some in (scores, torch.zeros(5), scores, torch.ones(5), torch.zeros(5)):
            _compare(module, program, boxes, some)
        return
    for some in (torch.zeros(5), scores, torch.zeros(5)):
        for found, value in zip(program(boxes, some), module(boxes, some), strict=True):
            assert found.shape == tuple(value.shape)
            same = np.isnan(found) == value.isnan().numpy()
            assert same.all()


def test_reductions_over_nothing() -> None:
    module = Statistics()
    sizes = {n: torch.export.Dim(n, min=0, max=6) for n in "bt"}
    dynamic = {"x": {0: sizes["b"], 1: sizes["t"]}, "y": None}
    example = (torch.randn(2, 3, 5), torch.randn(5))
    program = penstock.load(
        penstock.lower(module, example, dynamic_shapes=dynamic).to_bytes(), threads=1
    )
    for b, t in ((2, 3), (0, 3), (2, 0), (0, 0), (6, 6), (2, 0), (1, 1)):
        _compare(module, program, torch.randn(b, t, 5), example[1])


def _reduced(reduction: Callable[[torch.Tensor], torch.Tensor]) -> tuple[nn.Module, Any]:
    """``reduction`` as a module and as a program, of [n, 3, 5] with n from 0 on."""
    module = Function(lambda x: (reduction(x),))
    dynamic = {"inputs": ({0: torch.export.Dim("n", min=0, max=6)},)}
    lowered = penstock.lower(module, (torch.randn(2, 3, 5),), dynamic_shapes=dynamic)
    assert not lowered.delegation.undelegated
    return module, penstock.load(lowered.to_bytes())


@pytest.mark.parametrize("dims", [0, (0, 1), (0, -1), (0, 1, 2)])
def test_the_logarithm_of_a_sum_of_nothing(dims: Any) -> None:
    module, program = _reduced(lambda x: x.logsumexp(dims))
    for n in (2, 0, 4, 0):
        _compare(module, program, torch.randn(n, 3, 5))


def test_a_maximum_of_nothing_is_an_error() -> None:
    module, program = _reduced(lambda x: x.amax((0, 2)) + 1)
    with pytest.raises(penstock.InputError, match="maximum of no elements"):
        program(torch.randn(0, 3, 5))
    _compare(module, program, torch.randn(4, 3, 5))


def _light() -> list[tuple[str, Case]]:
    return [named for i, named in enumerate(first_cases()) if i % 6 == 0]


@_parameters(_light())
def test_a_batch_of_none_of_some(case: Case) -> None:
    test_a_batch_of_none(case)
