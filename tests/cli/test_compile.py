"""``penstock compile`` and the example commands, as a user calls them."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from penstock.cli.main import main

Capture = pytest.CaptureFixture[str]

USER_MODULE = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, image, scale=None):
        x = torch.relu(self.conv(image)).mean((2, 3))
        if scale is not None:
            x = x * scale
        return {"logits": self.head(x), "features": (x,)}


def net():
    torch.manual_seed(0)
    return Net(), (torch.randn(1, 3, 8, 8),)


def with_keywords():
    torch.manual_seed(0)
    return Net(), (torch.randn(1, 3, 8, 8),), {"scale": torch.tensor([[2.0]])}


def described():
    model, args = net()
    return {"model": model, "args": args, "calibration": batches}


def batches():
    return [(torch.randn(1, 3, 8, 8),) for _ in range(3)]


def misfit():
    return [(torch.randn(1, 4, 8, 8),)]


def rows():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 2), (torch.randn(3, 6),)


class Branching(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def branching():
    return Branching(), (torch.randn(3),)


def nothing_to_quantize():
    return torch.nn.Flatten(), (torch.randn(1, 3, 4),)


def broken():
    raise ValueError("no such luck")


def number():
    return 7


constant = 3
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands in this process, so that torch is imported once, in a folder of their own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: Capture) -> None:
        self.folder, self._patch, self._capture = folder, patch, capture

    def call(self, command: str, *arguments: str) -> Done:
        self._capture.readouterr()
        self._patch.setattr(sys, "argv", [command, *arguments])
        code: object = 0
        try:
            if command == "penstock":
                main()
            else:
                importlib.import_module(command).main(list(arguments))
        except SystemExit as end:
            code = end.code
        sys.modules.pop("mymodels", None)
        out, err = self._capture.readouterr()
        return Done(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    def compiled(self, *arguments: str) -> dict[str, Any]:
        done = self.call("penstock", "compile", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def fails(self, *arguments: str, message: str) -> None:
        """The command fails with one line that holds ``message``, and leaves no file behind."""
        before = set(self.folder.rglob("*"))
        done = self.call(*arguments)
        assert done.returncode != 0
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], done.stderr
        left = {p for p in set(self.folder.rglob("*")) - before if "__pycache__" not in p.parts}
        assert not left


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Shell:
    (tmp_path / "mymodels.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return Shell(tmp_path, monkeypatch, capsys)


def test_a_model_of_the_zoo(shell: Shell) -> None:
    result = shell.compiled("add_mul", "--test")
    assert result["pieces"] == 1 and result["share_delegated"] == 1.0
    (agreement,) = result["agreement"]
    assert agreement["sqnr_db"] > 100
    assert result["bytes"] == (shell.folder / "add_mul_xnnpack_fp32.pte").stat().st_size


def test_quantized_and_for_the_kernels_alone(shell: Shell) -> None:
    result = shell.compiled("linear", "-q", "--no-delegate", "-o", "made/here", "--test")
    assert result["path"] == "made/here/linear_quantized.pte"
    assert result["pieces"] == 0 and result["quantization"] == "static_per_channel"
    assert result["agreement"][0]["sqnr_db"] > 20


def test_the_users_own_module(shell: Shell) -> None:
    shell.compiled("mymodels:with_keywords", "--output", "own.pte")
    mymodels = importlib.import_module("mymodels")
    model, args, kwargs = mymodels.with_keywords()
    with torch.no_grad():
        expected = model(*args, **kwargs)
    got = penstock.load(shell.folder / "own.pte")(*args, **kwargs)
    assert set(got) == {"logits", "features"} and isinstance(got["features"], tuple)
    np.testing.assert_allclose(got["logits"], expected["logits"].numpy(), atol=1e-5)


def test_the_users_own_calibration(shell: Shell) -> None:
    data = shell.folder / "samples"
    data.mkdir()
    for index in range(3):
        np.savez(data / f"{index}.npz", image=np.random.rand(1, 3, 8, 8).astype(np.float32))
    for given in ([], ["--calibration", "mymodels:batches"], ["--calibration", "samples"]):
        result = shell.compiled("mymodels:described", "-q", "--test", *given)
        assert result["agreement"][0]["sqnr_db"] > 15


def test_dynamic_shapes(shell: Shell) -> None:
    option = "--dynamic-shapes", "input:0=batch[1..8]"
    shell.compiled("mymodels:rows", *option, "--output", "rows.pte")
    program = penstock.load(shell.folder / "rows.pte")
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 2)
    for batch in (1, 5, 8):
        x = torch.randn(batch, 6)
        with torch.no_grad():
            np.testing.assert_allclose(program(x)[0], model(x).numpy(), atol=1e-5)
    with pytest.raises(penstock.InputError):
        program(torch.randn(9, 6))


def test_an_archive(shell: Shell) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    x = torch.randn(2, 4)
    torch.export.save(torch.export.export(model, (x,)), shell.folder / "saved.pt2")
    result = shell.compiled("saved.pt2", "--test")
    assert result["path"] == "saved_xnnpack_fp32.pte"
    assert result["agreement"][0]["sqnr_db"] > 100


def test_quiet_says_nothing(shell: Shell) -> None:
    done = shell.call("penstock", "compile", "add", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stages_and_summary(shell: Shell) -> None:
    done = shell.call("penstock", "compile", "linear", "--print-graph")
    for stage in ("import torch", "model", "capture", "partition", "emit", "write"):
        assert f"✓ {stage} " in done.stderr
    assert "executorch_call_delegate" in done.stdout
    assert "100.0% of the graph in 1 piece" in done.stdout
    assert "random weights" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuchmodel"], "unknown model 'nosuchmodel'; the valid names are: add, add_mul"),
        (["nomodule:make"], "cannot import 'nomodule'"),
        (["mymodels:nothing"], "'mymodels' has no 'nothing'"),
        (["mymodels:constant"], "is a int, not something that can be called"),
        (["mymodels:broken"], "failed when it was called: ValueError: no such luck"),
        (["mymodels:number"], "must give (module, args)"),
        (["absent.pt2"], "no archive at absent.pt2"),
        (["mymodels.py.pt2"], "no archive"),
        (["mymodels:branching"], "torch.export cannot capture Branching"),
        (["mymodels:nothing_to_quantize", "-q"], "nothing"),
        (["mymodels:net", "-q", "--calibration", "mymodels:misfit"], "calibration"),
        (["mymodels:net", "-q", "--calibration", "nowhere"], "no calibration data at 'nowhere'"),
        (["linear", "--scheme", "int3"], "unknown quantization scheme 'int3'"),
        (["linear", "--weights", "nothing.pt"], "no checkpoint at nothing.pt"),
        (["mymodels:net", "--weights", "default"], "--weights is for models of the zoo"),
        (["linear", "-o", "/proc/nowhere"], "cannot write to the output directory /proc/nowhere"),
        (["linear", "-o", "mymodels.py"], "cannot write to the output directory mymodels.py"),
        (["mymodels:rows", "--dynamic-shapes", "x"], "cannot read the dynamic dimension 'x'"),
        (["mymodels:rows", "--dynamic-shapes", "y:0=n[1..2]"], "there is no input 'y'"),
        (["mymodels:rows", "--dynamic-shapes", "input:7=n[1..2]"], "there is no 7"),
    ],
)
def test_bad_requests(shell: Shell, arguments: list[str], message: str) -> None:
    shell.fails("penstock", "compile", *arguments, message=message)


def test_the_example_compiler(shell: Shell) -> None:
    example = "examples.xnnpack.aot_compiler"
    done = shell.call(example, "--model_name=add", "--delegate")
    assert done.returncode == 0 and "executorch_call_delegate" in done.stdout
    done = shell.call(example, "-m", "add", "-q", "-d", "-t", "-o", "made")
    assert done.returncode == 0 and "against eager" in done.stdout
    assert (shell.folder / "add_xnnpack_fp32.pte").exists()
    assert (shell.folder / "made" / "add_xnnpack_q8.pte").exists()
    assert "mobilebert" in shell.call(example, "-h").stdout
    shell.fails(example, "-m", "nosuch", "-d", message="unknown model 'nosuch'; the valid")


def test_the_example_of_quantizing(shell: Shell) -> None:
    example = "examples.xnnpack.quantization.example"
    done = shell.call(example, "--model_name", "add")
    assert done.returncode == 0, done.stderr
    program = penstock.load(shell.folder / "add_quantized.pte")
    assert not program.backends(None)
    (answer,) = program(np.ones(1, np.float32), np.ones(1, np.float32))
    assert abs(float(answer[0]) - 2.0) < 0.05
    assert "mobilebert" in shell.call(example, "-h").stdout
    shell.fails(
        example, "-m", "add", "-s", "absent.so",
        message="cannot load the operator library 'absent.so'",
    )  # fmt: skip


def test_models_and_inspect(shell: Shell) -> None:
    listed = json.loads(shell.call("penstock", "models", "--json").stdout)
    assert {"name", "summary", "parameters", "quantization"} <= set(listed[0])
    assert "MobileNetV2" in shell.call("penstock", "models").stdout
    shell.compiled("linear", "--output", "l.pte")
    found = json.loads(shell.call("penstock", "inspect", "l.pte", "--json").stdout)
    (method,) = found["methods"]
    assert method["inputs"] == ["float [3, 3]"]
    assert method["delegates"][0]["kinds"] == {"fully_connected": 1}
    shown = shell.call("penstock", "inspect", "l.pte", "--nodes").stdout
    assert "fully_connected(fp32[3, 3], fp32[3, 3], fp32[3]) -> fp32[3, 3]" in shown
    shell.fails("penstock", "inspect", "absent.pte", message="absent.pte")
    (shell.folder / "bad.pte").write_bytes(b"\0" * 100)
    shell.fails("penstock", "inspect", "bad.pte", message="bad.pte")


def test_run(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    done = shell.call("penstock", "run", "l.pte", "-n", "3", "--output-file", "y.npy")
    assert done.returncode == 0 and "latency of 3 executions" in done.stdout
    assert np.load(shell.folder / "y.npy").shape == (3, 3)
    shell.fails("penstock", "run", "absent.pte", message="absent.pte")
