"""Every function of sizes and of numbers out of tensors, over a range of values: Python's answer on
our runtime and on the stock one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

import penstock
from penstock.compiler.fx.size_arithmetic import COMPOSED, PRIMITIVES
from penstock.errors import UnsupportedError
from penstock.formats.kernel_names import stock_kernels
from penstock.runtime.kernels import registry

ite: Any = torch.sym_ite

#: Of an integer, which may be negative, and of a size n, which is not.
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add, sub, mul, neg": lambda k, n: -(3 * k - 7) + n,
    "pos": lambda k, n: +k,
    "floordiv": lambda k, n: (k // 4, (-k) // 3, k // -3, (4 * n + k) // n, 60 // n),
    "mod": lambda k, n: (k % 8, (-k) % 8, k % -5, (5 - k) % 3, 100 % n, k % n),
    "truediv": lambda k, n: (k / 4, k / -3, (k - 0.5) / n),
    "sum": lambda k, n: torch.sym_sum([k, n, k, 3]),
    "ceil": lambda k, n: (math.ceil(k / 4), math.ceil(k * -0.7), math.ceil(n)),
    "floor": lambda k, n: (math.floor(k / 3), math.floor(k * -0.7), math.floor(n * 2.5 + 0.1)),
    "trunc": lambda k, n: (math.trunc(k * -0.5), torch.sym_int(k * 0.3), torch.sym_int(n / 2)),
    "round": lambda k, n: (round(k / 2), round(k * -0.5), round(n * 0.3)),
    "pow": lambda k, n: (k**2, k**5, n**7, 2 ** (n // 4)),
    "sqrt": lambda k, n: (torch.sym_sqrt(n), torch.sym_int(torch.sym_sqrt(n) * 10)),
    "abs": lambda k, n: (abs(k), abs(k * 0.5 - 1.2)),
    "max": lambda k, n: (max(n, 6), torch.sym_max(k, 3), torch.sym_max(k * 0.5, k * 0.25)),
    "min": lambda k, n: (min(n, 6), torch.sym_min(k, 3), torch.sym_min(k * 0.5, 3.2)),
    "clamp": lambda k, n: torch.sym_max(torch.sym_min(k, 9), -4) * 2 - n // 2 % 3,
    "float mod": lambda k, n: ((k * 0.5) % 0.7, (k * 0.5) % -0.7),
    "float floordiv": lambda k, n: (k * 0.5) // 0.75,
    "order of floats": lambda k, n: k * 0.1 * 3.0,
    "bits": lambda k, n: (n & 3, n | 8, n << 2, (n + 5) >> 1),
    "comparisons": lambda k, n: tuple(
        ite(test, n, n - 100) for test in (k > 6, k >= 6, k < 6, k <= 6, k == 6, k != 6)
    ),
    "truth values": lambda k, n: tuple(
        ite(test, n, n * 2)
        for test in (
            torch.sym_not(k > 6), (k > 6) & (k < 12), (k > 12) | (n < 5), (k > 6) == (n < 12)
        )
    ),
    "ite": lambda k, n: (ite(k > 3, k, n), ite(k > 3, k * 0.5, n / 7)),
}  # fmt: skip


class Numbers(nn.Module):
    """All functions, of the size of ``x`` and of the number in ``k``."""

    def forward(self, x: torch.Tensor, k: torch.Tensor) -> dict[str, Any]:
        number, size = k.item(), x.shape[0]
        given = {"": (number, size), " of a size": (size - 9, size)}
        return {
            name + kind: [torch.full((1,), one) for one in _several(function(*operands))]
            for name, function in FUNCTIONS.items()
            for kind, operands in given.items()
        }


def _several(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


#: Runs a program on the inputs of several files: NUMBER.npz gives NUMBER.out.npz.
STOCK = """
import pathlib, sys
import numpy as np, torch
from executorch.runtime import Runtime
folder = pathlib.Path(sys.argv[1])
method = Runtime.get().load_program(folder / "model.pte").load_method("forward")
for path in sorted(folder.glob("*.in.npz")):
    tensors = [torch.from_numpy(array) for array in np.load(path).values()]
    outputs = method.execute(tensors)
    np.savez(folder / path.name.replace(".in", ".out"), *[o.numpy() for o in outputs])
