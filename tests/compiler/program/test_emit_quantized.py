"""Quantized kernels outside a delegate: the rewrite, and the operators' registration."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule

import penstock
from penstock.compiler.fx.quantized_kernels import packed, unpacked
from penstock.compiler.rewrite import fuse_quantized_kernels

q = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)
ROOT = Path(__file__).parents[3]


def graph(function: Callable[..., Any], *args: Any, **buffers: torch.Tensor) -> GraphModule:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in buffers.items():
                self.register_buffer(name, value)

        def forward(self, *inputs: torch.Tensor) -> Any:
            return function(self, *inputs)

    module = torch.export.export(Model(), args, strict=False).module(check_guards=False)
    assert isinstance(module, GraphModule)
    return module


def fused(
    function: Callable[..., Any], *args: Any, **buffers: torch.Tensor
) -> tuple[list[str], Any, Any]:
    """The operators after the rewrite, and the results before and after it."""
    module = graph(function, *args, **buffers)
    before = module(*args)
    fuse_quantized_kernels.apply(module)
    module.graph.lint()
    module.recompile()
    names = [node.target._schema.name for node in module.graph.nodes if node.op == "call_function"]
    return names, before, module(*args)


def quantize(x: Any, scale: float = 0.05, zero: int = 3) -> Any:
    return q.quantize_per_tensor.default(x, scale, zero, *INT8)


def dequantize(x: Any, scale: float = 0.05, zero: int = 3) -> Any:
    return q.dequantize_per_tensor.default(x, scale, zero, *INT8)


@pytest.mark.parametrize(
    "activation", [None, torch.relu, torch.nn.functional.relu6, lambda x: x.clamp(-0.7, 0.9)]
)
def test_add(activation: Any) -> None:
    """The same integers, on bytes."""

    def sum_of(_: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        total = dequantize(quantize(x)) + dequantize(quantize(y, 0.02, -7), 0.02, -7)
        total = total if activation is None else activation(total)
        return dequantize(quantize(total, 0.06, -1), 0.06, -1)

    torch.manual_seed(0)
    names, before, after = fused(sum_of, torch.randn(8, 9) * 3, torch.randn(8, 9) * 3)
    assert names == [
        "quantized_decomposed::quantize_per_tensor", "quantized_decomposed::quantize_per_tensor",
        "penstock::add", "quantized_decomposed::dequantize_per_tensor",
    ]  # fmt: skip
    # The kernel multiplies by the reciprocal of the scale: at ties it may be one step off.
    steps = torch.round((after - before).abs() / 0.06)
    assert steps.max() <= 1 and steps.mean() < 0.02


def test_add_with_broadcasting_stays() -> None:
    """The kernel takes equal shapes alone."""
    names, before, after = fused(
        lambda _, x, y: quantize(dequantize(quantize(x)) + dequantize(quantize(y))),
        torch.randn(4, 3), torch.randn(3),
    )  # fmt: skip
    assert "penstock::add" not in names
    assert torch.equal(before, after)


def test_add_whose_operand_is_an_output_stays() -> None:
    """Moving it to bytes would change what comes out."""

    def model(_: Any, x: torch.Tensor) -> Any:
        small = quantize(x)
        return small, quantize(dequantize(small) + dequantize(small))

    names, before, after = fused(model, torch.randn(4, 3))
    assert "penstock::add" not in names
    assert all(map(torch.equal, before, after))


def test_moves() -> None:
    """Moving integers is moving what they stand for."""
    names, before, after = fused(
        lambda _, x: quantize(dequantize(quantize(x)).permute(1, 0).reshape(2, 6).unsqueeze(0)),
        torch.randn(4, 3),
    )
    assert names.count("quantized_decomposed::dequantize_per_tensor") == 0
    assert names.count("quantized_decomposed::quantize_per_tensor") == 1
    assert torch.equal(before, after)


def test_moves_between_different_scales_stay() -> None:
    names, before, after = fused(
        lambda _, x: quantize(dequantize(quantize(x)).t(), 0.1), torch.randn(4, 3)
    )
    assert names.count("quantized_decomposed::quantize_per_tensor") == 2
    assert torch.equal(before, after)


@pytest.mark.parametrize("low,high", [(0.0, 6.0), (-0.33, 0.41)])
def test_clamp(low: float, high: float) -> None:
    names, before, after = fused(
        lambda _, x: quantize(x.sin().mul(9).clamp(low, high)), torch.randn(40, 30)
    )
    assert not any("clamp" in name for name in names)
    assert torch.equal(before, after)


def channels(axis: int, zero: int = 0) -> Callable[[Any], torch.Tensor]:
    return lambda m: q.dequantize_per_channel.default(m.w, m.s, m.z + zero, axis, *INT8)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    weight = torch.randint(-127, 128, (4, 6), dtype=torch.int8)

    def model(m: Any, x: torch.Tensor) -> torch.Tensor:
        w = q.dequantize_per_channel.default(m.w, m.s, m.z, 0, *INT8)
        return torch.nn.functional.linear(x, w, m.b if bias else None)

    names, before, after = fused(
        model, torch.randn(shape), w=weight, s=torch.rand(4) + 0.1,
        z=torch.zeros(4, dtype=torch.int64), b=torch.randn(4),
    )  # fmt: skip
    assert "penstock::mixed_linear" in names and "aten::linear" not in names
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-4)


def test_product() -> None:
    def model(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x @ q.dequantize_per_channel.default(m.w, m.s, m.z, 0, *INT8)

    names, before, after = fused(
        model, torch.randn(3, 6), w=torch.randint(-127, 128, (6, 4), dtype=torch.int8),
        s=torch.rand(6) + 0.1, z=torch.zeros(6, dtype=torch.int64),
    )  # fmt: skip
    assert names == ["penstock::mixed_mm"]
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-4)


def test_weights_with_zero_points_stay() -> None:
    def model(m: Any, x: torch.Tensor) -> torch.Tensor:
        w = q.dequantize_per_channel.default(m.w, m.s, m.z, 0, *INT8)
        return torch.nn.functional.linear(x, w)

    names, _, _ = fused(
        model, torch.randn(3, 6), w=torch.randint(-127, 128, (4, 6), dtype=torch.int8),
        s=torch.rand(4), z=torch.ones(4, dtype=torch.int64),
    )  # fmt: skip
    assert "aten::linear" in names


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", [0, 1])
def test_embedding(bits: int, zero: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def model(m: Any, ids: torch.Tensor) -> torch.Tensor:
        w = q.dequantize_per_channel.default(m.w, m.s, m.z, 0, low, high, torch.int8)
        return torch.nn.functional.embedding(ids, w)

    names, before, after = fused(
        model, torch.tensor([[1, 4, 0], [2, 2, 3]]),
        w=torch.randint(low, high + 1, (5, 8), dtype=torch.int8), s=torch.rand(5),
        z=torch.full((5,), zero),
    )  # fmt: skip
    assert names == [f"penstock::embedding_{'byte' if bits == 8 else f'{bits}bit'}"]
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("bits", [2, 4])
def test_packing(bits: int) -> None:
    weight = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (3, 8)).to(torch.int8)
    small = packed(weight, bits)
    assert small.dtype == torch.uint8 and small.shape == (3, bits)
    assert torch.equal(unpacked(small, bits), weight)


def test_weight_only_embedding_runs(tmp_path: Path) -> None:
    """A packed embedding's rows come out of the runtime as they do eagerly."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.randint(-8, 8, (9, 6)).to(torch.int8))
            self.register_buffer("s", torch.rand(9))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            w = q.dequantize_per_channel.default(self.w, self.s, None, 0, -8, 7, torch.int8)
            return torch.nn.functional.embedding(ids, w) * 2

    model, ids = Rows(), torch.tensor([3, 0, 8])
    lowered = penstock.lower(model, (ids,), delegate=False)
    operators = set(map(str, lowered.program.methods[0].operators))
    assert "quantized_decomposed::embedding_4bit.out" in operators
    (rows,) = penstock.load(lowered.to_bytes())(ids.numpy())
    torch.testing.assert_close(torch.from_numpy(rows), model(ids))


