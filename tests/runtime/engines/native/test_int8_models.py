"""Whole int8 models: our own kernels give the bits that XNNPACK gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from native_harness import ISAS, native, xnnpack

import penstock


class Net(torch.nn.Module):
    """What convolutional networks are made of: a stem, a depthwise block with a squeeze and SiLU,
    a residual, a pool, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, 2, 1)
        self.expand = torch.nn.Conv2d(16, 48, 1)
        self.depthwise = torch.nn.Conv2d(48, 48, 5, padding=2, groups=48)
        self.squeeze = torch.nn.Conv2d(48, 10, 1)
        self.excite = torch.nn.Conv2d(10, 48, 1)
        self.project = torch.nn.Conv2d(48, 16, 1)
        self.wide = torch.nn.Conv2d(16, 32, 3, padding=1)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.silu(self.stem(x))
        y = torch.nn.functional.silu(self.depthwise(torch.relu(self.expand(x))))
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = torch.relu(self.wide(x + self.project(y * scale)))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("int8") / "net.pte"
    penstock.lower(Net().eval(), (torch.randn(1, 3, 45, 47),), quantize="static").save(path)
    return path


_RUN = """
import sys
import numpy as np
import penstock
program = penstock.load(sys.argv[1], engine=sys.argv[2], threads=int(sys.argv[3]))
(answer,) = program(np.load(sys.argv[4]))
np.save(sys.argv[5], answer)
"""


@pytest.mark.parametrize("isa", ISAS)
def test_the_same_bits(isa: str, file: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 45, 47), np.float32)
    np.save(tmp_path / "x.npy", x)
    (expected,) = penstock.load(file, engine="xnnpack")(x)
    assert len(np.unique(expected)) > 3
    for engine, threads in (("native", 1), ("auto", 2)):
        answer = tmp_path / f"{engine}.npy"
        command = [sys.executable, "-c", _RUN, file, engine, str(threads), tmp_path / "x.npy"]
        environment = {**os.environ, "PENSTOCK_ISA": isa}
        subprocess.run([*command, answer], check=True, env=environment, timeout=120)
        np.testing.assert_array_equal(np.load(answer), expected)


def test_most_nodes_are_ours(file: Path) -> None:
    program = penstock.load(file, engine="native", profile=True, threads=1)
    program(np.zeros((1, 3, 45, 47), np.float32))
    (delegate,) = (i for i in program.profile().instructions if i.nodes)
    ours = [n.kind for n in delegate.nodes if any("qs8" in name for name in n.operators)]
    assert ours.count("CONV_2D") >= 6 and "DEPTHWISE_CONV_2D" in ours and "FULLY_CONNECTED" in ours
    assert sum(any("lut8" in name for name in n.operators) for n in delegate.nodes) >= 2


@pytest.mark.parametrize("isa", ISAS)
def test_a_clamp_of_another_scale(isa: str) -> None:
    """The stock flow writes clamps with scales of their own behind convolutions. XNNPACK makes one
    node of the two, which rounds once; a cut between them would round twice."""
    file = Path(__file__).parents[3] / "formats" / "stock" / "image_q8.pte"
    theirs = penstock.load(file, engine="xnnpack")
    ours = penstock.load(file, engine=[native(isa), xnnpack()])
    for x in np.random.default_rng(0).standard_normal((20, 1, 3, 16, 16), np.float32):
        np.testing.assert_array_equal(ours(x), theirs(x))
