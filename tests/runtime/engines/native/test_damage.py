"""Damaged files run on our own kernels: an answer or an error, never a crash."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from test_plans import Residual
from torch import nn

import penstock


class Mixed(nn.Module):
    """All families of float kernels, and XNNPACK between them."""

    def __init__(self) -> None:
        super().__init__()
        self.residual = Residual()
        self.depthwise = nn.Conv2d(24, 24, 5, padding=2, groups=24)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        head, y = self.residual(x)
        return head, self.depthwise(y) + y


def damaged(data: bytes, draw: random.Random) -> bytes:
    copy = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        value = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        copy[draw.randrange(len(copy))] = value
    return bytes(copy)


def run_all(path: str) -> Counter[str]:
    """What becomes of damaged copies of a file."""
    data, draw = Path(path).read_bytes(), random.Random(0)
    x = np.ones((2, 3, 20, 22), np.float32)
    found: Counter[str] = Counter()
    for _ in range(120):
        try:
            penstock.load(damaged(data, draw), threads=1, engine="native")(x)
            found["answer"] += 1
        except penstock.PenstockError as error:
            found[type(error).__name__] += 1
    return found


def test_damage_at_random_never_crashes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for scheme in (None, "static", "dynamic"):
        lowered = penstock.lower(Mixed().eval(), (torch.randn(2, 3, 20, 22),), quantize=scheme)
        path = tmp_path / f"{scheme}.pte"
        lowered.save(path)
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            f"from test_damage import run_all; print(dict(run_all({str(path)!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, cwd=Path(__file__).parent,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "answer" in done.stdout and "InvalidProgramError" in done.stdout
