"""Profiles: every instruction and node is counted, and the times are those of its runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from method_harness import make, tensor

from penstock.errors import InputError
from penstock.formats.payload_reader import read_payload
from penstock.formats.sources import MethodSources
from penstock.graph.graph import Node
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.xnnpack.node_times import nodes_of
from penstock.runtime.instructions import bind
from penstock.runtime.profile import Recorder
from penstock.runtime.program import LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"


def called(program: LoadedProgram, times: int) -> None:
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    for _ in range(times):
        program.method().run(inputs)


@pytest.mark.parametrize("name", ["image_fp32", "image_q8", "partly", "rows_inline"])
def test_each_node_is_counted_once_a_call(name: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, profile=True)
    called(program, 3)
    profile = program.profile()
    assert profile.calls == 3 and profile.method == "forward"
    method = program.program.method("forward")
    assert method is not None and len(profile.instructions) == len(method.instructions)
    assert all(one.calls == 3 and one.seconds > 0 for one in profile.instructions)
    delegates = [one for one in profile.instructions if one.label.startswith("delegate")]
    assert delegates
    for one, delegate in zip(delegates, method.delegates, strict=True):
        graph = read_payload(delegate.payload, program.program.named_data)
        assert one.nodes and all(node.calls == 3 for node in one.nodes)
        for node in one.nodes:
            assert node.position >= 0 and node.kind == graph.nodes[node.position].kind.name
        assert len({node.position for node in one.nodes}) == len(one.nodes)
        assert sum(node.seconds for node in one.nodes) <= one.seconds + 1e-3
    assert str(profile).startswith("forward: 3 calls, ")


def test_reset_and_unasked() -> None:
    program = load(STOCK / "rows_inline.pte", threads=1, profile=True)
    called(program, 2)
    assert program.profile(reset=True).calls == 2
    assert program.profile().calls == 0
    called(program, 1)
    assert program.profile().calls == 1
    with pytest.raises(InputError, match="load it with profile=True"):
        load(STOCK / "rows_inline.pte").profile()


def test_the_recorder_adds_what_the_clock_says() -> None:
    method = make([tensor(2), tensor(2)], [0], [1], [("test::same.out", 0, 1, 1)]).program.methods[
        0
    ]
    bound = [bind(method, one, ["test"], []) for one in method.instructions]
    ticks = iter([0, 5_000, 6_000, 10_000, 17_000, 19_000])
    recorder = Recorder(bound, clock=lambda: next(ticks))
    step = recorder.timed(lambda: None, 0)
    step()
    step()
    profile = recorder.profile("forward", MethodSources())
    (one,) = profile.instructions
    assert one.calls == 2 and one.seconds == pytest.approx(12e-6)
    assert profile.measuring == pytest.approx(3e-6)


@pytest.mark.parametrize(
    "kinds, clamped, names, expected",
    [
        ("CONV_2D ADD", "", "Fully Connected (NC)|Add (ND)", [0, 1]),
        ("CONV_2D ADD CONV_2D", "ADD", "Convolution|Add (ND)|Clamp (NC)|Convolution", [0, 1, 1, 2]),
        ("CONVERT FULLY_CONNECTED", "", "Fully Connected (NC, QP8)", [1]),
        ("CONVERT FULLY_CONNECTED " * 2, "", "Fully Connected (NC)|Fully Connected (NC)", [1, 3]),
        ("CONVERT ADD MULTIPLY CONVERT MULTIPLY", "", "Invalid Unary Op|Multiply (ND)", [3, 4]),
        ("CONCATENATE_2 ABS", "", "Copy (NC)|Copy (NC)|Abs (NC)", [0, 0, 1]),
        ("ABS", "", "Something new|Abs (NC)", [None, 0]),
    ],
)
def test_operators_find_their_nodes(
    kinds: str, clamped: str, names: str, expected: list[int | None]
) -> None:
    nodes = [
        Node(NodeKind[kind], (0,), (1,), clamp=(0.0, 1.0) if kind == clamped else None)
        for kind in kinds.split()
    ]
    assert nodes_of(names.split("|"), nodes) == expected
