"""Kernels that eager has no counterpart for: random, in place, empty, of another namespace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kernel_harness import BFLOAT16, call

from penstock.runtime.kernels import registry
from penstock.runtime.kernels.registry import KernelError


def one(name: str, *args: Any, out: np.ndarray) -> np.ndarray:
    (result,) = call(name, args, [out], listed=False)
    return np.asarray(result)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16])
def test_rand(dtype: Any) -> None:
    out = np.zeros((200, 300), dtype)
    x = one("aten::rand.out", [200, 300], out=out).astype(dtype).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 0.01
    assert abs(x.var() - 1 / 12) < 0.005
    assert len(np.unique(x)) > 100


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_randn(dtype: Any) -> None:
    x = one("aten::randn.out", [200, 300], out=np.zeros((200, 300), dtype))
    assert x.shape == (200, 300)
    assert abs(x.mean()) < 0.03 and abs(x.std() - 1) < 0.03
    assert abs((x**3).mean()) < 0.1


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(p: float) -> None:
    x = np.random.default_rng(0).normal(5, 1, (200, 300)).astype(np.float32)
    outs = [np.zeros_like(x), np.zeros(x.shape, bool)]
    y, mask = call("aten::native_dropout.out", (x, p, True), outs, listed=False)
    assert abs(mask.mean() - (1 - p)) < 0.01
    scale = 1 / (1 - p) if p < 1 else 0
    np.testing.assert_allclose(y, np.where(mask, x * np.float32(scale), 0), rtol=1e-6)
    y, mask = call("aten::native_dropout.out", (x, p, False), outs, listed=False)
    assert mask.all() and np.array_equal(y, x)
    with pytest.raises(KernelError):
        call("aten::native_dropout.out", (x, 1.5, True), outs, listed=False)


def test_empty() -> None:
    out = np.ones((2, 3), np.float32)
    assert one("aten::empty.out", [2, 3], None, out=out).shape == (2, 3)
    assert one("dim_order_ops::_empty_dim_order.out", [2, 3], [0, 1], out=out).shape == (2, 3)


def test_copies_of_other_namespaces() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name, options in {
        "dim_order_ops::_to_dim_order_copy.out": (False, [0, 1]),
        "dim_order_ops::_clone_dim_order.out": (False, None),
        "et_copy::_h2d_copy.out": (),
        "et_copy::_d2h_copy.out": (),
    }.items():
        np.testing.assert_array_equal(one(name, x, *options, out=np.zeros_like(x)), x)


def test_padding_cannot_crop_more_than_there_is() -> None:
    x, out = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    for pad in ([-4, 5], [5, -4], [-2, -2], [-2, -2, 5, 5], [0, 0, -3, 4]):
        with pytest.raises(KernelError, match="crops more"):
            one("aten::constant_pad_nd.out", x, pad, 0, out=out)


def in_place(name: str, *args: Any) -> np.ndarray:
    found = registry.find(name)
    assert found is not None and found.in_place and found.outs == 0
    before, target = args[0].copy(), args[0].copy()
    result = np.asarray(found.function(target, *args[1:]))
    wanted = result if found.writes_itself else before
    np.testing.assert_array_equal(target, wanted, err_msg="what became of the first argument")
    return result


def test_copy_in_place() -> None:
    x, y = np.zeros((2, 3), np.float32), np.arange(3)
    np.testing.assert_array_equal(in_place("aten::copy_", x, y, False), [[0, 1, 2]] * 2)


def test_index_put_in_place() -> None:
    x = np.zeros((3, 2), np.float32)
    index = [np.array([0, 2, 2])]
    ones = np.ones(2, np.float32)
    put = in_place("aten::index_put_", x, index, ones, False)
    np.testing.assert_array_equal(put, [[1, 1], [0, 0], [1, 1]])
    added = in_place("aten::index_put_", x, index, ones, True)
    np.testing.assert_array_equal(added, [[1, 1], [0, 0], [2, 2]])


@pytest.mark.parametrize("index", [[1], [1, 2], [2, 0], [-1, -2], [1, 2, 3], []])
def test_index_put_of_rows(index: list[int]) -> None:
    """Rows in a row, out of order, from the end and none; the sources may lie in the target."""
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    rows = np.array(index, np.int64)
    values = -np.ones((2, len(index), 3), np.float32)
    wanted = torch.from_numpy(x.copy())
    wanted[:, torch.from_numpy(rows)] = torch.from_numpy(values)
    put = in_place("aten::index_put_", x, [None, rows], values, False)
    np.testing.assert_array_equal(put, wanted.numpy())
    found = registry.find("aten::index_put_")
    assert found is not None
    target = x.copy()
    found.function(target, [None, np.array([0, 1])], target[:, 1:3], False)
    np.testing.assert_array_equal(target[:, :2], x[:, 1:3])
    with pytest.raises((IndexError, ValueError)):
        found.function(x.copy(), [None, np.array([3, 4])], values[:, :1], False)


def test_hostile_arguments() -> None:
    """Damaged arguments raise, soon and within bounded memory."""
    if sys.platform != "linux":
        pytest.skip("the memory limit is Linux's")
    script = Path(__file__).with_name("hostile_arguments.py")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), "80", "1"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        cwd=script.parent,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines[-1:], done.stderr[-1000:])
    assert [line for line in lines if not line.startswith("#")] == []
