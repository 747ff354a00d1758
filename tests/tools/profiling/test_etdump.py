"""ETDumps and ETRecords, as the stock ``Inspector`` sees them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.errors import InputError
from penstock.formats import etdump, schema
from penstock.formats.flatbuffer import decode
from penstock.runtime.program import load
from penstock.tools.profiling.etdump import etdump_of
from penstock.tools.profiling.measure import Call, measure

STOCK = Path(__file__).parents[2] / "formats" / "stock"
needs_stock = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs the executorch package"
)


class Net(nn.Module):
    """Fused nodes, a kernel, numbers of several types, a module in a module, a written buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.count.add_(1)
        first, second = self.body(x).to(torch.device("cpu"), torch.float32).split(4, 1)
        pooled = torch.cat([second, first], 1).mean((2, 3))
        return self.head(pooled) + self.count, torch.sort(pooled)[0]


def inspected(etdump: Path, etrecord: Path | None = None) -> Any:
    command = [sys.executable, str(Path(__file__).with_name("inspector_on_stock.py")), str(etdump)]
    command += [str(etrecord)] if etrecord is not None else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def dumped(path: Path, program: bytes | Path, runs: int = 3) -> list[Call]:
    loaded = load(program, threads=1, profile=True)
    inputs = [np.ones(spec.shape, spec.dtype) for spec in loaded.method().inputs]
    calls = measure(loaded, None, inputs, runs=runs)
    method = loaded.program.method("forward")
    assert method is not None
    path.write_bytes(etdump_of(method, calls))
    return calls


@needs_stock
@pytest.mark.parametrize("scheme", [None, "static"])
def test_the_inspector_links_events_to_operators(scheme: str | None, tmp_path: Path) -> None:
    lowered = penstock.lower(
        Net(), (torch.randn(1, 3, 8, 8),), quantize=scheme, etrecord=True
    )  # fmt: skip
    lowered.save_etrecord(tmp_path / "net.etrecord")
    calls = dumped(tmp_path / "net.etdp", lowered.to_bytes())
    found = inspected(tmp_path / "net.etdp", tmp_path / "net.etrecord")
    (block,) = found["blocks"]
    assert block["name"] == "Execute"
    events = {event["name"]: event for event in block["events"]}
    whole = events["Method::execute"]["milliseconds"]
    assert whole == pytest.approx([1e3 * call.seconds for call in calls], rel=1e-3)
    # Each instruction and each node that has a time is there, with the times that we measured.
    for position, one in enumerate(calls[0].profile.instructions):
        for node in one.nodes:
            event = events[etdump.node_id(node.position, node.kind)]
            again = (call.profile.instructions[position].nodes for call in calls)
            same = (n for nodes in again for n in nodes if n.position == node.position)
            expected = [1e3 * n.seconds for n in same]
            assert event["milliseconds"] == pytest.approx(expected, abs=1e-3)
            assert event["delegated"] and event["backend"] == "XnnpackBackend"
            assert event["operators"], event["name"]
    convolution = next(e for name, e in events.items() if name.endswith(": CONV_2D"))
    assert "conv2d.default" in convolution["operators"]
    assert ["", "body", "body.0"] in convolution["modules"].values()
    assert any(__file__ in (trace or "") for trace in convolution["traces"].values())
    product = next(e for name, e in events.items() if name.endswith(": FULLY_CONNECTED"))
    assert product["operators"] == ["linear.default"]
    assert ["", "head"] in product["modules"].values()
    # sort is topk's kernel
    (kernel,) = (e for name, e in events.items() if name.startswith("native_call_topk"))
    assert kernel["operators"] == ["sort.default"] and not kernel["delegated"]
    assert "CONV_2D" in found["table"] and "linear.default" in found["table"]
    assert found["totals"]["head"] > 0 and found["totals"]["absent"] == 0


@needs_stock
@pytest.mark.parametrize("name", ["partly", "choice", "image_q8"])
def test_stock_files_without_a_record(name: str, tmp_path: Path) -> None:
    calls = dumped(tmp_path / "stock.etdp", STOCK / f"{name}.pte")
    found = inspected(tmp_path / "stock.etdp")
    (block,) = found["blocks"]
    expected = 1  # the call itself
    for one in calls[0].profile.instructions:
        expected += (one.calls > 0) * (1 + len(one.nodes) + one.label.startswith(("kernel", "op")))
    assert len(block["events"]) == expected


def test_our_own_reader_sees_what_was_written() -> None:
    runs = [
        [etdump.Event("Method::execute", 0, 9), etdump.Event("DELEGATE_CALL", 1, 8, 0)],
        [etdump.Event("0: ADD", 2, 5, 0, "0: ADD")],
    ]
    data = etdump.write_etdump(runs)
    assert int.from_bytes(data[:4], "little") == len(data) - 4 and data[8:12] == b"ED00"
    root = decode(schema.load("etdump"), memoryview(data)[4:], "the profile")
    assert [len(run.events) for run in root.run_data] == [2, 1]
    first, second = (event.profile_event for event in root.run_data[0].events)
    assert (first.name, first.instruction_id, first.chain_index) == ("Method::execute", -1, -1)
    assert (second.instruction_id, second.start_time, second.end_time) == (0, 1, 8)
    (node,) = (event.profile_event for event in root.run_data[1].events)
    assert node.name is None and node.delegate_debug_id_str == "0: ADD"
    assert node.delegate_debug_id_int == -1


def test_a_record_that_was_not_asked_for(tmp_path: Path) -> None:
    args = (torch.randn(2, 3),)
    lowered = penstock.lower(nn.Linear(3, 2), args)
    with pytest.raises(InputError, match="lower it with etrecord=True"):
        lowered.save_etrecord(tmp_path / "net.etrecord")
    asked = penstock.lower(nn.Linear(3, 2), args, etrecord=True)
    with pytest.raises(InputError, match="cannot write"):
        asked.save_etrecord(tmp_path / "absent" / "net.etrecord")
    asked.save_etrecord(tmp_path / "net.etrecord")
    with zipfile.ZipFile(tmp_path / "net.etrecord") as archive:
        assert "ETRECORD_V0" in archive.namelist()
        assert json.loads(archive.read("debug_handle_map")) == {"forward": {"0": [1]}}


@needs_stock
def test_sizes_that_vary_and_branches(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, self.left, self.right, (x,)).exp()

    lowered = penstock.lower(
        Branching(), (torch.randn(4, 3),), etrecord=True,
        dynamic_shapes=({0: torch.export.Dim("rows", max=8)},),
    )  # fmt: skip
    lowered.save_etrecord(tmp_path / "net.etrecord")
    dumped(tmp_path / "net.etdp", lowered.to_bytes())
    (block,) = inspected(tmp_path / "net.etdp", tmp_path / "net.etrecord")["blocks"]
    linked = {operator for event in block["events"] for operator in event["operators"]}
    assert "exp.default" in linked
