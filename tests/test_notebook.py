"""What a notebook shows of results: IPython's formatter calls ``_repr_html_``."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import penstock
from penstock.notebook import MOST_ROWS, Table, facts, render
from penstock.tools.bench.contest import Spread
from penstock.tools.bench.report import BenchReport, Row
from penstock.tools.compare.compare import compare
from penstock.tools.compare.taps import ProgramSide
from penstock.tools.describe.program import describe
from penstock.tools.profiling.machine import Peaks
from penstock.tools.profiling.measure import measure
from penstock.tools.profiling.report import report


class Cells(HTMLParser):
    """The texts of a table's parts, and that all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag in ("table", "caption", "b", "thead", "tbody", "tr", "th", "td", "div")
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.second = torch.nn.Linear(8, 20)  # too long to be sorted inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(self.second(torch.relu(self.first(x))).sort(dim=1)[0], 1)


def test_cells_are_escaped_and_short() -> None:
    rows = [("<script>alert(1)</script>", "\x1b[31m & more", "x" * 500), (1, None, "a\n b")]
    text = render(Table("<b>", ("<i>", "b", "c"), rows, note="a < b"))
    assert "<script" not in text and "<i>" not in text and "\x1b" not in text
    assert Cells(text).rows[1:] == [
        ["<script>alert(1)</script>", "\ufffd[31m & more", "x" * 119 + "…"],
        ["1", "", "a b"],
    ]


def test_numbers_stand_to_the_right() -> None:
    rows = [("conv", "1.25 ms", 3, "-1e-05"), ("add", "10 %", 1_000, "inf")]
    text = render(Table("t", ("name", "time", "calls", "error"), rows))
    assert (
        re.findall("text-align:(left|right)'>(?=conv|1.25|3|-1e)", text) == ["left"] + ["right"] * 3
    )


def test_long_tables_say_what_they_leave_out() -> None:
    text = render(Table("t", ("n",), [(i,) for i in range(MOST_ROWS + 3)]))
    assert len(Cells(text).rows) == MOST_ROWS + 1 and "and 3 more" in text
    assert "and" not in render(Table("t", ("n",), [(i,) for i in range(MOST_ROWS)]))


def test_facts_leave_out_what_is_empty() -> None:
    assert Cells(render(facts("t", [("a", 1), ("b", ""), ("c", None)]))).rows == [["a", "1"]]


def test_results_in_a_notebook(tmp_path: Path) -> None:
    x = torch.randn(2, 8)
    lowered = penstock.lower(Model(), (x,))
    lowered.save(tmp_path / "model.pte")
    shown = Cells(lowered._repr_html_()).rows
    assert ["precision", "fp32"] in shown
    (sorting,) = [row for row in shown if row[0] == "aten.sort.default"]
    assert sorting[1] == "1" and "test_notebook.py" in sorting[3] and sorting[4]
    assert sorting in Cells(lowered.delegation._repr_html_()).rows
    head, said = str(lowered.delegation).splitlines()
    assert head == "80.0% of the graph in XNNPACK, in 2 pieces"
    assert head in lowered.delegation._repr_html_()
    assert said.startswith("outside: aten.sort.default (") and sorting[4] in said
    program = penstock.load(tmp_path / "model.pte", profile=True)
    assert str(tmp_path) in program._repr_html_()
    (heads, (name, inputs, outputs, backends)) = Cells(program._repr_html_()).rows
    assert heads == ["method", "inputs", "outputs", "delegated to"]
    assert (name, inputs, outputs) == ("forward", "float32[2, 8]", "float32[2, 20]")
    assert backends == "XnnpackBackend"
    program(np.zeros((2, 8), np.float32))
    heads, *rows = Cells(program.profile()._repr_html_()).rows
    assert heads == ["ms", "share", "what", "module"]
    assert {"first", "second"} <= {row[3] for row in rows}


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_quantization_in_a_notebook(scheme: str) -> None:
    report = penstock.lower(Model(), (torch.randn(2, 8),), quantize=scheme).quantization
    assert report is not None
    heads, *rows = Cells(report._repr_html_()).rows
    assert heads == ["operator", "module", "form, or why float"]
    assert ["linear", "first", "int8"] in rows
    assert rows[0][2] != "int8"
    cost = Cells(report.cost()._repr_html_()).rows
    assert any("accumulated" in row for row in cost) and any("first" in row for row in cost)


def test_ipython_shows_them() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(penstock.lower(Model(), (torch.randn(2, 8),)))
    assert shown["text/html"].startswith("<table>")


def test_tools_in_a_notebook(tmp_path: Path) -> None:
    lowered = penstock.lower(Model(), (torch.randn(2, 8),))
    path = tmp_path / "model.pte"
    lowered.save(path)
    program = penstock.load(path, profile=True, threads=1)
    described = describe(program.program, str(path), path.stat().st_size)
    heads, row, *constants = Cells(described._repr_html_()).rows
    assert row[0] == "forward" and "[2, 8]" in row[1] and "[2, 20]" in row[2]
    assert any("first" in name for _, name, *_ in constants)
    peaks = Peaks("a processor", 1, fp32=1e11, int8=None, memory=1e10, cache=1e11, cache_bytes=1000)
    calls = measure(program, None, [np.ones((2, 8), np.float32)], runs=3)
    found = report(program, str(path), "auto", 1, calls, peaks)
    heads, *rows = Cells(found._repr_html_()).rows
    assert heads[:2] == ["ms", "share"] and {"first", "second"} <= {row[4] for row in rows}
    a, b = ProgramSide(path, label="a"), ProgramSide(path, label="b")
    compared = compare(a, b, [[np.ones((2, 8), np.float32)]], inputs="1 sample", threshold_db=40.0)
    text = compared._repr_html_()
    assert "a and b agree" in text and ["judged on", "1 sample"] in Cells(text).rows


def test_a_bench_in_a_notebook() -> None:
    rows = (
        Row(
            "own", "Penstock", "m.pte", "float", 1, best_ms=1.25, times_ms=Spread(1.3, 1.2, 1.4),
            ratio=Spread(1.0, 1.0, 1.0), turns=3, load_ms=2.0, growth_mb=3.0, peak_mb=9.0,
            sqnr_db=None,
        ),
        Row(
            "x", "X", "m.pte", "float", 1, None, None, None, 0, None, None, None, None,
            error="is not installed",
        ),
    )  # fmt: skip
    found = BenchReport({"processor": "p"}, 1.0, 1, 1, rows, ("the machine is busy",))
    text = found._repr_html_()
    assert "the machine is busy" in text
    heads, first, second = Cells(text).rows
    assert heads[:4] == ["runtime", "file", "", "threads"]
    assert first == ["Penstock", "m.pte", "float", "1", "1.25", "1.00 (1.00 to 1.00)", "2"]
    assert second[5] == "is not installed"