"""


def on_stock(program: bytes, calls: list[list[np.ndarray]], folder: Path) -> list[list[np.ndarray]]:
    """What the stock runtime answers to each call."""
    (folder / "model.pte").write_bytes(program)
    for number, arrays in enumerate(calls):
        np.savez(folder / f"{number}.in.npz", *arrays)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, str(folder)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    return [list(np.load(folder / f"{n}.out.npz").values()) for n in range(len(calls))]


def test_both_runtimes_compute_what_python_does(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    sizes = {"x": {0: Dim("n", min=2, max=40)}, "k": None}
    model = Numbers()
    lowered = penstock.lower(
        model, (torch.randn(12), torch.tensor(5)), dynamic_shapes=sizes
    ).to_bytes()
    program = penstock.load(lowered)
    calls = [
        [np.zeros(n, np.float32), np.array(k)]
        for n, k in zip([*range(2, 25), 31, 40], range(-12, 13), strict=True)
    ]
    theirs = on_stock(lowered, calls, tmp_path)
    for arrays, stock in zip(calls, theirs, strict=True):
        expected = model(*map(torch.from_numpy, arrays))
        ours = program(*arrays)
        assert isinstance(ours, dict)
        flat = iter(stock)
        for name, wanted in expected.items():
            for one, other in zip(wanted, ours[name], strict=True):
                text = f"{name}, n = {arrays[0].size}, k = {arrays[1]}"
                np.testing.assert_array_equal(other, one.numpy(), err_msg=text, strict=True)
                np.testing.assert_array_equal(next(flat), one.numpy(), err_msg=f"stock: {text}")


def test_primitives_are_those_of_both_runtimes() -> None:
    for name in PRIMITIVES.values():
        assert f"executorch_prim::{name}.Scalar" in stock_kernels()
        assert registry.find(f"executorch_prim::{name}.Scalar") is not None


def test_all_that_torch_export_lets_through_is_computed() -> None:
    from torch.fx.experimental.sym_node import METHOD_TO_OPERATOR

    allowed = {function for name, function in METHOD_TO_OPERATOR.items() if name != "is_integer"}
    never = {f"_sym_{name}" for name in ("cos", "cosh", "sin", "sinh", "tan", "tanh", "asin",
                                         "acos", "atan", "log2")} | {"xor"}  # fmt: skip
    missing = {f.__name__ for f in allowed if f not in COMPOSED and f not in PRIMITIVES}
    assert missing == never  # torch.export refuses these itself


class Digits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((2,), round(x.shape[0] / 7, 1))


def test_what_is_not_computed_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedError, match=r"round.*whole numbers.*test_size_arithmetic.py"):
        penstock.lower(Digits(), (torch.randn(12),), dynamic_shapes=({0: Dim("n", max=40)},))


class Shapes(nn.Module):
    """Sizes of results: padded up to a multiple, by a ceiling, cut to one, halved."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[1]
        padded = F.pad(x, (0, (-n) % 8))
        up = F.pad(x.relu(), (0, math.ceil(n / 4) * 4 - n))
        cut = x[:, : n - n % 3].exp()
        return padded, up * 2, cut, x.new_zeros(round(n * 0.5))


class Halved(nn.Module):
    """A view by a size that the model computes from what a strided layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x)
        z = x[:, :, ::2]
        half = y.shape[2] // 2
        return y.view(y.shape[0], 4, half, 2), z.reshape(3, z.shape[2] // 2, 2), x[..., :half]


@pytest.mark.parametrize(
    ("model", "shape", "sizes", "counts"),
    [
        (Shapes(), lambda n: (1, n), {1: Dim("n", min=4, max=40)}, (4, 5, 7, 8, 9, 23, 40)),
        (Halved(), lambda n: (1, 3, n), {2: 4 * Dim("k", min=2, max=8)}, (8, 12, 20, 32)),
    ],
    ids=["multiples", "halves"],
)
def test_sizes_of_results(
    model: nn.Module, shape: Any, sizes: Any, counts: tuple[int, ...], tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    lowered = penstock.lower(model, (torch.randn(shape(16)),), dynamic_shapes=(sizes,)).to_bytes()
    program = penstock.load(lowered)
    inputs = [torch.randn(shape(count)) for count in counts]
    theirs = on_stock(lowered, [[x.numpy()] for x in inputs], tmp_path)
    for x, stock in zip(inputs, theirs, strict=True):
        with torch.no_grad():
            expected = model(x)
        for wanted, ours, other in zip(expected, program(x), stock, strict=True):
            assert ours.shape == other.shape == tuple(wanted.shape)
            np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(other, wanted.numpy(), rtol=1e-5, atol=1e-6)
