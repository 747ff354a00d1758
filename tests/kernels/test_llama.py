"""The stock flow's language operators: its files run here, with its own runtime's answers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.runtime.kernels import registry

ROWS, HEADS, SHARED, SIZE = 24, 6, 2, 8
#: (count of rows, position) of each call
CALLS = ((5, 0), (1, 5), (1, 6), (4, 7), (1, 11), (3, 4), (1, 7))

#: Compiles modules with the stock flow, and runs them on its runtime.
STOCK = """
import pickle, sys
import torch
import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized
from executorch.exir import EdgeCompileConfig, to_edge
from executorch.runtime import Runtime

folder, ROWS, HEADS, SHARED, SIZE = sys.argv[1], *map(int, sys.argv[2:])

class Attention(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, ROWS, SHARED, SIZE))

    def forward(self, q, k, v, position, mask):
        start = position[0].item()
        torch._check(start >= 0)
        torch._check(start < ROWS)
        llama = torch.ops.llama
        if self.kind == "indices":
            places = (position + torch.arange(q.shape[1])).reshape(1, -1)
            llama.update_cache_with_indices(k, self.keys, start, places)
            llama.update_cache_with_indices(v, self.values, start, places)
            return llama.custom_sdpa(q, self.keys, self.values, start, mask, 0.0, False)
        if self.kind == "both":
            return llama.sdpa_with_kv_cache(
                q, k, v, self.keys, self.values, start, q.shape[1], None, 0.0, True, 0.4)
        llama.update_cache(k, self.keys, start)
        llama.update_cache(v, self.values, start)
        causal = self.kind == "causal"
        mask = None if causal else mask
        return llama.custom_sdpa(q, self.keys, self.values, start, mask, 0.0, causal)

for kind in ("causal", "masked", "indices", "both"):
    calls = pickle.load(open(f"{folder}/calls.pkl", "rb"))
    count = torch.export.Dim("count", min=1, max=8)
    example = tuple(map(torch.from_numpy, calls[0]))
    dims = tuple({} if i == 3 else {0 if i == 4 else 1: count} for i in range(5))
    program = torch.export.export(Attention(kind).eval(), example, dynamic_shapes=dims, strict=True)
    edge = to_edge(program, compile_config=EdgeCompileConfig(_check_ir_validity=False))
    path = f"{folder}/{kind}.pte"
    open(path, "wb").write(edge.to_executorch().buffer)
    method = Runtime.get().load_program(path).load_method("forward")
    found = [method.execute(list(map(torch.from_numpy, call)))[0].numpy().copy() for call in calls]
    pickle.dump(found, open(f"{folder}/{kind}.out.pkl", "wb"))
"""


def calls() -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    made = []
    for count, start in CALLS:
        q, k, v = (
            random.normal(size=(1, count, heads, SIZE)).astype(np.float32)
            for heads in (HEADS, SHARED, SHARED)
        )
        seen = np.arange(ROWS)[None] <= start + np.arange(count)[:, None]
        mask = np.where(seen, 0, -np.inf).astype(np.float32)
        made.append([q, k, v, np.array([start]), mask])
    return made


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "calls.pkl").write_bytes(pickle.dumps(calls()))
    sizes = map(str, (ROWS, HEADS, SHARED, SIZE))
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder), *sizes],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("kind", ["causal", "masked", "indices", "both"])
def test_stock_files_give_the_stock_runtimes_answers(kind: str, stock: Path) -> None:
    program = penstock.load(stock / f"{kind}.pte")
    theirs = pickle.loads((stock / f"{kind}.out.pkl").read_bytes())
    for call, wanted in zip(calls(), theirs, strict=True):
        (found,) = program(*call)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def _cache() -> np.ndarray:
    return np.zeros((1, 4, 2, 8), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("update_cache", [np.ones((1, 2, 2, 8), np.float32), _cache(), 3]),
        ("update_cache", [np.ones((1, 2, 2, 8), np.float32), _cache(), -1]),
        ("update_cache", [np.ones((1, 2, 3, 8), np.float32), _cache(), 0]),
        ("update_cache", [np.ones((2, 8), np.float32), _cache(), 0]),
        ("update_cache_with_indices",
         [np.ones((1, 1, 2, 8), np.float32), _cache(), 0, np.array([[4]])]),
        ("custom_sdpa", [np.ones((1, 1, 3, 8), np.float32), _cache(), _cache(), 0, *[None] * 4]),
        ("custom_sdpa", [np.ones((1, 1, 2, 8), np.float32), _cache(), _cache(), 4, *[None] * 4]),
        ("custom_sdpa", [np.ones((2, 8), np.float32), _cache(), _cache(), 0, *[None] * 4]),
        ("custom_sdpa", [np.ones((1, 1, 2, 8), np.float32), _cache(), _cache(), 0,
                         np.zeros((1, 3), np.float32), 0.0, False, None]),
    ],
)  # fmt: skip
def test_what_makes_no_sense(name: str, arguments: list[Any]) -> None:
    found = registry.find(f"llama::{name}.out")
    assert found is not None
    with pytest.raises(registry.KernelError):
        found.function(*arguments, np.zeros((1, 1, 2, 8), np.float32))