def operator_library() -> str:
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("executorch is not installed")
    found = list(Path(next(iter(spec.submodule_search_locations))).rglob("*quantized_ops_aot*.so"))
    if not found:
        pytest.skip("executorch has no quantized operator library here")
    return str(found[0])


SCRIPT = """
import sys, torch, penstock

class Add(torch.nn.Module):
    def forward(self, x, y):
        return x + y

def compile():
    lowered = penstock.lower(
        Add(), (torch.randn(3), torch.randn(3)), quantize="static", delegate=False
    )
    names = set(map(str, lowered.program.methods[0].operators))
    assert {"quantized_decomposed::add.out", "quantized_decomposed::quantize_per_tensor.out",
            "quantized_decomposed::dequantize_per_tensor.out"} == names, names

order, library = sys.argv[1:]
for step in order.split(","):
    if step == "load":
        torch.ops.load_library(library)
    else:
        compile()
print("fine")
"""


@pytest.mark.parametrize("order", ["load,compile", "compile,load,compile"])
def test_beside_the_stock_library(order: str) -> None:
    """The library that registers the out variants with PyTorch may come first, or last."""
    result = _run("-c", SCRIPT, order, operator_library())
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "fine"


EXAMPLE = ("-m", "examples.xnnpack.quantization.example")


def test_example(tmp_path: Path) -> None:
    """``--so_library`` loads the library; the program holds quantized kernels and no delegate."""
    library = operator_library()
    result = _run(*EXAMPLE, "--model_name", "add", "--so_library", library, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    program = penstock.load(tmp_path / "add_quantized.pte")
    assert list(program.methods) == ["forward"]
    assert b"quantized_decomposed::add" in (tmp_path / "add_quantized.pte").read_bytes()
    assert b"XnnpackBackend" not in (tmp_path / "add_quantized.pte").read_bytes()


def test_example_with_a_bad_library(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.so"
    wrong.write_bytes(b"no library")
    result = _run(*EXAMPLE, "--model_name", "add", "--so_library", str(wrong), cwd=tmp_path)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert "wrong.so" in line and "Traceback" not in line
    assert not list(tmp_path.glob("*.pte"))


def _run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
