"""Branches and loops: what becomes of their graphs, their constants and their memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.fx.control_flow import all_graphs, bodies, operands
from penstock.compiler.rewrite import pipelines
from penstock.formats import program as pte
from penstock.formats.payload_reader import read_payload


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Branches(nn.Module):
    """Two branches of one layer and an activation, and a layer before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return torch.cond(
            h.sum() > 0, lambda h: self.b(h).relu(), lambda h: self.b(self.a(h)).tanh(), (h,)
        )


def method(lowered: Any) -> pte.Method:
    (found,) = lowered.program.methods
    return found  # type: ignore[no-any-return]


def test_each_branch_is_a_delegate() -> None:
    lowered = penstock.lower(Branches(), (torch.randn(2, 64),))
    assert len(lowered.delegation.subgraphs) == 3
    assert {node.target for node, _ in lowered.delegation.undelegated} == {"aten.gt.Scalar"}
    jumps = [one for one in method(lowered).instructions if isinstance(one, pte.JumpFalseCall)]
    calls = [one for one in method(lowered).instructions if isinstance(one, pte.DelegateCall)]
    assert len(jumps) == 2 and len(calls) == 3
    copies = {str(operator) for operator in method(lowered).operators} & {"aten::clone.out"}
    assert not copies, "a branch makes its result where it belongs"


def test_weights_are_constants_of_the_branches_and_in_the_file_once() -> None:
    lowered = penstock.lower(Branches(), (torch.randn(2, 64),))
    for delegate in method(lowered).delegates:
        graph = read_payload(delegate.payload, lowered.program.named_data)
        assert len(graph.inputs) == 1
    assert len(lowered.to_bytes()) < 2.5 * 64 * 64 * 4


def test_operands_that_are_constants_are_none_afterwards() -> None:
    model, x = Branches(), torch.randn(2, 64)
    module = capture(model, (x,)).module
    (before,) = (n for n in module.graph.nodes if n.target is torch.ops.higher_order.cond)
    assert len(operands(before).shared) == 5
    pipelines.run(module)
    (node,) = (n for n in module.graph.nodes if n.target is torch.ops.higher_order.cond)
    assert len(operands(node).shared) == 1
    for body in bodies(module):
        assert [n.op for n in body.graph.nodes].count("placeholder") == 1
    assert len(list(all_graphs(module))) == 3
    module.recompile()
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))


def test_what_a_loop_reads_is_not_overwritten() -> None:
    """``h`` is made before the loop and read in each run, also after larger values within."""

    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Any:
            h = torch.cumsum(x, 1)

            def body(i: Tensor, y: Tensor) -> Any:
                z = torch.cumsum(y + h, 1)
                wide = torch.cat([z, z, z, z], 1)
                return i + 1, torch.cumsum(wide, 1)[:, :8] * 0.1

            return while_loop(lambda i, y: i < 5, body, (torch.tensor(0), x))

    lowered = penstock.lower(Loop(), (torch.randn(2, 8),), delegate=False)
    plan = method(lowered)
    (loop,) = (i for i, one in enumerate(plan.instructions)
               if isinstance(one, pte.JumpFalseCall) and one.destination <= i)  # fmt: skip
    assert loop > 0
    program = penstock.load(lowered.to_bytes())
    for _ in range(3):
        x = torch.randn(2, 8)
        steps, y = program(x)
        expected = Loop()(x)
        assert steps == expected[0] == 5
        np.testing.assert_allclose(y, expected[1], rtol=1e-4, atol=1e-5)


def test_loops_of_no_rows() -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return scan(lambda c, y: (c + y, c * y), torch.ones(3), x)

    example = (torch.randn(4, 3),)
    lowered = penstock.lower(Rows(), example, dynamic_shapes={"x": {0: Dim("rows", min=0, max=6)}})
    program = penstock.load(lowered.to_bytes())
    for rows in (6, 0, 2, 0):
        x = torch.randn(rows, 3)
        carry, stacked = program(x)
        assert stacked.shape == (rows, 3)
        if rows:
            expected = Rows()(x)
            np.testing.assert_allclose(carry, expected[0], rtol=1e-5)
            np.testing.assert_allclose(stacked, expected[1], rtol=1e-5)
        else:
            np.testing.assert_array_equal(carry, np.ones(3))


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_int8_around_branches(scheme: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.branches, self.after = nn.Linear(64, 64), Branches(), nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.branches(self.before(x)))

    model = Model().eval()
    data = [(torch.randn(4, 64),) for _ in range(4)]
    lowered = penstock.lower(
        model, data[0], quantize=scheme, calibration=data if scheme == "static" else None
    )
    report = str(lowered.quantization)
    assert "branches and loops stay in float" in report and "getitem" not in report
    program = penstock.load(lowered.to_bytes())
    for (x,) in data:
        with torch.no_grad():
            expected = model(x).numpy()
        (found,) = program(x)
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_16_bit_floats_in_branches() -> None:
    model = Branches().half()
    x = torch.randn(2, 64).half()
    program = penstock.load(penstock.lower(model, (x,)).to_bytes())
    for one in (x, -x):
        with torch.no_grad():
            expected = model(one).numpy()
        (found,) = program(one)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_one_model_does_not_depend_on_another_before_it() -> None:
    """TorchDynamo keeps what it traced, and compares sizes with it."""

    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return scan(lambda c, y: (c + y, c * y), torch.zeros_like(x[0]), x)

    shapes = {"x": {0: Dim("rows", min=2, max=9), 1: Dim("columns", min=2, max=7)}}
    for columns in (4, 3, 5, 6, 4):
        penstock.lower(Rows(), (torch.randn(5, columns),))
        penstock.lower(Rows(), (torch.randn(5, columns),), dynamic_shapes=shapes)
