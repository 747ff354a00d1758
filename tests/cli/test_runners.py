"""The runners, as commands and as functions, on programs without delegates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.cli.run_file import RunRequest, run_file
from penstock.formats import schema
from penstock.formats.flatbuffer import decode
from penstock.formats.program import (
    Allocation,
    Delegate,
    DelegateCall,
    KernelCall,
    Method,
    Operator,
    Program,
    ScalarType,
    Tensor,
)
from penstock.formats.program_writer import write_program

ROOT = Path(__file__).resolve().parents[2]


def save(path: Path, program: Program) -> Path:
    data = write_program(program)
    path.write_bytes(data if isinstance(data, bytes) else b"".join(data))
    return path


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """forward: y = x + 1 * x on float32 (2, 3); answer: 42."""
    values: list[Any] = [
        Tensor(ScalarType.FLOAT, (2, 3), allocation=Allocation(1, 0)),
        1,
        Tensor(ScalarType.FLOAT, (2, 3), allocation=Allocation(1, 64)),
    ]
    forward = Method(
        "forward",
        values,
        [0],
        [2],
        [KernelCall(0, (0, 0, 1, 2, 2))],
        [Operator("aten::add", "out")],
        memory_sizes=[0, 128],
    )
    answer = Method("answer", [42], [], [0], [])
    return save(tmp_path_factory.mktemp("doubles") / "doubles.pte", Program([forward, answer]))


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values: list[Any] = [Tensor(ScalarType.FLOAT, (2,)), Tensor(ScalarType.FLOAT, (2,))]
    method = Method(
        "forward",
        values,
        [0],
        [1],
        [DelegateCall(0, (0, 1))],
        delegates=[Delegate("XnnpackBackend", b"not a payload")],
    )
    return save(tmp_path_factory.mktemp("delegated") / "delegated.pte", Program([method]))


def command(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.argv[0] = {name!r}\n"
        f"from penstock.cli.runners import {name} as main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'executorch' not in sys.modules"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_command_prints_the_outputs(doubles: Path) -> None:
    for runner in ("executor_runner", "xnn_executor_runner"):
        done = command(runner, f"--model_path={doubles}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("output 0: float32 [2, 3], min 2, max 2, mean 2")
        assert done.stderr == ""


def test_command_as_json(doubles: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    done = command(
        "executor_runner",
        "--model_path",
        str(doubles),
        "--inputs",
        str(tmp_path / "x.npy"),
        "--num_executions=3",
        "--print_output",
        "all",
        "--json",
        "--cpu_threads",
        "1",
        "--output_file",
        str(tmp_path / "y.npz"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["outputs"][0]["values"] == [0, 2, 4, 6, 8, 10]
    assert report["outputs"][0]["shape"] == [2, 3]
    assert report["executions"] == 3
    assert report["latency_ms"]["min"] <= report["latency_ms"]["median"]
    assert report["latency_ms"]["median"] <= report["latency_ms"]["p95"]
    with np.load(tmp_path / "y.npz") as written:
        np.testing.assert_array_equal(written["output_0"].ravel(), [0, 2, 4, 6, 8, 10])


def test_command_says_latency_and_nothing_when_quiet(doubles: Path) -> None:
    arguments = (f"--model_path={doubles}", "--num_executions", "5", "--print_output", "none")
    assert "latency of 5 executions: min" in command("executor_runner", *arguments).stdout
    assert command("executor_runner", *arguments, "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "Missing option '--model_path'", 2),
        (["--model_path", "nowhere.pte"], "there is no file nowhere.pte", 1),
        (["--model_path", "."], "cannot read the file .: it is a directory", 1),
        (["--model_path", "{text}"], "not a .pte program", 1),
        (["--model_path", "{empty}"], "is empty", 1),
        (["--model_path", "{model}", "--what"], "No such option: --what", 2),
        (["--model_path", "{model}", "--method_name", "x"], "has forward, answer", 1),
        (["--model_path", "{model}", "--inputs", "a.npy"], "no input file a.npy", 1),
        (["--model_path", "{model}", "--inputs", "{text}"], "the input float32[2, 3] takes 24", 1),
        (["--model_path", "{model}", "--num_executions", "0"], "at least 1", 1),
        (["--model_path", "{model}", "--num_executions", "x"], "--num_executions", 2),
        (["--model_path", "{model}", "--cpu_threads", "-2"], "give one from 1", 1),
        (["--model_path", "{model}", "--engine", "x"], "engine is 'x'; choose 'auto'", 1),
        (["--model_path", "{model}", "--print_output", "x"], "none, summary or all", 1),
        (["--model_path", "{model}", "--output_file", "/no/where/y.npy"], "cannot write", 1),
        (["--model_path", "{model}", "--etdump_path", "{text}/e"], "cannot write to", 1),
        (["--model_path", "{model}", "--etdump_path", "{model}"], "--model_path names too", 1),
        (["--model_path", "{delegated}"], "run it with: xnn_executor_runner --model_path", 1),
    ],
)
def test_command_errors_are_one_line(
    arguments: list[str], message: str, code: int, doubles: Path, delegated: Path, tmp_path: Path
) -> None:
    text, empty = tmp_path / "notes.txt", tmp_path / "empty.pte"
    text.write_text("These are notes, no program at all.\n" * 9)
    empty.touch()
    names = {"model": doubles, "text": text, "empty": empty, "delegated": delegated}
    done = command("executor_runner", *[one.format(**names) for one in arguments])
    assert done.returncode == code
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_minus_one_is_the_default_number_of_threads(doubles: Path) -> None:
    done = command("executor_runner", "--model_path", str(doubles), "--cpu_threads=-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == command("executor_runner", "--model_path", str(doubles)).stdout


def test_executions_as_an_etdump(doubles: Path, tmp_path: Path) -> None:
    path = tmp_path / "calls.etdump"
    arguments = (f"--model_path={doubles}", "--num_executions=3", f"--etdump_path={path}")
    done = command("executor_runner", *arguments)
    assert done.returncode == 0, done.stderr
    assert f"written: {path}" in done.stdout
    root = decode(schema.load("etdump"), memoryview(path.read_bytes())[4:], "the ETDump")
    assert [run.events[0].profile_event.name for run in root.run_data] == ["Method::execute"] * 3


def test_run_file(doubles: Path) -> None:
    assert run_file(RunRequest(str(doubles), method_name="answer")).outputs == [42]
    report = run_file(RunRequest(str(doubles), executions=4))
    np.testing.assert_array_equal(report.outputs[0], np.full((2, 3), 2))
    assert len(report.latencies) == 4


def test_output_files(doubles: Path, tmp_path: Path) -> None:
    for name, written in {"y.npy": "y.npy", "y": "y-0.bin", "z.bin": "z.bin-0.bin"}.items():
        report = run_file(RunRequest(str(doubles), output_file=str(tmp_path / name)))
        assert report.files == [str(tmp_path / written)]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.full((2, 3), 2))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y-0.bin", np.float32), np.full(6, 2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["y-0.bin", "y.npy", "z.bin-0.bin"]
