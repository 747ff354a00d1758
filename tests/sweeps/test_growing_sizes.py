"""Graphs that are run at one size after another answer as if each were the first.

XNNPACK plans its memory for some shapes and plans again when it finds that it must; what it does
not find ends in garbage, a damaged heap or a crash. So the work is done in a process of its own,
under an allocator that checks for damage where there is one.
"""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import environment
from emit_harness import run_stock
from torch import nn

import penstock

CHILD = Path(__file__).parent / "growing_sizes.py"
CHECKED = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "85"}
#: glibc's allocator that checks.
CHECKING = "libc_malloc_debug.so.0"


def _run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=3600
    )
    samples = [line for line in done.stdout.splitlines() if not line.startswith("WRONG")]
    assert done.returncode == 0, f"{samples[-1:]} ended with {done.returncode}: {done.stderr}"
    assert len(samples) > 200
    assert "WRONG" not in done.stdout, done.stdout
    return done


def test_the_answer_does_not_depend_on_the_sizes_before() -> None:
    checking = {"LD_PRELOAD": CHECKING, **CHECKED} if sys.platform == "linux" else {}
    _run([sys.executable, str(CHILD)], **checking)


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_nothing_is_written_outside_what_was_allocated() -> None:
    """Reads may be: XNNPACK's kernels read up to 16 bytes past an end."""
    done = _run(
        [
            "valgrind", "--error-limit=no", "--undef-value-errors=no", "--leak-check=no",
            sys.executable, str(CHILD),
        ]
    )  # fmt: skip
    assert "Memcheck" in done.stderr
    report = done.stderr.split("Invalid ")
    writes = [part for part in report if part.startswith("write")]
    assert not writes, writes[0]


class Gap(nn.Module):
    """Squeeze and excitation, then a mean over height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.gate = nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu()
        return (x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()).mean((2, 3))


class SpaceToDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return self.conv(x.reshape(b, c * 4, h // 2, w // 2))


class Tokens(nn.Module):
    """Means over positions and over features, of positions that vary."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x.flatten(2).transpose(1, 2).repeat(1, 1, 4))
        y = y - y.mean(1, keepdim=True)
        return y * y.mean(-1, keepdim=True)


BATCH = {"x": {0: torch.export.Dim("batch", min=1, max=9)}}
SIDES = {"x": {2: 4 * torch.export.Dim("h", min=2, max=10),
               3: 4 * torch.export.Dim("w", min=2, max=10)}}  # fmt: skip
ORDER = {"batch": [(n, 16, 16) for n in (2, 4, 9, 1, 9, 3, 9)],
         "sides": [(1, 8, 8), (1, 8, 40), (1, 40, 8), (1, 24, 16), (1, 40, 40), (1, 8, 8),
                   (1, 40, 40)]}  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="needs executorch")
@pytest.mark.parametrize(
    "scheme",
    ["static", *(pytest.param(name, marks=pytest.mark.sweep) for name in (None, "dynamic"))],
)
def test_files_do_not_meet_it_on_the_stock_runtime(tmp_path: Path, scheme: Any) -> None:
    """XNNPACK's mean of integers grows badly there too, so it is left to floats where it would."""
    runs: dict[str, list[list[np.ndarray]]] = {}
    answers: dict[str, list[np.ndarray]] = {}
    for model in (Gap, SpaceToDepth, Tokens):
        for sizes, shapes in ORDER.items():
            if (model, sizes) == (SpaceToDepth, "batch"):
                continue
            torch.manual_seed(0)
            example = torch.randn(2 if sizes == "batch" else 1, 3, 16, 16)
            dynamic = BATCH if sizes == "batch" else SIDES
            data = penstock.lower(
                model().eval(), (example,), dynamic_shapes=dynamic, quantize=scheme
            ).to_bytes()
            inputs = [[torch.randn(b, 3, h, w).numpy()] for b, h, w in shapes]
            name = f"{model.__name__}-{sizes}"
            kept = penstock.load(data, threads=1)
            answers[name] = [kept(*args)[0].copy() for args in inputs]
            for args, answer in zip(inputs, answers[name], strict=True):
                fresh = penstock.load(data, threads=1)(*args)[0]
                np.testing.assert_array_equal(answer, fresh, err_msg=name)
            for variant, runs_ in ((name, inputs), *_each(name, inputs)):
                (tmp_path / f"{variant}.pte").write_bytes(data)
                (tmp_path / f"{variant}.in.pkl").write_bytes(pickle.dumps(runs_))
            runs[name] = inputs
    run_stock(tmp_path)
    for name, inputs in runs.items():
        found = pickle.loads((tmp_path / f"{name}.out.pkl").read_bytes())
        assert not isinstance(found, str), f"{name}: {found}"
        for i, (one, _) in enumerate(_each(name, inputs)):
            ((alone,),) = pickle.loads((tmp_path / f"{one}.out.pkl").read_bytes())
            np.testing.assert_array_equal(found[i][0], alone, err_msg=one)
            np.testing.assert_allclose(answers[name][i], alone, atol=1e-5, err_msg=one)


def _each(name: str, inputs: list[list[np.ndarray]]) -> list[tuple[str, list[list[np.ndarray]]]]:
    """A file for each run, so that it is the first."""
    return [(f"{name}-{i}", [args]) for i, args in enumerate(inputs)]
