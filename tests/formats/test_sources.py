"""Source maps: round trips, damage, and files that the stock runtime still takes."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import penstock
from penstock.formats.sources import (
    KEY,
    MOST_BYTES,
    UNKNOWN,
    MethodSources,
    Origin,
    decode_sources,
    encode_sources,
)

ORIGINS = st.just(UNKNOWN) | st.builds(Origin, st.text(), st.text(), st.text())
TUPLES = st.lists(ORIGINS, max_size=4).map(tuple)
METHODS = st.builds(MethodSources, TUPLES, st.lists(TUPLES, max_size=3).map(tuple))


@given(st.dictionaries(st.text(), METHODS, max_size=3))
def test_round_trips(methods: dict[str, MethodSources]) -> None:
    assert decode_sources(encode_sources(methods)) == methods


@given(st.binary(max_size=40) | st.recursive(
    st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
).map(lambda value: json.dumps({"origins": value, "methods": value}).encode()))  # fmt: skip
def test_damage_is_an_error(data: bytes) -> None:
    for damaged in (data, zlib.compress(data)):
        try:
            decode_sources(damaged)
        except penstock.InvalidProgramError as error:
            assert "source map" in str(error)


def test_maps_that_claim_to_be_huge_are_an_error() -> None:
    with pytest.raises(penstock.InvalidProgramError, match="source map"):
        decode_sources(zlib.compress(b" " * (MOST_BYTES + 1)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).sort().values.tanh()


def test_profiles_name_modules_and_lines(tmp_path: Path) -> None:
    lowered = penstock.lower(Net(), (torch.randn(2, 4),))
    lowered.save(tmp_path / "net.pte")
    program = penstock.load(tmp_path / "net.pte", threads=1, profile=True)
    program(np.ones((2, 4), np.float32))
    instructions = program.profile().instructions
    nodes = [node for one in instructions for node in one.nodes]
    products = [node for node in nodes if node.kind == "FULLY_CONNECTED"]
    assert [node.origin.module for node in products] == ["features.0", "features.2"]
    assert products[0].origin.operator == "aten.linear.default"
    (last,) = [node for node in nodes if node.kind == "TANH"]
    name, _, line = last.origin.source.rpartition(":")
    assert Path(name).name == Path(__file__).name and not Path(name).is_absolute()
    assert "tanh()" in Path(__file__).read_text().splitlines()[int(line) - 1]
    kernels = [one.origin.operator for one in instructions if one.label.startswith("kernel")]
    assert any("topk" in operator or "sort" in operator for operator in kernels)


def test_without_sources() -> None:
    x = torch.randn(2, 4)
    torch.manual_seed(0)
    with_map, without = (penstock.lower(Net(), (x,), sources=asked) for asked in (True, False))
    assert KEY in with_map.program.named_data and KEY not in without.program.named_data
    assert b"features" not in without.to_bytes()


def test_the_stock_runtime_does_not_mind(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    net, x = Net(), torch.randn(2, 4)
    penstock.lower(net, (x,)).save(tmp_path / "net.pte")
    code = (
        "import sys, torch\nfrom executorch.runtime import Runtime\n"
        "method = Runtime.get().load_program(sys.argv[1]).load_method('forward')\n"
        "print(method.execute([torch.tensor(eval(sys.argv[2]))])[0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net.pte"), repr(x.tolist())],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = eval(done.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-5)
