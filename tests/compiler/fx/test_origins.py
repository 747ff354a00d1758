"""Where nodes come from: always a module and a line of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.fx.origins import module_path, origin, source_line
from penstock.formats.sources import KEY, UNKNOWN, decode_sources

HERE = Path(__file__).name


class Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.flat = Flat()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.linear(x))
        return self.flat(y + torch.arange(y.shape[1])[None, :, None])


class Flat(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, x.shape[1] * 2, 4)


@pytest.mark.parametrize("strict", [False, True])
def test_sizes_that_export_adds_come_from_who_reads_them(strict: bool) -> None:
    """They have a module and a line of torch's own otherwise, and hand that on in rewrites."""
    length = {1: Dim("length", min=2, max=16)}
    x = torch.randn(2, 5, 8)
    exported = torch.export.export(Sized(), (x,), dynamic_shapes=(length,), strict=strict)
    added = [n for n in exported.graph.nodes if "_empty_nn" in str(n.meta.get("nn_module_stack"))]
    assert added, "torch.export adds none anymore: this test checks nothing"
    nodes = [n for n in capture(exported).module.graph.nodes if n.op == "call_function"]
    assert {_file(origin(node).source) for node in nodes} == {HERE}
    assert {origin(node).module for node in nodes} == {"", "linear", "flat"}
    sizes = [node for node in nodes if node.target is torch.ops.aten.sym_size.int]
    assert sizes and all(source_line(node) == source_line(min(node.users)) for node in sizes)

    written = decode_sources(penstock.lower(exported).program.named_data[KEY])["forward"]
    origins = [*written.instructions, *(one for delegate in written.delegates for one in delegate)]
    known = [one for one in origins if one != UNKNOWN]  # calls of delegates are from nowhere
    assert known and {_file(one.source) for one in known} == {HERE}


def _file(line: str) -> str:
    return Path(line.rpartition(":")[0]).name


@pytest.mark.parametrize("strict, files", [(False, {"linear.py", "activation.py"}), (True, {""})])
def test_a_model_of_torchs_modules_alone(strict: bool, files: set[str]) -> None:
    """Has no line of its own: that of torch's module is shown, and never one of the exporter's."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    exported = torch.export.export(model, (torch.randn(2, 4),), strict=strict)
    nodes = [n for n in exported.graph.nodes if n.op == "call_function"]
    assert {_file(source_line(node)) for node in nodes} == files


def test_older_paths_of_modules() -> None:
    node = torch.fx.Graph().placeholder("x")
    node.meta["nn_module_stack"] = {"L__self__": ("", None), "b": ("L['self'].layers.0", None)}
    assert module_path(node) == "layers.0"
    node.meta["nn_module_stack"] = {"L__self__": ("L['self']", None)}
    assert module_path(node) == ""
