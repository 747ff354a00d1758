"""What files ask of ExecuTorch's runtime: the table, and what is read off files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import penstock
from penstock.errors import InvalidProgramError, PenstockError
from penstock.formats.kernel_names import stock_kernels
from penstock.formats.needs import Needs, read_needs
from penstock.formats.program import Delegate, KernelCall, Method, Operator, Program
from penstock.formats.program_writer import write_program
from penstock.formats.releases import Feature, Releases, Span, releases
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind
from penstock.tools.describe.requires import judge, requires

STOCK = Path(__file__).parents[2] / "formats" / "stock"


def test_every_fact_has_a_release() -> None:
    """Of all node kinds, of the types that a file may hold, of all kernels that ExecuTorch has."""
    table = releases()
    assert not [kind for kind in NodeKind if table.having("node", kind.name) is None]
    assert not [dtype for dtype in DataType if table.having("datatype", dtype.name) is None]
    assert not [feature for feature in Feature if table.having("feature", feature.name) is None]
    assert not [name for name in stock_kernels() if table.having("kernel", name) is None]
    assert list(table.all) == sorted(table.all, key=lambda r: [int(p) for p in r.split(".")])
    assert {span.first for span in table.spans.values()} <= set(table.all)


#: Read in ExecuTorch's repository by hand, not by the program that makes the table.
@pytest.mark.parametrize(
    ("what", "name", "span"),
    [
        ("node", "ADD", Span("0.1.0")),
        ("node", "BATCH_MATRIX_MULTIPLY", Span("0.4.0")),
        ("node", "TANH", Span("0.7.0")),
        ("node", "COS", Span("1.1.0")),
        ("node", "SCALED_DOT_PRODUCT_ATTENTION", Span("0.2.0", "0.6.0")),
        ("datatype", "QDINT8", Span("0.2.0")),
        ("datatype", "BF16", Span("0.7.0")),
        ("feature", "NAMED_DATA", Span("0.6.0")),
        ("kernel", "aten::add.out", Span("0.1.0")),
        ("kernel", "executorch_prim::sym_float.Scalar", Span("0.3.0")),
    ],
)
def test_some_facts(what: str, name: str, span: Span) -> None:
    assert releases().spans[what, name] == span


@pytest.mark.parametrize(
    ("file", "first", "newest"),
    [
        ("add_q8_undelegated", "0.1.0", "ET12, version 0"),
        ("mutable", "0.4.0", "initial states of buffers"),
        ("image_fp32", "0.6.0", "XNNPACK constants by name"),
        ("image_q8", "0.7.0", "XNNPACK scales among the constants"),
        ("rows_inline", "0.7.0", "tanh"),
        ("external/partly", "0.6.0", "tensors in a data file"),
    ],
)
def test_files_of_the_stock_compiler(file: str, first: str, newest: str) -> None:
    found = requires(STOCK / f"{file}.pte")
    assert (found.first, found.last, found.unknown, found.notes) == (first, None, (), ())
    assert newest in [one.name for one in found.requirements if one.since == first]
    assert found.requirements[0].since == first


def test_operands_that_are_constants() -> None:
    """Filters and biases are packed; what XNNPACK reads in place lives only since 1.4.1."""

    class Model(torch.nn.Module):
        def __init__(self, *, scale: bool) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.scale = torch.nn.Parameter(torch.ones(4) * 2) if scale else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.linear(x))
            return y if self.scale is None else torch.cos(y) * self.scale

    for scale, first in ((False, "0.6.0"), (True, "1.4.1")):
        data = penstock.lower(Model(scale=scale), (torch.ones(2, 4),)).to_bytes()
        needs = read_needs(data)
        assert (Feature.PAYLOAD_OPERANDS_BY_NAME in needs.features) is scale
        assert judge(needs, releases()).first == first
        assert needs.nodes[NodeKind.FULLY_CONNECTED] == 1
        assert needs.datatypes[DataType.FP32] >= 4


def test_a_file_that_needs_nothing_new() -> None:
    """Our map of sources is named data that no runtime looks up."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    needs = read_needs(penstock.lower(Model(), (torch.ones(2, 4),)).to_bytes())
    assert needs.features == {Feature.PAYLOAD_HEADER}
    assert judge(needs, releases()).first == "0.2.0"


def test_what_no_release_has() -> None:
    method = Method("forward", [], [], [], [KernelCall(0, ())], [Operator("mine::op", "out")])
    method.delegates.append(Delegate("TheirBackend", b"\1\2\3"))
    found = judge(read_needs(write_program(Program([method]))), releases())
    assert [(one.what, one.name) for one in found.unknown] == [
        ("backend", "TheirBackend"),
        ("kernel", "mine::op.out"),
    ]
    assert found.first == "0.1.0"
    assert found.as_dict()["unknown"] == ["TheirBackend", "mine::op.out"]


def test_spans_that_do_not_meet() -> None:
    table = Releases(
        ("1.0", "1.1", "1.2"),
        {
            ("node", "ADD"): Span("1.0", "1.0"),
            ("node", "SIN"): Span("1.1"),
            ("node", "COS"): Span("1.2"),
        },
    )
    only = judge(Needs(nodes=Counter([NodeKind.ADD])), table)
    assert (only.first, only.last) == ("1.0", "1.0")
    assert judge(Needs(nodes=Counter([NodeKind.SIN])), table).last is None
    neither = judge(Needs(nodes=Counter([NodeKind.ADD, NodeKind.COS])), table)
    assert (neither.first, neither.last) == (None, None)


def test_damaged_files(tmp_path: Path) -> None:
    """An error of ours or an answer, never another exception."""
    data = np.frombuffer((STOCK / "image_q8.pte").read_bytes(), np.uint8)
    generator = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        broken = data.copy()
        broken[generator.integers(0, len(data), 3)] ^= generator.integers(1, 256, 3, np.uint8)
        try:
            judge(read_needs(broken.tobytes()), releases())
        except PenstockError:
            refused += 1
    assert 0 < refused < 150
    path = tmp_path / "cut.pte"
    path.write_bytes(data[:100].tobytes())
    with pytest.raises(InvalidProgramError, match=r"cut\.pte"):
        requires(path)
