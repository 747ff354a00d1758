"""Operator cases with their dimensions declared dynamic: compiled once, for inputs of any size."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import sympy
import torch
from operator_cases import Case
from operator_harness import assert_close
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

import penstock
from penstock.compiler.delegate.report import Delegation
from penstock.errors import PenstockError


class Varied(nn.Module):
    """A case's function, of inputs that all may change their sizes."""

    def __init__(self, function: nn.Module | Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


@dataclass(frozen=True)
class Exported:
    """A case with dynamic dimensions, as ``torch.export`` has found that they hang together:
    ``shapes`` says the size of every dimension of every input, by the symbols in it."""

    case: Case
    program: ExportedProgram
    shapes: tuple[tuple[Any, ...], ...]

    @property
    def symbols(self) -> list[sympy.Symbol]:
        found = {s for shape in self.shapes for size in shape for s in _free(size)}
        return sorted(found, key=str)

    @cached_property
    def demands(self) -> nn.Module:
        """The exported program, which raises where the sizes are not what it was exported for."""
        return self.program.module()

    def inputs(self, values: Mapping[sympy.Symbol, int]) -> list[torch.Tensor]:
        """The case's inputs at other sizes: their numbers, again and again."""
        shapes = [tuple(int(_at(size, values)) for size in shape) for shape in self.shapes]
        return [
            torch.from_numpy(np.resize(x.detach().numpy(), shape))
            for x, shape in zip(self.case.inputs, shapes, strict=True)
        ]


def _free(size: Any) -> set[sympy.Symbol]:
    return size.free_symbols if isinstance(size, sympy.Expr) else set()


def _at(size: Any, values: Mapping[sympy.Symbol, int]) -> Any:
    return size.subs(values) if isinstance(size, sympy.Expr) else size


def bound(size: int) -> int:
    """The largest size of a dimension that is ``size`` in the example."""
    return 2 * size + 3


def exported(case: Case, chosen: Callable[[int, int], bool] = lambda *_: True) -> Exported | None:
    """The case with the ``chosen`` dimensions dynamic (of input, dimension), as far as torch.export
    permits it; ``None`` where that is not at all."""
    specification = tuple(
        {
            dim: Dim.AUTO(min=2, max=bound(size))  # type: ignore[operator]
            for dim, size in enumerate(x.shape)
            if size > 1 and chosen(number, dim)
        }
        for number, x in enumerate(case.inputs)
    )
    function = case.function.eval() if isinstance(case.function, nn.Module) else case.function
    try:
        with torch.no_grad(), _quietly():
            program = torch.export.export(
                Varied(function), case.inputs, dynamic_shapes=(specification,), strict=False
            )
    except Exception:  # what torch.export cannot do is no business of ours
        return None
    shapes = tuple(
        tuple(size.node.expr if isinstance(size, torch.SymInt) else size for size in value.shape)
        for value in (
            node.meta["val"] for node in program.graph.nodes
            if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
        )
    )  # fmt: skip
    found = Exported(case, program, shapes)
    return found if found.symbols else None


def one_by_one(everything: Exported) -> Iterator[Exported]:
    """The same with each of the independent dynamic dimensions alone."""
    if len(everything.symbols) < 2:
        return
    for symbol in everything.symbols:
        found = exported(
            everything.case,
            lambda number, dim, symbol=symbol: symbol in _free(everything.shapes[number][dim]),
        )
        if found is not None:
            yield found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


@dataclass
class Outcome:
    """What came of a program: refused in words, or compiled, ``where`` it runs, and the calls for
    which it was right."""

    refused: str = ""
    where: str = ""
    file: bytes = b""
    calls: list[tuple[list[np.ndarray], list[np.ndarray]]] = field(default_factory=list)


def assignments(found: Exported) -> list[dict[sympy.Symbol, int]]:
    """Sizes to try: the example's, the smallest, the largest, and two in between."""
    hints = _hints(found)
    upper = {symbol: bound(size) for symbol, size in hints.items()}
    return [
        hints,
        dict.fromkeys(hints, 2),
        upper,
        {symbol: size + 1 + number % 2 for number, (symbol, size) in enumerate(hints.items())},
        {
            symbol: max(2, size - 1 - number % 2)
            for number, (symbol, size) in enumerate(hints.items())
        },
    ]


def _hints(found: Exported) -> dict[sympy.Symbol, int]:
    known: dict[sympy.Symbol, int] = {}
    for shape, x in zip(found.shapes, found.case.inputs, strict=True):
        for size, actual in zip(shape, x.shape, strict=True):
            if isinstance(size, sympy.Symbol):
                known.setdefault(size, actual)
    return known


def tried(found: Exported) -> Outcome:
    """Compiles the program and runs it at several sizes; fails where an answer is not eager's, or
    an error not one of Penstock's. Sizes that eager PyTorch refuses are left out."""
    try:
        lowered = penstock.lower(found.program)
    except PenstockError as error:
        return Outcome(refused=str(error))
    outcome = Outcome(where=_where(lowered.delegation), file=lowered.to_bytes())
    program = penstock.load(outcome.file, threads=1)
    for values in assignments(found):
        inputs = found.inputs(values)
        expected = eager(found, inputs)
        if expected is None:
            continue
        arrays = [x.numpy() for x in inputs]
        answers = _leaves(program(*arrays))
        compare(answers, expected, found.case.tolerance, f"at {values}")
        outcome.calls.append((arrays, expected))
    return outcome


def _where(delegation: Delegation) -> str:
    if not delegation.subgraphs:
        return "kernels"
    whole = len(delegation.subgraphs) == 1 and not delegation.undelegated
    return "one delegate" if whole else "in part delegated"


def eager(found: Exported, inputs: Sequence[torch.Tensor]) -> list[np.ndarray] | None:
    """Eager PyTorch's answers; ``None`` where it refuses these inputs, or torch.export has found
    that the model is not for such sizes."""
    try:
        with torch.no_grad(), _quietly():
            found.demands(*inputs)
            result = found.case.function(*inputs)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return None
    return [leaf.detach().numpy() for leaf in torch.utils._pytree.tree_leaves(result)]


def _leaves(result: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in torch.utils._pytree.tree_leaves(result)]


def compare(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float, name: str
) -> None:
    assert len(actual) == len(expected)
    for position, (one, other) in enumerate(zip(actual, expected, strict=True)):
        if other.size:
            assert_close(one, other, tolerance, f"output {position} {name}")
        else:
            assert one.shape == other.shape, f"output {position} {name}: {one.shape}"


# --- operators without an entry ------------------------------------------------------------------


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


X, Y, IMAGE = _numbers(3, 4, 6), _numbers(3, 6, 5), _numbers(2, 4, 6, 8)
IDS = torch.tensor([[1, 4, 4], [0, 9, 2]])
TABLE, ROWS, WEIGHT = _numbers(10, 5), _numbers(3, 8), _numbers(4, 8, 5)

#: Contractions, folds, scans, windows and whatever else comes to be by decomposition.
FUNCTIONS: list[Case] = [
    Case(name, function, tuple(inputs), 2e-4)
    for name, (function, *inputs) in {
        "einsum product": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), X, Y),
        "einsum outer": (lambda x, y: torch.einsum("bij,bkl->bijl", x, y), X, Y),
        "einsum sum": (lambda x: torch.einsum("bij->j", x), X),
        "einsum trace": (lambda x: torch.einsum("bii->b", x), _numbers(2, 5, 5)),
        "einsum attention": (lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k), IMAGE, IMAGE + 1),
        "einsum vector": (lambda x, y: torch.einsum("i,j->ij", x, y), _numbers(5), _numbers(7)),
        "tensordot": (lambda x, y: torch.tensordot(x, y, dims=([2], [1])), X, Y),
        "tensordot two": (lambda x, y: torch.tensordot(x, y, dims=2), X, _numbers(4, 6, 5)),
        "matmul": (lambda x, y: x.unsqueeze(1) @ y.unsqueeze(0), X, Y),
        "matmul vectors": (lambda x, y: (x @ y, y @ x.mT), X, _numbers(6)),
        "inner and outer": (lambda x, y: (torch.inner(x, x), torch.outer(x[0], y)), ROWS, Y[0, 0]),
        "kron": (torch.kron, _numbers(2, 3), _numbers(3, 2)),
        "multi_dot": (lambda x: torch.linalg.multi_dot([x, x.T, x]), ROWS),
        "chain_matmul": (lambda x, y: x.T @ (x @ y), ROWS, _numbers(8, 2)),
        "bilinear": (lambda x, y: F.bilinear(x, y, WEIGHT), ROWS, _numbers(3, 5)),
        "unfold": (lambda x: F.unfold(x, 3, padding=1), IMAGE),
        "fold": (lambda x: F.fold(x, (4, 4), 2, stride=2), _numbers(2, 12, 4)),
        "tensor unfold": (lambda x: x.unfold(-1, 3, 2), X),
        "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
        "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IMAGE),
        "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), IMAGE),
        "space to depth": (lambda x: x.unflatten(3, (-1, 2)).movedim(4, 1).flatten(1, 2), IMAGE),
        "cumsum": (lambda x: (x.cumsum(0), x.cumsum(-1)), X),
        "cumprod": (lambda x: (x.cumprod(1), x.cumprod(2)), X),
        "cummax": (lambda x: (*x.cummax(1), *x.cummin(2)), X),
        "logcumsumexp": (lambda x: x.logcumsumexp(-1), X),
        "cumulative trapezoid": (lambda x: torch.cumulative_trapezoid(x), X),
        "adaptive_max_pool2d": (
            lambda x: (F.adaptive_max_pool2d(x, 1), F.adaptive_max_pool2d(x, (2, 3))), IMAGE
        ),
        "adaptive_max_pool2d indices": (
            lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True), IMAGE
        ),
        "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3), X),
        "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 2), _numbers(1, 2, 4, 6, 5)),
        "adaptive_avg_pool": (
            lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, (3, 2))), IMAGE
        ),
        "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), X),
        "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 2), _numbers(1, 2, 4, 6, 5)),
        "max_pool with ceiling": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), IMAGE),
        "avg_pool with ceiling": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), IMAGE),
        "max_unpool": (
            lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), IMAGE
        ),
        "lp_pool": (lambda x: F.lp_pool2d(x, 2, 2), IMAGE.abs()),
        "interpolate nearest": (
            lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, scale_factor=0.5)), IMAGE
        ),
        "interpolate sizes": (lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), IMAGE),
        "interpolate bilinear": (lambda x: F.interpolate(x, None, 1.7, "bilinear"), IMAGE),
        "interpolate bicubic": (lambda x: F.interpolate(x, None, 2.0, "bicubic"), IMAGE),
        "interpolate area": (lambda x: F.interpolate(x, size=(3, 4), mode="area"), IMAGE),
        "interpolate linear": (lambda x: F.interpolate(x, None, 1.5, "linear"), X),
        "interpolate by fractions": (
            lambda x: [F.interpolate(x, None, f, "linear", a)
                       for f, a in ((1.3, None), (0.7, None), (1.3, True))], X
        ),
        "interpolate volumes by fractions": (
            lambda x: F.interpolate(x, None, 1.3, "trilinear"), _numbers(1, 2, 3, 4, 5)
        ),
        "interpolate trilinear": (
            lambda x: F.interpolate(x, None, 2.0, "trilinear"), _numbers(1, 2, 3, 4, 2)
        ),
        "interpolate to another": (
            lambda x, y: F.interpolate(x, y.shape[2:], mode="bilinear"), IMAGE, _numbers(1, 1, 5, 9)
        ),
        "grid_sample": (
            lambda x, g: F.grid_sample(x, g.tanh()), IMAGE, _numbers(2, 3, 5, 2)
        ),
        "affine_grid": (lambda x: F.affine_grid(x, (x.shape[0], 1, 4, 5)), _numbers(2, 2, 3)),
        "pads": (
            lambda x: [F.pad(x, (1, 2, 2, 1), m) for m in ("constant", "reflect", "replicate")],
            IMAGE,
        ),
        "pad circular": (lambda x: F.pad(x, (1, 2, 2, 1), "circular"), IMAGE),
        "sorts": (lambda x: (*x.sort(-1), *x.topk(2, -1), x.argsort(1)), X),
        "medians": (lambda x: (x.median(), *x.median(1), *x.kthvalue(2, -1)), X),
        "quantile": (lambda x: x.quantile(0.3, -1), X),
        "mode": (lambda x: x.round().mode(-1)[0], X),
        "arguments of extremes": (lambda x: (x.argmax(), x.argmin(1), x.argmax(-1, True)), X),
        "searches": (lambda x, v: torch.searchsorted(x.sort(-1)[0], v), ROWS, _numbers(3, 2)),
        "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])), X),
        "deviations": (lambda x: (x.std(), x.var(1), *torch.std_mean(x, -1)), X),
        "norms": (lambda x: (x.norm(), x.norm(dim=1), torch.linalg.norm(x, dim=(1, 2))), X),
        "normalize": (lambda x: (F.normalize(x, dim=1), F.layer_norm(x, x.shape[1:])), X),
        "losses": (
            lambda x, y: (F.mse_loss(x, y), F.huber_loss(x, y), F.l1_loss(x, y)), X, X * 2
        ),
        "cross_entropy": (lambda x: F.cross_entropy(x, torch.zeros_like(x[:, 0]).long()), ROWS),
        "distances": (lambda x, y: (torch.cdist(x, y), F.pairwise_distance(x, x + 1)), X, X * 2),
        "cosine_similarity": (lambda x: F.cosine_similarity(x, x + 1, dim=1), X),
        "rolls": (lambda x: (x.roll(2, 1), x.roll((1, -1), (0, 2)), x.flip(1), x.rot90()), X),
        "triangles": (lambda x: (x.tril(), x.triu(1), x.diagonal(0, 1, 2)), X),
        "diagonals": (lambda x: (torch.diag_embed(x), x[0].diag()), ROWS),
        "meshgrid": (
            lambda x, y: torch.meshgrid(x, y, indexing="ij"), _numbers(4), _numbers(5)
        ),
        "cartesian": (torch.cartesian_prod, _numbers(4), _numbers(5)),
        "ranges": (
            lambda x: (torch.arange(x.shape[1]) + x[0, :, 0], torch.linspace(0, 1, x.shape[2])), X
        ),
        "masks": (
            lambda x: x.masked_fill(torch.ones(x.shape[1], x.shape[1]).tril().bool()[:, :1], 0.0), X
        ),
        "eye": (lambda x: x @ torch.eye(x.shape[2]), X),
        "one_hot": (lambda x: F.one_hot(x, 12), IDS),
        "embedding": (lambda x: F.embedding(x, TABLE), IDS),
        "embedding_bag": (lambda x: F.embedding_bag(x, TABLE, mode="mean"), IDS),
        "gathers": (lambda x: (x.gather(1, x[:, :2].argsort(1)), x.take(IDS)), X),
        "scatters": (lambda x, y: x.scatter_add(1, (y > 0).long(), y), ROWS, ROWS * 2),
        "index_add": (lambda x: x.index_add(1, torch.tensor([0, 1]), x[:, :2]), X),
        "index_put": (lambda x: x.index_put((torch.tensor([0, 1]),), x[0] * 2), X),
        "repeats": (lambda x: (x.repeat(2, 1, 3), x.tile(2), x.repeat_interleave(2, 1)), X),
        "expansions": (lambda x: x[:, None].expand(-1, 3, -1, -1).reshape(-1, x.shape[2]), X),
        "merging": (lambda x: (x.flatten(), x.flatten(1), x.reshape(-1, x.shape[-1])), IMAGE),
        "splitting heads": (
            lambda x: x.view(x.shape[0], x.shape[1], 2, -1).transpose(1, 2).flatten(2), X
        ),
        "chunks": (lambda x: (*x.chunk(2, 1), *x.split([2, 4], 2)), X),
        "stacks": (lambda x: (torch.stack([x, x * 2], 1), torch.cat([x, x[:, :1]], 1)), X),
        "last": (lambda x: (x[:, -1], x[:, -2:], x[:, 1:-1], x[:, ::2], x[..., -3]), X),
        "block_diag": (lambda x: torch.block_diag(x, x), ROWS),
        "histc": (lambda x: x.histc(5, -2.0, 2.0), ROWS),
        "renorm": (lambda x: x.renorm(2, 0, 1.0), ROWS),
        "unbind": (lambda x: torch.stack(x.unbind(0), 1), X),
        "diff": (lambda x: (x.diff(), x.diff(n=2, dim=1)), X),
        "trapezoid": (torch.trapezoid, X),
        "vander": (lambda x: torch.vander(x, 3), _numbers(5)),
        "attention": (
            lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True), IMAGE, IMAGE + 1
        ),
        "convolutions": (
            lambda x: F.conv2d(x, WEIGHT[:, :4, :3, None], stride=2, padding=1), IMAGE
        ),
        "conv1d same": (lambda x: F.conv1d(x, WEIGHT[:, :4, :4], padding="same"), X),
        "conv_transpose": (lambda x: F.conv_transpose1d(x, WEIGHT[:, :2, :3], stride=2), X),
        "local_response_norm": (lambda x: F.local_response_norm(x, 3), IMAGE),
        "group_norm": (lambda x: (F.group_norm(x, 2), F.instance_norm(x)), IMAGE),
        "softmaxes": (lambda x: (x.softmax(1), x.log_softmax(-1), x.logsumexp((1, 2))), X),
        "glu": (lambda x: F.glu(x, -1), X),
    }.items()
]  # fmt: skip
