"""``penstock bench``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from children import environment, interruptible
from cli_harness import Shell

import penstock
from penstock.cli import bench_targets
from penstock.cli.bench import show
from penstock.tools.bench import peers
from penstock.tools.bench.report import BenchReport, Row

STOCK = Path(__file__).parents[1] / "formats" / "stock"
QUICK = ("--seconds", "0.1", "--launches", "1")


def test_files_beside_each_other(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    shell.compiled("linear", "--quantize", "--output", "b.pte")
    done = shell.call(
        "penstock", "bench", "a.pte", "b.pte", "--model", "linear", "--engine", "auto,xnnpack",
        "--threads", "1", "--json", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["file"], row["title"]) for row in found["rows"]] == [
        ("a.pte", "Penstock"), ("a.pte", "Penstock, xnnpack"),
        ("b.pte", "Penstock"), ("b.pte", "Penstock, xnnpack"),
    ]  # fmt: skip
    assert [row["precision"] for row in found["rows"]] == ["float"] * 2 + ["static int8"] * 2
    assert found["samples"] == 4
    assert all(
        row["sqnr_db"] > (100 if row["precision"] == "float" else 20) for row in found["rows"]
    )
    assert all(row["error"] is None and row["ratio"]["median"] > 0 for row in found["rows"])


def test_a_model_beside_a_peer_that_is_there_and_one_that_is_not(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = peers.Peer("openvino", "OpenVINO", ("no_openvino",), "bench", ".onnx")
    monkeypatch.setitem(peers.PEERS, "openvino", absent)
    done = shell.call("penstock", "bench", "mymodels:net", "--against", "openvino,torch", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "no_openvino is not installed; pip install 'penstock-xnnpack[bench]'" in done.stdout
    assert "PyTorch, eager" in done.stdout and "net.pt2" in done.stdout
    assert "SQNR" in done.stdout and "fails" not in done.stdout


def test_a_peer_that_needs_the_model(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    done = shell.call("penstock", "bench", "a.pte", "--against", "torch", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "needs the model; name that with --model" in " ".join(done.stdout.split())


def test_a_page(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    done = shell.call("penstock", "bench", "a.pte", "--html", "out/page.html", *QUICK)
    assert done.returncode == 0, done.stderr
    text = (shell.folder / "out" / "page.html").read_text()
    assert '"best_ms":' in text and "Bench of a.pte" in text
    shell.fails("penstock", "bench", "a.pte", "--html", "/proc/no/x.html", message="--html")


def test_weights_in_data_files(shell: Shell) -> None:
    """The file is measured with them, here and on the stock runtime; a file that has its weights
    itself, beside it, is given none."""
    model = torch.nn.Linear(4, 3)
    penstock.lower(model, (torch.ones(1, 4),)).save(shell.folder / "whole.pte")
    for name in ("partly.pte", "partly.ptd"):
        shutil.copy(STOCK / "external" / name, shell.folder / name)
    done = shell.call(
        "penstock", "bench", "partly.pte", "whole.pte", "--data-path", "partly.ptd",
        "--against", "executorch", "--json", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["error"] for row in found["rows"]] == [None] * 4
    shell.fails("penstock", "bench", "partly.pte", *QUICK, message=r"is in a data file (.ptd)")
    bad = "penstock", "bench", "partly.pte", "--data-path"
    shell.fails(*bad, "none.ptd", message="there is no file none.ptd")
    shell.fails(*bad, "whole.pte", message="not a data file (.ptd)")


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_it_stops_cleanly(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "bench", "a.pte", "--seconds", "600"],
        cwd=shell.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=interruptible,
    )  # fmt: skip
    workers: list[int] = []
    for _ in range(600):
        workers = _children(process.pid)
        if workers:
            break
        time.sleep(0.1)
    assert workers
    time.sleep(1)  # into the measuring, or nearly so
    process.send_signal(signal.SIGINT)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and error.strip() == "interrupted" and not out
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_what_is_wrong(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    shell.fails("penstock", "bench", "absent.pte", message="absent.pte")
    shell.fails("penstock", "bench", "nonsense", message="no .pte file and no model")
    shell.fails("penstock", "bench", "a.pte", "--threads", "0", message="--threads is '0'")
    shell.fails("penstock", "bench", "a.pte", "--engine", "gpu", message="--engine 'gpu'")
    shell.fails("penstock", "bench", "a.pte", "--against", "tflite", message="'tflite' is unknown")
    shell.fails("penstock", "bench", "mymodels:broken", message="no such luck")


def test_a_model_where_torch_is_missing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_targets, "find_spec", lambda name: None)
    message = "this needs torch, which is not installed: pip install "
    shell.fails("penstock", "bench", "linear", message=message)


def test_why_a_row_fails_stands_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, however narrow the terminal is, and the table keeps its names."""
    error = "UnsupportedError: the method 'forward' needs kernels that Penstock does not have: a::b"
    row = Row(
        "penstock", "Penstock", "net.pte", "float", 1, None, None, None, 0, None, None, None, None,
        error,
    )  # fmt: skip
    machine = {"processor": "p", "date": "d", "versions": ""}
    show(BenchReport(machine, 1.0, 1, 1, (row,), ()), ["a notice"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["Penstock", "net.pte", "fp32", "fails"] for line in lines), lines
    assert f"note: Penstock, net.pte fails: {error}" in lines
