"""What is said of a program: of the stock compiler's, of our own, of programs made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import penstock
from penstock.errors import InputError
from penstock.formats.program import (
    Allocation,
    Delegate,
    DelegateCall,
    JumpFalseCall,
    KernelCall,
    Method,
    Operator,
    Program,
    ScalarType,
    Tensor,
)
from penstock.pages import plain
from penstock.runtime import load
from penstock.tools.describe import ProgramDescription, describe
from penstock.tools.describe.drawing import Drawing, draw
from penstock.tools.describe.page import page_data
from penstock.tools.describe.timings import read_timings

STOCK = Path(__file__).parents[2] / "formats" / "stock"


def described(name: str, *data: str) -> ProgramDescription:
    files = [STOCK / one for one in data]
    return describe(load(STOCK / f"{name}.pte", data=files).program, name)


def check_drawing(drawing: Drawing) -> None:
    """Each edge is between boxes, and leads on, unless a jump leads back."""
    place = {node.id: index for index, node in enumerate(drawing.nodes)}
    assert len(place) == len(drawing.nodes)
    assert drawing.edges
    for edge in drawing.edges:
        assert edge.start in place and edge.end in place
        assert edge.jump or place[edge.start] < place[edge.end]


@pytest.mark.parametrize("path", sorted(STOCK.rglob("*.pte")), ids=lambda path: path.stem)
def test_any_stock_file(path: Path) -> None:
    data = sorted(path.parent.glob(f"{path.stem}.ptd"))
    found = describe(load(path, data=data).program)
    json.dumps(plain(found.as_dict()), allow_nan=False)
    json.dumps(plain(page_data(found)), allow_nan=False)
    for method in found.methods:
        assert method.memory.peak <= sum(method.memory.sizes)
        assert all(v.offset + v.bytes <= method.memory.sizes[v.memory - 1]
                   for v in method.memory.values)  # fmt: skip
        for delegate in method.delegates:
            assert delegate.is_open and sum(delegate.kinds.values()) == len(delegate.nodes) > 0
        if method.instructions:
            check_drawing(draw(method))


def test_quantized_delegates() -> None:
    (method,) = described("image_q8").methods
    assert (method.delegation.delegated, method.delegation.outside) == (11, 1)
    assert method.delegation.share == 11 / 12
    first = method.delegates[0]
    values = {value.id: value for value in first.values}
    (convolution,) = (node for node in first.nodes if node.kind == "conv_2d")
    image, weight, bias = (values[i].quantization for i in convolution.inputs)
    (output,) = (values[i].quantization for i in convolution.outputs)
    assert image is not None and output is not None and image.kind == output.kind == "per tensor"
    assert image.least > 0 and -128 <= image.zero_point < 128
    assert weight is not None and bias is not None
    assert weight.kind == "per channel" and len(weight.scales) == weight.count
    assert weight.least == min(weight.scales) and weight.largest == max(weight.scales)
    # As XNNPACK's rule of int8 convolutions is.
    assert np.allclose(bias.scales, np.array(weight.scales) * image.least)
    assert convolution.engine in ("xnnpack", "native")


def test_quantization_of_the_methods_tensors() -> None:
    """By the arguments of the kernels that quantize."""
    program = load(STOCK / "add_q8_undelegated.pte").program
    (method,) = describe(program).methods
    quantize = method.instructions[0]
    assert quantize.label == "quantized_decomposed::quantize_per_tensor.out"
    found = method.values[quantize.outputs[0]].quantization
    raw = program.methods[0].values
    assert found is not None
    assert (found.least, found.zero_point) == (raw[quantize.inputs[1]], raw[quantize.inputs[2]])
    assert method.values[quantize.inputs[0]].quantization is None


def test_dynamic_bounds() -> None:
    (method,) = described("rows_dynamic_q8").methods
    (rows,) = (method.values[number] for number in method.inputs)
    assert (rows.dynamic, rows.shape, rows.text) == (True, (10, 16), "float [10, 16] at most")


def test_states_live_all_the_time() -> None:
    (method,) = described("mutable").methods
    states = {value.id for value in method.values if value.kind == "state"}
    assert states == {2, 3}
    last = len(method.instructions) - 1
    ranges = {(v.first, v.last) for v in method.memory.values if v.value in states}
    assert ranges == {(0, last)}
    # Views count once: more than the memory has is never live.
    assert method.memory.peak == sum(method.memory.sizes)


def test_data_files() -> None:
    with_data = described("external/partly", "external/partly.ptd")
    assert with_data.methods[0].delegation.share == 0.4
    assert {c.dtype for c in with_data.constants} == {"float", "fp32"}
    without = described("external/partly").methods[0]
    assert without.delegation.share is None and without.delegation.unknown == 2
    assert all("data file" in delegate.error for delegate in without.delegates)
    check_drawing(draw(without))


def test_constants_that_are_not_in_the_file(own: ProgramDescription) -> None:
    program = load(STOCK / "external" / "partly.pte").program
    assert describe(program, "p", 10).size.endswith("of constants, also in data files")
    assert not own.data_files and own.size.endswith("of them constants")
    assert describe(program, "p", 10, data_files=True).as_dict()["data_files"]


def floats(offset: int | None = None, data: bytes | None = None) -> Tensor:
    place = None if offset is None else Allocation(1, offset)
    return Tensor(ScalarType.FLOAT, (4,), allocation=place, data=data)


def program(values: list[Tensor], instructions: list[object], **rest: object) -> Program:
    method = Method("forward", values, [0], [len(values) - 1], instructions, **rest)  # type: ignore[arg-type]
    return Program([method])


def test_other_backends() -> None:
    """Which arguments are outputs is seen by who writes what; what is inside is not."""
    found = describe(
        program(
            [floats(0), floats(data=bytes(16)), floats(16), floats(32)],
            [DelegateCall(0, (0, 1, 2)), DelegateCall(1, (2, 3))],
            delegates=[Delegate("Other", b"12345"), Delegate("Another", b"")],
            memory_sizes=[0, 48],
        )
    )
    (method,) = found.methods
    assert [one.inputs for one in method.instructions] == [(0, 1), (2,)]
    assert [one.outputs for one in method.instructions] == [(2,), (3,)]
    assert [(d.backend, d.bytes, d.is_open) for d in method.delegates] == [
        ("Other", 5, False), ("Another", 0, False),
    ]  # fmt: skip
    assert method.delegation.share is None
    drawing = draw(method)
    assert [node.id for node in drawing.nodes] == ["in0", "i0", "i1", "out0"]
    edges = [(e.start, e.end) for e in drawing.edges]
    assert edges == [("in0", "i0"), ("i0", "i1"), ("i1", "out0")]


def test_live_ranges() -> None:
    add = [Operator("aten::add", "out")]
    values = [floats(0), floats(16), floats(32), floats(48)]
    calls = [KernelCall(0, (0, 0, 1, 1)), KernelCall(0, (1, 1, 2, 2)), KernelCall(0, (2, 2, 3, 3))]
    straight = describe(program(values, [*calls], operators=add, memory_sizes=[0, 64])).methods[0]
    ranges = {v.value: (v.first, v.last) for v in straight.memory.values}
    assert ranges == {0: (0, 0), 1: (0, 1), 2: (1, 2), 3: (2, 2)}
    assert straight.memory.live == (32, 32, 32)
    # What is read in a loop and made before it lives until the loop has ended.
    loop = [*calls, JumpFalseCall(0, 1)]
    looped = describe(program(values, [*loop], operators=add, memory_sizes=[0, 64])).methods[0]
    ranges = {v.value: (v.first, v.last) for v in looped.memory.values}
    assert ranges == {0: (0, 3), 1: (0, 3), 2: (1, 2), 3: (1, 3)}
    (jump,) = (edge for edge in draw(looped).edges if edge.jump)
    assert (jump.start, jump.end) == ("i3", "i1")


def test_views_lead_to_what_they_are_views_of() -> None:
    """The stock compiler makes no instruction of a ``view_copy``: its result is a value that
    nothing writes, in the memory of another one."""
    values = [floats(0), floats(16), floats(16), floats(16), floats(32), floats(16), floats(48)]
    calls: list[object] = [
        KernelCall(0, (0, 0, 1, 1)),
        KernelCall(0, (0, 0, 4, 4)),
        KernelCall(0, (2, 3, 4, 4)),  # 2 and 3 are views of 1
        KernelCall(0, (4, 4, 5, 5)),  # lies where 1 was
        KernelCall(0, (5, 4, 6, 6)),
    ]
    add = [Operator("aten::add", "out")]
    found = describe(program(values, calls, operators=add, memory_sizes=[0, 64])).methods[0]
    assert {v.id: v.view_of for v in found.values if v.view_of is not None} == {2: 1, 3: 1}
    ranges = {v.value: (v.first, v.last) for v in found.memory.values}
    assert ranges[2] == ranges[3] == (0, 2) and ranges[5] == (3, 4)
    assert found.memory.live == (32, 48, 32, 32, 48)  # 1 lives through its views
    assert ("i0", "i2") in {(e.start, e.end) for e in draw(found).edges}


def test_views_that_other_backends_read_are_inputs() -> None:
    """Nothing has written them, but neither have the delegates: an output may lie where a value
    was that everybody has read."""
    values = [floats(0), floats(16), floats(16), floats(32), floats(16), floats(48)]
    calls: list[object] = [
        KernelCall(0, (0, 0, 1, 1)),
        DelegateCall(0, (2, 3)),  # 2 is a view of 1
        DelegateCall(0, (3, 4, 5)),  # 4 is an output in the memory of 1, read by what follows
        KernelCall(0, (4, 5, 5, 5)),
    ]
    found = describe(
        program(
            values, calls, operators=[Operator("aten::add", "out")],
            delegates=[Delegate("Other", b"")], memory_sizes=[0, 64],
        )
    ).methods[0]  # fmt: skip
    assert [one.inputs for one in found.instructions[1:3]] == [(2,), (3,)]
    assert [one.outputs for one in found.instructions[1:3]] == [(3,), (4, 5)]
    edges = {(e.start, e.end) for e in draw(found).edges}
    assert {("i0", "i1"), ("i1", "i2"), ("i2", "i3")} <= edges


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def own() -> ProgramDescription:
    lowered = penstock.lower(Net(), (torch.randn(1, 3, 8, 8),))
    return describe(load(lowered.to_bytes()).program, "net.pte")


def test_constants_are_named_by_who_reads_them(own: ProgramDescription) -> None:
    sizes = {constant.name: constant.bytes for constant in own.constants}
    assert sizes == {"conv weight": 864, "head weight": 160, "conv bias": 32, "head bias": 20}
    assert own.constant_bytes == 1076
    assert [c.bytes for c in own.constants] == sorted(sizes.values(), reverse=True)
    drawn = {node.id for node in draw(own.methods[0]).nodes}
    assert {f"i{c.instruction}n{c.node}" for c in own.constants} <= drawn


def test_the_drawing_goes_through_delegates(own: ProgramDescription) -> None:
    drawing = draw(own.methods[0])
    check_drawing(drawing)
    kinds = [own.methods[0].delegates[0].nodes[n.node].kind for n in drawing.nodes if n.node >= 0]
    assert "conv_2d" in kinds and "fully_connected" in kinds
    ends: dict[str, set[str]] = {}
    for edge in drawing.edges:
        ends.setdefault(edge.start, set()).add(edge.end)
    reached, waiting = set(), ["in0"]
    while waiting:
        reached.add(here := waiting.pop())
        waiting += ends.get(here, set()) - reached
    assert reached == {node.id for node in drawing.nodes}


def test_a_page_leaves_out_what_is_by_default(own: ProgramDescription) -> None:
    data = page_data(own)
    (method,) = data["methods"]
    node = method["delegates"][0]["nodes"][0]
    assert "flags" not in node and node["position"] == 0
    assert "scales" not in json.dumps(plain(page_data(described("image_q8"))))
    assert data["families"]["conv_2d"] == data["families"]["fully_connected"] == "product"
    assert "timings" not in data


ROW = {"instruction": 0, "node": 1, "seconds": 0.5, "share": 0.5, "with_nodes": [0]}


def profile(**changes: object) -> str:
    found = {"method": "forward", "seconds": 1, "threads": 2, "engine": "auto", "rows": [ROW]}
    return json.dumps({**found, **changes})


def test_times(own: ProgramDescription, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(profile())
    found = read_timings(path, own)
    assert (found.rows[0].node, found.rows[0].seconds, found.rows[0].with_nodes) == (1, 0.5, (0,))
    assert page_data(own, found)["timings"]["rows"][0]["share"] == 0.5
    for text, message in (
        ("no JSON", "is not a profile; make one with penstock profile net.pte --json"),
        ("[1]", "is not a profile"),
        (json.dumps({"rows": 3}), "is not a profile"),
        (profile(rows=[{**ROW, "instruction": math.inf}]), "is not a profile"),
        (profile(rows=[{**ROW, "seconds": math.nan}]), "is not a profile"),
        (profile(rows=[{**ROW, "node": -2}]), "is not of net.pte"),
        (profile(rows=[{**ROW, "with_nodes": [10**9]}]), "is not of net.pte"),
        (profile(method="other"), "is not of net.pte"),
        (profile(rows=[{"instruction": 9, "node": -1, "seconds": 1, "share": 1}]), "is not of"),
        (profile(rows=[{"instruction": 0, "node": 99, "seconds": 1, "share": 1}]), "is not of"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_timings(path, own)
    with pytest.raises(InputError, match="there is no profile .*absent.json"):
        read_timings(tmp_path / "absent.json", own)
