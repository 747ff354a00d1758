"""Operators without a kernel of their own, out of others: compiled, run, eager's answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import penstock
from penstock.errors import UnsupportedError


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any], *parameters: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        self.parameters_ = nn.ParameterList(parameters)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*self.parameters_, *inputs)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IDS = torch.tensor([[1, 4, 4], [0, 9, 2]])
TABLE, ROWS = _random(10, 5), _random(3, 8)
PLACES = torch.tensor([[0, 2, 2, 1], [1, 1, 1, 1], [7, 0, 3, 0]])
ENTRIES = _random(3, 4, seed=1)
OFFSETS = torch.tensor([0, 3, 3])
LINE = torch.tensor([-9.3, -4.0, -2.5, -0.3, 0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.75, 6.2, 20.0])
MATRICES = {n: torch.eye(n) * 2 + _random(2, n, n) * 0.4 for n in (1, 2, 3, 4, 7)}
LARGE = torch.eye(32) * 3 + _random(32, 32) * 0.4
POSITIVE = MATRICES[7] @ MATRICES[7].mT + torch.eye(7)
FACTOR = torch.linalg.cholesky(POSITIVE)
LABELS = torch.tensor([[1, 2, -1, 0, 0, 3, 0, 0], [-1] * 8, [7, 6, 5, 4, 3, 2, 1, 0]])
SCALAR = torch.tensor(1.5)
TAILS = torch.tensor(
    [-math.inf, -9, -2.5, -1, -0.3, -0.0, 1e-8, 0.5, 0.7, 3, 8, math.inf, math.nan]
)
#: One that is positive definite, and two that are neither that nor can be inverted.
ODD = torch.stack([torch.eye(6), torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 0])), torch.zeros(6, 6)])
ODD[2, :5, :5] = torch.diag(torch.tensor([1.0, 1, -1, 1, 1]))
GAPS = torch.where(_random(3, 4, 5) > 0.3, math.nan, _random(3, 4, 5))
VOLUME, GRID = _random(2, 3, 4, 5, 6), _random(2, 3, 2, 4, 3, seed=2) * 1.5
#: As the least pivot has it, and with rows that must change places.
TURNED = torch.eye(6)[torch.tensor([1, 0, 3, 4, 5, 2])] * 2


def _bag(mode: str, **options: Any) -> tuple[Any, tuple[torch.Tensor, ...]]:
    return lambda ids: F.embedding_bag(ids, TABLE, mode=mode, **options), (IDS,)


def _reduce(reduce: str, **options: Any) -> tuple[Any, tuple[torch.Tensor, ...]]:
    return (
        lambda x, i, s: x.scatter_reduce(1, i, s, reduce, **options),
        (ROWS, PLACES, ENTRIES),
    )


CASES: dict[str, tuple[Any, tuple[torch.Tensor, ...]]] = {
    **{f"embedding_bag_{mode}": _bag(mode) for mode in ("sum", "mean", "max")},
    **{f"embedding_bag_{mode}_padding": _bag(mode, padding_idx=4)
       for mode in ("sum", "mean", "max")},
    "fill_diagonal": (lambda x: (x @ x.T).fill_diagonal_(0.5), (ROWS,)),
    "fill_diagonal_of_a_long_one": (lambda x: (x * 2).fill_diagonal_(1), (ENTRIES,)),
    "as_strided_scatter": (
        lambda x, s: torch.as_strided_scatter(x * 2, s[:2, :2], (2, 2), (5, 3), 1), (ROWS, ENTRIES),
    ),
    "embedding_bag_offsets": (
        lambda i, o: (F.embedding_bag(i, TABLE, o),
                      F.embedding_bag(i, TABLE, o, include_last_offset=True)),
        (torch.arange(5), torch.tensor([0, 3, 3, 5])),
    ),
    "embedding_bag_weights": (
        lambda i, w: F.embedding_bag(i, TABLE, mode="sum", per_sample_weights=w),
        (IDS, _random(2, 3)),
    ),
    **{f"scatter_reduce_{r}": _reduce(r) for r in ("sum", "mean", "prod", "amax", "amin")},
    **{f"scatter_reduce_{r}_without_self": _reduce(r, include_self=False)
       for r in ("sum", "mean", "prod", "amax", "amin")},
    "scatter_reduce_part": (
        lambda x, i, s: x.scatter_reduce(0, i, s, "amax"), (ROWS, PLACES[:2, :3] % 3, ENTRIES),
    ),
    "index_reduce": (
        lambda x, s: x.index_reduce(1, torch.tensor([1, 5, 1, 0]), s, "mean"), (ROWS, ENTRIES),
    ),
    "mode": (lambda x: tuple(x.mode(-1)), (torch.tensor([[3, 1, 1, 3, 2], [5, 5, 4, 4, 4]]),)),
    "mode_keepdim": (lambda x: tuple(x.mode(0, True)), ((ROWS * 2).round(),)),
    "histc": (lambda x: x.histc(6, -1.5, 2.0), (ROWS,)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), (ROWS * 30,)),
    "avg_pool3d": (
        lambda x: (F.avg_pool3d(x, 3, 2, 1, True, False), F.avg_pool3d(x, 2, 2, 1, True, True, 5)),
        (_random(2, 6, 7, 5),),
    ),
    "adaptive_max_pool3d": (
        lambda x: F.adaptive_max_pool3d(x, (2, 3, 1), return_indices=True),
        (_random(1, 2, 5, 4, 3),),
    ),
    "bilinear": (F.bilinear, (ROWS, _random(3, 5), _random(4, 8, 5), _random(4))),
    "erfinv": (
        torch.erfinv, (torch.tensor([-1.0, -0.99999, -0.5, 0.0, 1e-6, 0.3, 0.999, 1.0, 1.5]),)
    ),
    **{name: (getattr(torch.special, name), (TAILS,)) for name in ("erfcx", "log_ndtr")},
    "ndtri": (torch.special.ndtri, (torch.tensor([0.0, 0.01, 0.5, 0.9, 1.0]),)),
    "lgamma": (torch.lgamma, (LINE,)),
    "lgamma_extremes": (torch.lgamma, (torch.tensor([-math.inf, math.inf, 1.0, 2.0, math.nan]),)),
    "searchsorted_nan": (
        lambda x, v: (torch.searchsorted(x, v), torch.searchsorted(x, v, right=True)),
        (torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([math.nan, 0.0, math.inf])),
    ),
    "digamma": (torch.digamma, (LINE[LINE != 0],)),
    **{name: (getattr(torch.special, name), (LINE,)) for name in ("i0", "i0e", "i1", "i1e")},
    **{f"det_{n}": (torch.linalg.det, (m,)) for n, m in MATRICES.items()},
    **{f"inv_{n}": (torch.linalg.inv, (m,)) for n, m in MATRICES.items()},
    "inverse": (torch.inverse, (MATRICES[3][0],)),
    "slogdet": (lambda x: tuple(torch.linalg.slogdet(x)), (MATRICES[3],)),
    "solve": (torch.linalg.solve, (MATRICES[3], _random(2, 3, 4))),
    "det_32": (torch.linalg.det, (LARGE / 3,)),
    "solve_32": (torch.linalg.solve, (LARGE, _random(32, 2))),
    "det_turned": (torch.linalg.det, (TURNED,)),
    "slogdet_turned": (lambda x: tuple(torch.linalg.slogdet(x)), (-TURNED,)),
    "inv_turned": (torch.linalg.inv, (TURNED,)),
    "solve_broadcast": (torch.linalg.solve, (MATRICES[7], _random(3, 1, 7, 2))),
    "solve_right_7": (
        lambda a, b: torch.linalg.solve(a, b, left=False), (MATRICES[7], _random(2, 4, 7)),
    ),
    "det_of_nothing": (torch.linalg.det, (torch.zeros(0, 0),)),
    **{f"inv_of_nothing_{name}": (function, (torch.zeros(2, 0, 3), torch.zeros(2, 0, 0)))
       for name, function in {
           "triangular": lambda b, a: torch.linalg.solve_triangular(a, b, upper=True),
           "triangular_old": torch.triangular_solve, "general": lambda b, a: a.inverse() @ b,
       }.items()},
    "complex_of_nothing": (
        lambda x, y: (torch.complex(x, y).real, torch.polar(x, y)),
        (torch.zeros(0, 1, 3), torch.zeros(0, 2, 3)),
    ),
    **{f"error_codes_{name}": (lambda x, function=function: function(x)[1], (ODD,))
       for name, function in {
           "cholesky": torch.linalg.cholesky_ex, "inv": torch.linalg.inv_ex,
           "solve": lambda x: torch.linalg.solve_ex(x, x),
       }.items()},
    "cholesky": (torch.linalg.cholesky, (POSITIVE,)),
    **{f"qr_{mode}_{x.shape[-2]}x{x.shape[-1]}": (
        lambda x, mode=mode: tuple(torch.linalg.qr(x, mode))[mode == "r" :], (x,))
       for mode in ("reduced", "complete", "r")
       for x in (_random(1, 1), _random(2, 5, 3), _random(3, 5), _random(4, 4) * 1e25)},
    "qr_of_zeros_below": (lambda x: tuple(torch.linalg.qr(x)), (torch.eye(3) * -2,)),
    "qr_singular": (lambda x: tuple(torch.linalg.qr(x)), (torch.zeros(2, 4, 3),)),
    "matrix_exp": (torch.linalg.matrix_exp, (MATRICES[7] - 2 * torch.eye(7),)),
    "matrix_exp_large": (torch.matrix_exp, (_random(4, 4) * 3 - torch.eye(4) * 8,)),
    "matrix_exp_of_one": (torch.matrix_exp, (torch.tensor([[[-3.0]], [[0.0]]]),)),
    "cholesky_upper": (lambda x: torch.linalg.cholesky(x, upper=True), (POSITIVE,)),
    "cholesky_old": (torch.cholesky, (POSITIVE,)),
    "cholesky_of_one": (torch.linalg.cholesky, (torch.full((2, 1, 1), 4.0),)),
    "cholesky_inverse": (torch.cholesky_inverse, (FACTOR,)),
    **{f"cholesky_solve_{upper}": (
        lambda b, x, upper=upper: torch.cholesky_solve(b, x, upper=upper),
        (_random(2, 7, 2), FACTOR.mT.contiguous() if upper else FACTOR))
       for upper in (True, False)},
    **{f"triangular_solve_{transpose}": (
        lambda b, x, transpose=transpose: torch.triangular_solve(
            b, x, upper=False, transpose=transpose)[0], (_random(2, 7, 2), FACTOR))
       for transpose in (True, False)},
    **{f"scalar_{name}": (lambda x, name=name: tuple(getattr(torch, name)(x, 0)), (SCALAR,))
       for name in ("cummax", "cummin", "mode", "median")},
    "scalar_kthvalue": (lambda x: tuple(x.kthvalue(1, 0)), (SCALAR,)),
    "scalar_moved": (lambda x: (x.transpose(0, -1) + 1, x.unfold(0, 1, 1) * 2), (SCALAR,)),
    "scalar_index_reduce": (
        lambda x: x.index_reduce(0, torch.tensor([0]), x * 2, "mean"), (SCALAR,),
    ),
    "conv3d_valid": (
        lambda x, w: F.conv3d(x, w, padding="valid"), (_random(1, 3, 4, 9), _random(2, 1, 1, 3, 4)),
    ),
    "tensordot_broadcast": (
        lambda x, y: torch.tensordot(x, y, ([0, 1], [2, 0])), (_random(1, 1, 3), _random(2, 4, 2)),
    ),
    **{f"{name}_of_integers": (getattr(torch, name), (torch.tensor([1, 3, 0], dtype=dtype),))
       for name, dtype in {"i0": torch.uint8, "lgamma": torch.int64, "erfinv": torch.bool,
                           "exp2": torch.int32, "erfc": torch.int64}.items()},
    "copysign_of_integers": (torch.copysign, (torch.tensor([1, -2]), torch.tensor([-1, 0]))),
    "copysign_of_booleans": (torch.copysign, (IDS > 1, IDS > 2)),
    "bilinear_of_bytes": (
        F.bilinear, tuple(IDS.to(torch.uint8).reshape(-1)[:n].reshape(shape) for n, shape in
                          ((3, (3,)), (2, (2,)), (6, (1, 3, 2)))),
    ),
    "masked_select_broadcast": (torch.masked_select, (torch.arange(4), ENTRIES > 0)),
    "masked_select_of_one": (torch.masked_select, (SCALAR, torch.tensor(True))),
    "nonzero_of_two": (torch.nonzero, (torch.tensor([1.0, 0.0]),)),
    **{f"multilabel_margin_loss_{rank}": (
        lambda x, t: tuple(F.multilabel_margin_loss(x, t, reduction=one)
                           for one in ("none", "mean", "sum")),
        (ROWS[0], LABELS[0]) if rank == 1 else (ROWS, LABELS))
       for rank in (1, 2)},
    "angle": (torch.angle, (torch.tensor([1.0, -2, 0, -0.0, math.nan, -math.inf]),)),
    "angle_of_integers": (torch.angle, (torch.tensor([1, -2, 0]),)),
    "nanmedian": (torch.nanmedian, (GAPS,)),
    "nanmedian_dim": (lambda x: x.nanmedian(1, keepdim=True)[0], (GAPS,)),
    "nanmedian_of_nothing_else": (lambda x: x.nanmedian(0).values, (GAPS * math.nan,)),
    "nanmedian_of_integers": (lambda x: tuple(x.nanmedian(0)), (torch.tensor([5, 3, 9, 1]),)),
    "nanmedian_of_one": (lambda x: tuple(x.nanmedian(0)), (SCALAR,)),
    **{f"put_{accumulate}": (
        lambda x, i, s, accumulate=accumulate: x.put(i, s, accumulate),
        (ROWS, torch.tensor([[3, -1], [10, 3]]) if accumulate else torch.tensor([[3, -1], [10, 4]]),
         _random(2, 2)))
       for accumulate in (True, False)},
    "take": (torch.take, (ROWS, torch.tensor([[-24, 3], [23, 0]]))),
    "nan_to_num_of_halves": (
        lambda x: (x.nan_to_num(), x.nan_to_num(1.0, neginf=-2.0)),
        (torch.tensor([math.nan, math.inf, -math.inf, 2], dtype=torch.float16),),
    ),
    "take_one": (torch.take, (ROWS, torch.tensor(-3))),
    "boolean_item": (lambda x: torch.ones(3) * x.item(), (torch.tensor(True),)),
    "hypot": (torch.hypot, (torch.tensor([3.0, 1e30, 0, -math.inf, 2, 1e-25]),
                            torch.tensor([-4.0, 1e30, 0, 1, math.nan, 1e-25]))),
    **{f"nonzero_static_{size}": (
        lambda x, size=size: torch.nonzero_static(x, size=size, fill_value=-7), (ENTRIES.relu(),))
       for size in (0, 3, 20)},
    **{f"grid_sample_of_volumes_{mode}_{padding}_{align}": (
        lambda x, grid, mode=mode, padding=padding, align=align: F.grid_sample(
            x, grid, mode=mode, padding_mode=padding, align_corners=align), (VOLUME, GRID))
       for mode in ("bilinear", "nearest") for padding in ("zeros", "border", "reflection")
       for align in (True, False)},
    "solve_vector": (torch.linalg.solve, (MATRICES[3], _random(2, 3))),
    "solve_right": (
        lambda a, b: torch.linalg.solve(a, b, left=False), (MATRICES[3], _random(2, 4, 3)),
    ),
    **{f"triangular_{upper}_{left}": (
        lambda a, b, upper=upper, left=left: torch.linalg.solve_triangular(
            a, b, upper=upper, left=left), (MATRICES[3], _random(2, 3, 3)))
       for upper in (True, False) for left in (True, False)},
}  # fmt: skip


@pytest.mark.parametrize("delegate", [True, False], ids=["delegated", "kernels"])
@pytest.mark.parametrize("name", CASES)
def test_against_eager(name: str, delegate: bool) -> None:
    function, inputs = CASES[name]
    model = Call(function).eval()
    with torch.no_grad():
        expected = model(*inputs)
    lowered = penstock.lower(model, inputs, delegate=delegate)
    actual = penstock.load(lowered.to_bytes(), threads=1)(*(x.numpy() for x in inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.numpy().dtype
        np.testing.assert_allclose(one, other.numpy(), rtol=3e-5, atol=3e-6)


def test_the_tail_of_erfc_keeps_its_digits() -> None:
    """1 - erf(x) is zero from 4 on."""
    x = torch.linspace(0.4, 9, 100)
    lowered = penstock.lower(Call(torch.erfc).eval(), (x,))
    assert lowered.delegation.share == 1
    (actual,) = penstock.load(lowered.to_bytes(), threads=1)(x.numpy())
    np.testing.assert_allclose(actual, torch.erfc(x).numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "inputs", "message"),
    [
        (torch.linalg.inv, (torch.eye(33)[None],), "at most 32 rows.*test_decompositions.py"),
        (torch.linalg.qr, (_random(2, 33),), "at most 32 rows and columns.*test_decompositions.py"),
        (torch.linalg.eigvals, (LARGE,), "linalg_eigvals.default gives complex numbers"),
        (torch.gcd, (torch.arange(4), torch.arange(4)), "gcd.*test_decompositions.py"),
        (lambda x: F.fractional_max_pool2d(x, 2, (2, 2)), (_random(1, 1, 5, 5),), "fractional"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_place(
    function: Any, inputs: tuple[torch.Tensor, ...], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        penstock.lower(Call(function), inputs)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x: tuple(torch.sort(x, dim=0, stable=True)), (ENTRIES,)),
        (lambda x, w: F.conv2d(x, w, groups=3), (_random(2, 3, 4, 4), _random(3, 1, 2, 2))),
    ],
    ids=["sort", "convolution"],
)
def test_of_no_rows(function: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    sizes = {"inputs": ({0: torch.export.Dim("n", max=9)}, *[None] * (len(inputs) - 1))}
    model = Call(function)
    lowered = penstock.lower(model, inputs, dynamic_shapes=sizes, delegate=False)
    program = penstock.load(lowered.to_bytes(), threads=1)
    for rows in (inputs[0], inputs[0][:0], inputs[0][:1]):
        expected = model(rows, *inputs[1:])
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(program(rows, *inputs[1:]), expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_inverses_of_any_number_of_matrices(size: int) -> None:
    model = Call(lambda x: (torch.linalg.inv(x), torch.linalg.det(x)))
    matrices = _random(3, size, size) + 3 * torch.eye(size)
    sizes = {"inputs": ({0: torch.export.Dim("n", max=9)},)}
    lowered = penstock.lower(model, (matrices,), dynamic_shapes=sizes)
    assert not lowered.delegation.undelegated and len(lowered.delegation.subgraphs) == 1
    program = penstock.load(lowered.to_bytes(), threads=1)
    for some in (matrices, matrices[:1]):
        for one, other in zip(program(some), model(some), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


def test_a_size_that_depends_on_data_without_a_bound() -> None:
    counts = torch.tensor([1, 0, 2])
    with pytest.raises(UnsupportedError, match=r"depends on data: torch\._check"):
        penstock.lower(Call(lambda x, n: torch.repeat_interleave(x, n, 0)), (ROWS, counts))


@pytest.mark.parametrize("options", [{"size": (13, 14)}, {"scale_factor": 2.0}])
def test_bytes_are_resized_to_within_one(options: dict[str, Any]) -> None:
    """As eager does with weights of 16 bits, and the kernels in float."""
    picture = (_random(2, 3, 9, 11).sigmoid() * 255).to(torch.uint8)

    def resize(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, mode="bilinear", **options)

    program = penstock.load(penstock.lower(Call(resize), (picture,)).to_bytes(), threads=1)
    (found,) = program(picture.numpy())
    assert found.dtype == np.uint8
    assert abs(found.astype(int) - resize(picture).numpy()).max() <= 1


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y),
        lambda x, y: torch.nn.functional.binary_cross_entropy(x.sigmoid(), y),
        lambda x, y: torch.nn.functional.kl_div(x.log_softmax(1), y, reduction="batchmean"),
    ],
)
def test_losses_are_one_delegate(loss: Any) -> None:
    """Definitions that make tensors of a size, zeros say, go to XNNPACK as constants."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return loss(x, y)

    x, y = torch.linspace(-5, 5, 15).reshape(3, 5), torch.linspace(0, 1, 15).reshape(3, 5)
    lowered = penstock.lower(Model(), (x, y))
    assert len(lowered.delegation.subgraphs) == 1
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x, y)
    torch.testing.assert_close(torch.from_numpy(found.copy()), loss(x, y), rtol=1e-5, atol=1e-5)
