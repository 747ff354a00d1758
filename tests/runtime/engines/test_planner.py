"""Graphs cut between engines: the same int8 bits, the same floats to rounding."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy_engine import NumpyEngine
from operator_cases import CASES
from operator_harness import as_module, captured_graph, one_piece, sqnr
from torch import nn

import penstock
from penstock import zoo
from penstock.formats.payload_reader import read_payload
from penstock.graph.checks import check_graph
from penstock.graph.graph import Node, XnnGraph
from penstock.runtime.engines.parts import cut
from penstock.runtime.engines.planner import compile_graph
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.zoo.model import ZooModel

XNNPACK = XnnpackEngine()


class Sometimes(XnnpackEngine):
    """XNNPACK again, which takes half of the nodes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.taken = 0

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        taken = random.Random(f"{self.seed} {node.outputs}").random() < 0.5
        self.taken += taken
        return None if taken else "the dice say so"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))
        return self.head(x[:, 1:] * 2 + x[:, :-1])


def answers(data: bytes, inputs: list[Any], *engines: Any) -> list[np.ndarray]:
    program = penstock.load(data, threads=1, engine=engines or "xnnpack")
    return program.method().run([np.asarray(x) for x in inputs])


@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
def test_cut_anywhere(scheme: str | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    data = penstock.lower(Block().eval(), (x,), quantize=scheme).to_bytes()
    (expected,) = answers(data, [x])
    for seed in range(12):
        again = Sometimes(seed)
        (found,) = answers(data, [x], again, XNNPACK)
        assert again.taken
        if scheme == "static":
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scheme", [None, "static"])
def test_another_engine(scheme: str | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    data = penstock.lower(Block().eval(), (x,), quantize=scheme).to_bytes()
    (expected,) = answers(data, [x])
    compiled = 0
    for seed in range(8):
        engine = NumpyEngine(0.7, seed)
        (found,) = answers(data, [x], engine, XNNPACK)
        compiled += engine.compiled
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert compiled >= 8


def test_sizes_that_change() -> None:
    batch = torch.export.Dim("batch", min=1, max=5)
    lowered = penstock.lower(
        Block().eval(), (torch.randn(2, 3, 8, 8),), dynamic_shapes={"x": {0: batch}}
    )
    data = lowered.to_bytes()
    program = penstock.load(data, threads=1, engine=[NumpyEngine(0.6, 3), XNNPACK])
    whole = penstock.load(data, threads=1)
    for size in (2, 5, 1, 4, 3):
        x = np.random.default_rng(size).standard_normal((size, 3, 8, 8)).astype(np.float32)
        np.testing.assert_allclose(program(x)[0], whole(x)[0], atol=1e-4)


@pytest.mark.parametrize("case", CASES[::9], ids=[case.entry for case in CASES[::9]])
def test_every_operator(case: Any) -> None:
    captured = captured_graph(as_module(case.function), case.inputs)
    graph = one_piece(captured).graph
    rng = random.Random(case.entry)
    parts = cut(graph, [rng.randrange(3) for _ in graph.nodes])
    assert {p.engine for p in parts} <= {0, 1, 2} and sum(len(p.graph.nodes) for p in parts) >= len(
        graph.nodes
    )
    for part in parts:
        check_graph(part.graph)


def test_one_engine_gets_the_graph_itself() -> None:
    x = torch.randn(1, 4)
    lowered = penstock.lower(nn.Linear(4, 4), (x,))
    delegate = lowered.program.method("forward").delegates[0]  # type: ignore[union-attr]
    graph = read_payload(delegate.payload, lowered.program.named_data)
    assert type(compile_graph(graph, [XNNPACK], threads=Threads(1))).__name__ == "XnnpackExecutable"
    refused = NumpyEngine(0.0, 0)
    executable = compile_graph(graph, [refused, XNNPACK], threads=Threads(1))
    assert type(executable).__name__ == "XnnpackExecutable" and not refused.compiled


def test_unknown_engines() -> None:
    with pytest.raises(penstock.InputError, match="engine is 'cuda'; choose 'auto' or 'xnnpack'"):
        penstock.load(b"x", engine="cuda")


def leaves(call: Any, model: ZooModel) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = call(*model.args, **model.kwargs)
    return [np.asarray(leaf) for leaf in torch.utils._pytree.tree_leaves(outputs)]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
@pytest.mark.parametrize("quantized", [False, True])
def test_the_zoo(name: str, quantized: bool) -> None:
    """Cut between two engines with the same kernels: the same int8 bits, the same floats to
    rounding. With NumPy among them floats differ before they are quantized, and some are rounded
    to the integer beside: there the answer is as near to eager as the whole's."""
    model = zoo.create(name)
    scheme = model.quantization if quantized else None
    data = penstock.lower(
        model.module, model.args, model.kwargs, dynamic_shapes=model.dynamic_shapes, quantize=scheme
    ).to_bytes()
    whole, same, other = (
        leaves(penstock.load(data, threads=1, engine=engine), model)
        for engine in (
            "xnnpack", [Sometimes(2), XNNPACK], [NumpyEngine(0.4, 1), Sometimes(2), XNNPACK],
        )
    )  # fmt: skip
    eager = leaves(model.module, model)
    for a, b, c, exact in zip(whole, same, other, eager, strict=True):
        largest = max(1e-3, float(np.abs(a).max()))
        np.testing.assert_allclose(b, a, rtol=0, atol=0 if quantized else 1e-5 * largest)
        if not quantized:
            np.testing.assert_allclose(c, a, rtol=0, atol=1e-3 * largest)
        else:
            assert sqnr(c, exact) > sqnr(a, exact) - 1
