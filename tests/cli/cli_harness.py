"""Commands as a user calls them, in a folder with models of the user's own."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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


def seeded():
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(16, 16), torch.nn.ReLU())]
    samples = [(torch.randn(32, 16),) for _ in range(8)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 4))
    return {"model": model, "args": samples[0], "calibration": samples}


def batches():
    return [(torch.randn(1, 3, 8, 8),) for _ in range(3)]


def misfit():
    return [(torch.randn(1, 4, 8, 8),)]


def empty():
    return []


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


def needs(config, width):
    return Net()


def leaves():
    raise SystemExit(3)


class Constant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self):
        return self.weight * 2


def without_inputs():
    return Constant(), ()


def program():
    model, args = net()
    return torch.export.export(model.eval(), args)


class Pair(torch.nn.Module):
    def forward(self, first, second):
        return first @ second.mT


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
