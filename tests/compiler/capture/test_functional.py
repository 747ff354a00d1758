"""Writes through views that torch's functionalization alone does not follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim
from torch.nn import functional as F

import penstock
from penstock.errors import ExportError


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


#: What gives another name of its input, and does not say so in its schema.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, training=False),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=False),
    "type_as": lambda x: x.type_as(x),
    "float": lambda x: x.float(),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x, x)[0],
    "meshgrid": lambda x: torch.meshgrid(x[0], x[:, 0], indexing="ij")[1],
    "einsum": lambda x: torch.einsum("ij->ji", x),
    "sum_to_size": lambda x: x.sum_to_size(x.shape),
    "after another write": lambda x: x.mul_(3).view_as(x),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_that_do_not_say_so(view: str) -> None:
    def write(x: Tensor) -> Any:
        VIEWS[view](x)[0] = 5.0
        hidden = x * 2
        VIEWS[view](hidden)[1] = 7.0
        return x + 1, hidden + 1

    x = torch.arange(9.0).reshape(3, 3)
    program = penstock.load(penstock.lower(Call(write), (x.clone(),)).to_bytes(), threads=1)
    array = x.numpy().copy()
    found = program(array)
    expected = write(x)
    np.testing.assert_array_equal(array, x.numpy())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_a_buffer_is_read_as_wide_as_it_is() -> None:
    """Not as what was copied into it."""

    class Copy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("v", torch.zeros(4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Any:
            x[0] = 1.0
            self.v.copy_(x.mean())
            return self.v, self.v * 2

    x = torch.rand(3)  # whose mean is not near 0
    found = penstock.load(penstock.lower(Copy(), (x.clone(),)).to_bytes(), threads=1)(x.numpy())
    for one, other in zip(found, Copy()(x), strict=True):
        assert (one.dtype, one.shape) == (np.float64, (4,))
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-6)


SHAPES = {"x": {1: 2 * Dim("s", min=2, max=8)}}


def test_parts_of_dynamic_tensors() -> None:
    def write(x: Tensor) -> Tensor:
        y = x * 2
        y.unbind(0)[1].add_(1)
        return y

    lowered = penstock.lower(Call(write), (torch.ones(2, 6),), dynamic_shapes=SHAPES)
    program = penstock.load(lowered.to_bytes(), threads=1)
    for size in (4, 6, 16):
        x = torch.randn(2, size)
        np.testing.assert_allclose(program(x)[0], write(x).numpy(), rtol=1e-6)


def test_a_size_that_torch_fixes_is_refused() -> None:
    def write(x: Tensor) -> Tensor:
        y = x * 2
        y.unfold(1, 2, 2).add_(1)
        return y

    shapes = {"x": {2: 2 * Dim("s", min=2, max=8), 3: Dim("s", min=2, max=8) + 1}}
    with pytest.raises(ExportError, match="it fixes dimension 2 of input x"):
        penstock.lower(Call(write), (torch.ones(2, 4, 12, 7),), dynamic_shapes=shapes)


def test_shapes_that_change_in_place() -> None:
    def squeezed(x: Tensor) -> Tensor:
        y = x * 2
        x.squeeze_()
        return y.unsqueeze_(0).add_(1)

    x = torch.randn(2, 1, 3)
    lowered = penstock.lower(Call(squeezed), (x.clone(),))
    array = x.numpy().copy()
    (found,) = penstock.load(lowered.to_bytes(), threads=1)(array)
    np.testing.assert_array_equal(array, x.numpy())
    np.testing.assert_allclose(found, (x * 2 + 1).unsqueeze(0).numpy(), rtol=1e-6)

    def turned(x: Tensor) -> Tensor:
        return (x * 2).transpose_(0, 1).add_(1)  # the functional form has another overload's name

    (found,) = penstock.load(penstock.lower(Call(turned), (x,)).to_bytes(), threads=1)(x.numpy())
    np.testing.assert_allclose(found, turned(x).numpy(), rtol=1e-6)

    with pytest.raises(ExportError, match="the shape of x in place, by squeeze_"):
        penstock.lower(Call(lambda x: x.squeeze_().add_(1) * 2), (x.clone(),))
    with pytest.raises(ExportError, match="use squeeze instead"):
        penstock.lower(Stateful(), (torch.ones(1, 3),))


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("v", torch.zeros(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.v.squeeze_()
        return self.v + x


def repeated(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    _, found = while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, step(y)), (torch.tensor(0), x.clone())
    )
    assert isinstance(found, Tensor)
    return found


#: What holds tensors of its own within a branch or loop.
BODIES: dict[str, Callable[[Tensor], Tensor]] = {
    "rows by a tensor": lambda x: x[torch.tensor([1, 0, 2])],
    "a loop": lambda x: repeated(lambda y: y * 2, x),
    "a loop with one": lambda x: repeated(lambda y: y + torch.tensor([1.0, 2.0, 3.0]), x),
    "two, in both": lambda x: torch.cond(
        x.mean() > 4,
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(0.5),
        lambda x: x - torch.tensor([3.0, 2.0, 1.0]),
        (x,),
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_branches_with_tensors_of_their_own(body: str) -> None:
    """Beside a write through a view, for which torch traces all of the model once more."""

    def write(x: Tensor) -> Any:
        chosen = torch.cond(x.sum() > 0, BODIES[body], lambda x: x + torch.tensor(1.0), (x,))
        hidden = x.clone()
        hidden.view(-1)[1:] += 0.5
        return chosen, hidden

    x = torch.arange(9.0).reshape(3, 3)
    exported = torch.export.export(Call(write), (x,), strict=False)
    for model in (Call(write), exported, exported):
        program = penstock.load(
            penstock.lower(model, None if model is exported else (x,)).to_bytes()
        )
        for given in (x, -x, x + 9):
            for one, other in zip(program(given), write(given), strict=True):
                np.testing.assert_array_equal(one, other.numpy())


class RowsOfExperts(nn.Module):
    """Each expert reads the rows that a mask gives it, and adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.gate(x).softmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mask = scores.argmax(-1) == number
            out[mask] += expert(x[mask]).to(x.dtype) * scores[mask][:, number, None]
        return out


def test_rows_as_many_as_a_mask_shows() -> None:
    model, x = RowsOfExperts().eval(), torch.randn(6, 4)
    (found,) = penstock.load(penstock.lower(model, (x,)).to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach())
