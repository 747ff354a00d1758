"""``penstock profile``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Shell

from penstock.cli import profile
from penstock.formats.program import Operator
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import write_program
from penstock.tools.profiling.machine import Peaks

STOCK = Path(__file__).parents[1] / "formats" / "stock"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine can do is not measured for tests."""
    monkeypatch.setattr(
        profile, "peaks",
        lambda threads, anew: Peaks("some processor", threads, 1e11, 4e11, 1e10, 1e11, 1 << 20),
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--top", "--depth"])
def test_fewer_than_nothing(shell: Shell, option: str) -> None:
    done = shell.call("penstock", "profile", str(STOCK / "image_fp32.pte"), option, "-1")
    assert done.returncode == 2 and "greater than or equal to 0" in done.stderr


def test_tables(shell: Shell) -> None:
    shell.compiled("mymodels:net", "--output", "net.pte")
    call = ("penstock", "profile", "net.pte", "--runs", "3", "--threads", "1")
    shown = shell.call(*call).stdout
    assert "net.pte, method forward: " in shown and " over 3 calls " in shown
    assert "some processor, threads: 1, can do: fp32 100 GFLOP/s, int8 400 GOP/s" in shown
    assert "; not measured: " in shown
    assert "CONV_2D #" in shown and "between the nodes" in shown
    assert "aten.conv2d.default" in shell.call(*call, "--by", "operator").stdout
    modules = shell.call(*call, "--by", "module").stdout.splitlines()
    assert any(line.endswith("the model") for line in (m.rstrip() for m in modules))
    assert any(line.rstrip().endswith("  conv") for line in modules)
    lines = shell.call(*call, "--by", "source").stdout
    assert "mymodels.py:" in lines
    assert "and " in shell.call(*call, "--top", "1").stdout
    found = json.loads(shell.call(*call, "--json", "--engine", "xnnpack").stdout)
    assert found["ordinary"] > 0.0
    assert found["calls"] == 3 and found["threads"] == 1 and found["engine"] == "xnnpack"
    assert {row["engine"] for row in found["rows"] if row["node"] >= 0} == {"xnnpack"}
    shown = shell.call(*call, "--trace", "out.json").stdout
    assert "written: out.json" in shown
    assert json.loads((shell.folder / "out.json").read_text())["traceEvents"]


def test_stock_files(shell: Shell) -> None:
    shown = shell.call("penstock", "profile", str(STOCK / "image_q8.pte"), "--runs", "2").stdout
    assert "does not say which modules" in shown
    np.save(shell.folder / "rows.npy", np.ones((2, 8), np.float32))
    dynamic = str(STOCK / "rows_dynamic_q8.pte")
    shell.fails("penstock", "profile", dynamic, message="give inputs with --inputs")


def test_bad_requests(shell: Shell) -> None:
    shell.fails("penstock", "profile", "absent.pte", message="there is no file absent.pte")
    inline = str(STOCK / "partly.pte")
    shell.fails("penstock", "profile", inline, "--by", "colour", message="--by is 'colour'")
    shell.fails("penstock", "profile", inline, "--runs", "0", message="it must be at least 1")
    shell.fails("penstock", "profile", inline, "--engine", "steam", message="engine is 'steam'")
    shell.fails(
        "penstock", "profile", inline, "--runs", "1", "--trace", "/dev/null/t.json",
        message="cannot write to the output directory /dev/null",
    )  # fmt: skip


def test_a_missing_kernel_and_a_damaged_file(shell: Shell) -> None:
    program = read_program(memoryview((STOCK / "partly.pte").read_bytes()))
    (method,) = program.methods
    method.operators[0] = Operator("made_up::nothing", "out")
    (shell.folder / "kernel.pte").write_bytes(write_program(program))
    shell.fails(
        "penstock", "profile", "kernel.pte",
        message="needs kernels that Penstock does not have: made_up::nothing",
    )  # fmt: skip
    (shell.folder / "bad.pte").write_bytes(b"\0" * 100)
    shell.fails("penstock", "profile", "bad.pte", message="bad.pte")
