"""Modules that torchao's ``quantize_`` has quantized: with their own weights, on both runtimes."""

from __future__ import annotations

import logging
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penstock
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind

logging.disable(logging.WARNING)  # torchao says which of its extensions it lacks
from torchao.quantization import (  # noqa: E402
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    quantize_,
)
from torchao.quantization.granularity import PerAxis, PerGroup, PerRow, PerTensor  # noqa: E402

logging.disable(logging.NOTSET)

torch.manual_seed(0)


def activations(weights: torch.dtype, granularity: Any, **options: Any) -> Any:
    return Int8DynamicActivationIntxWeightConfig(
        weight_dtype=weights, weight_granularity=granularity, **options
    )


def int8_activations(granularity: Any, mapping: MappingType = MappingType.SYMMETRIC) -> Any:
    return Int8DynamicActivationInt8WeightConfig(granularity=granularity, act_mapping_type=mapping)


def weights_only(weights: torch.dtype, granularity: Any) -> Any:
    return IntxWeightOnlyConfig(weight_dtype=weights, granularity=granularity)


ROW, BLOCKS = PerAxis(0), PerGroup(32)
ASYMMETRIC = MappingType.ASYMMETRIC

#: name → (configuration, the weights' type in the delegate, least SQNR against eager in dB).
#: Where activations are torchao's and the scales float32, only rounding differs: an activation that
#: is rounded the other way costs some 60 dB. Scales of blocks are bfloat16 in XNNPACK. Symmetric
#: activations, one scale for all of them, and those of weights that XNNPACK does not know, are
#: quantized otherwise or not at all.
CASES: dict[str, tuple[Any, DataType, float]] = {
    "8da4w in blocks": (activations(torch.int4, BLOCKS), DataType.QBINT4, 42),
    "8da4w a row": (activations(torch.int4, ROW), DataType.QCINT4, 50),
    "8da2w in blocks": (activations(torch.int2, BLOCKS), DataType.QBINT4, 42),
    "8da8w a row": (activations(torch.int8, ROW), DataType.QCINT8, 50),
    "8da8w symmetric": (Int8DynamicActivationInt8WeightConfig(), DataType.QCINT8, 34),
    "8da8w asymmetric": (int8_activations(PerRow(), ASYMMETRIC), DataType.QCINT8, 50),
    "8da8w symmetric, one scale": (int8_activations(PerTensor()), DataType.QCINT8, 34),
    "8da8w asymmetric, one scale": (
        int8_activations(PerTensor(), ASYMMETRIC), DataType.QCINT8, 34,
    ),
    "8 bits, one scale": (
        Int8WeightOnlyConfig(granularity=PerTensor()), DataType.QCINT8, 100,
    ),
    "8 bits": (Int8WeightOnlyConfig(), DataType.QCINT8, 100),
    "8 bits a row": (weights_only(torch.int8, ROW), DataType.QCINT8, 100),
    "4 bits a row": (weights_only(torch.int4, ROW), DataType.QCINT4, 100),
    "4 bits in blocks": (weights_only(torch.int4, BLOCKS), DataType.FP32, 100),
    "8da8w in blocks": (activations(torch.int8, BLOCKS), DataType.FP32, 38),
    "8da4w in small blocks": (activations(torch.int4, PerGroup(16)), DataType.FP32, 38),
    "8da4w asymmetric": (
        activations(torch.int4, BLOCKS, weight_mapping_type=MappingType.ASYMMETRIC),
        DataType.FP32, 38,
    ),
}  # fmt: skip


class Block(nn.Module):
    """Attention and a gated pair of layers; biases, slices of products, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.qkv, self.out = nn.Linear(64, 192, bias=False), nn.Linear(64, 64)
        self.up, self.gate, self.down = nn.Linear(64, 128), nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (4, 16)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        hidden = self.norm(x)
        return x + self.down(torch.relu(self.gate(hidden)) * self.up(hidden))


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU6(), nn.Linear(128, 32))


def quantized(make: Callable[[], nn.Module], name: str) -> nn.Module:
    torch.manual_seed(0)
    model = make().eval()
    quantize_(model, CASES[name][0])
    return model


def sqnr_db(model: nn.Module, program: penstock.Program, *inputs: Tensor) -> float:
    with torch.no_grad():
        reference = model(*inputs).double().numpy()
    (found,) = program(*inputs)
    noise = float(np.square(reference - found).sum())
    return 10 * math.log10(float(np.square(reference).sum()) / noise) if noise else math.inf


def filters(data: bytes) -> set[DataType]:
    """The types of the weights of all products."""
    program = read_program(data)
    graphs = [
        read_payload(delegate.payload, program.named_data)
        for method in program.methods
        for delegate in method.delegates
    ]
    return {
        graph.values[node.inputs[1]].dtype
        for graph in graphs
        for node in graph.nodes
        if node.kind is NodeKind.FULLY_CONNECTED
    }


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    model, x = quantized(layers, name), torch.randn(5, 64)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated
    data = lowered.to_bytes()
    _, dtype, least = CASES[name]
    assert filters(data) == {dtype}
    assert sqnr_db(model, penstock.load(data), x) > least
    kernels = penstock.load(penstock.lower(model, (x,), delegate=False).to_bytes())
    assert sqnr_db(model, kernels, x) > (34 if "symmetric" in name else 50)


@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 3, 64)])
@pytest.mark.parametrize("name", ["8da4w in blocks", "8da8w symmetric", "8 bits", "4 bits a row"])
def test_shapes(name: str, shape: tuple[int, ...]) -> None:
    model, x = quantized(layers, name), torch.randn(shape)
    program = penstock.load(penstock.lower(model, (x,)).to_bytes())
    assert sqnr_db(model, program, x) > CASES[name][2] - 3


@pytest.mark.parametrize("name", ["8da4w in blocks", "8da8w symmetric", "8da8w a row", "8 bits"])
def test_dynamic_sizes(name: str) -> None:
    model = quantized(Block, name)
    sizes = {0: torch.export.Dim("batch", max=4), 1: torch.export.Dim("tokens", max=16)}
    lowered = penstock.lower(model, (torch.randn(2, 7, 64),), dynamic_shapes={"x": sizes})
    assert not lowered.delegation.undelegated
    program = penstock.load(lowered.to_bytes())
    for shape in ((1, 16, 64), (4, 1, 64), (2, 3, 64)):
        assert sqnr_db(model, program, torch.randn(shape)) > CASES[name][2]


@pytest.mark.parametrize("name", CASES)
def test_exported_programs(name: str, tmp_path: Path) -> None:
    model, x = quantized(Block, name), torch.randn(2, 7, 64)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    lowered = penstock.lower(tmp_path / "model.pt2")
    assert sqnr_db(model, penstock.load(lowered.to_bytes()), x) > CASES[name][2]


@pytest.mark.parametrize("dtype", [torch.int2, torch.int4, torch.int8])
def test_embeddings(dtype: torch.dtype) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(500, 64), nn.Linear(64, 10)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids))

    model = Rows().eval()
    quantize_(model, weights_only(dtype, BLOCKS), lambda m, _: isinstance(m, nn.Embedding))
    quantize_(model, activations(torch.int8, ROW))
    ids = torch.randint(0, 500, (2, 5))
    lowered = penstock.lower(model, (ids,))
    # (Rows of so few values have ties where activations are rounded.)
    assert sqnr_db(model, penstock.load(lowered.to_bytes()), ids) > 40
    assert len(lowered.to_bytes()) < 500 * 64 + 12_000


@pytest.mark.parametrize("mapping", [None, MappingType.SYMMETRIC, ASYMMETRIC])
def test_static_activations(mapping: MappingType | None) -> None:
    """Known scales: int8 from layer to layer; the last one's result is not quantized."""
    model, x = layers().eval(), torch.randn(5, 64)
    scale = torch.tensor([[0.03]])
    point = torch.tensor([[-5]], dtype=torch.int8) if mapping is ASYMMETRIC else None
    granularity = [PerTensor(), PerRow()] if mapping is None else PerTensor()
    config = Int8StaticActivationInt8WeightConfig(
        scale, point, granularity=granularity, act_mapping_type=mapping or MappingType.SYMMETRIC
    )
    quantize_(model, config)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated
    data = lowered.to_bytes()
    assert DataType.QCINT8 in filters(data) and DataType.FP32 not in filters(data)
    assert sqnr_db(model, penstock.load(data), x) > 40  # a step here and there


def test_zero_points_that_torchao_forgets_are_refused() -> None:
    model = layers().eval()
    scale, point = torch.tensor([[0.03]]), torch.tensor([[-5]], dtype=torch.int8)
    config = Int8StaticActivationInt8WeightConfig(scale, point, granularity=PerTensor())
    quantize_(model, config)
    with pytest.raises(penstock.UnsupportedError, match="quantizes in a way that is not known"):
        penstock.lower(model, (torch.randn(5, 64),))


def is_table_or_layer(module: nn.Module, _: str) -> bool:
    return isinstance(module, (nn.Embedding, nn.Linear))


def embedded(granularity: Any) -> nn.Module:
    model = nn.Sequential(nn.Embedding(500, 64), nn.Linear(64, 10)).eval()
    quantize_(model, Int8WeightOnlyConfig(granularity=granularity), is_table_or_layer)
    return model


@pytest.mark.parametrize("granularity", [PerRow(), PerTensor(), PerGroup(32)])
def test_embeddings_of_eight_bits(granularity: Any) -> None:
    model, ids = embedded(granularity), torch.randint(0, 500, (2, 5))
    lowered = penstock.lower(model, (ids,))
    assert sqnr_db(model, penstock.load(lowered.to_bytes()), ids) > 100
    assert len(lowered.to_bytes()) < 500 * 64 + 12_000


def test_beside_static_quantization() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).relu().mean((2, 3)))

    model, x = Mixed().eval(), torch.randn(2, 3, 8, 8)
    quantize_(model, activations(torch.int8, ROW))
    lowered = penstock.lower(model, (x,), quantize="static", calibration=[(x,)])
    assert sqnr_db(model, penstock.load(lowered.to_bytes()), x) > 30


@pytest.mark.parametrize("name", ["4 bits in blocks", "8da4w asymmetric"])
def test_weights_that_grow_are_noticed(name: str) -> None:
    model = quantized(lambda: nn.Linear(1024, 1024), name)
    (notice,) = penstock.lower(model, (torch.randn(1, 1024),)).notices
    assert re.search(r"holds [23]\.\d MB of constants", notice.text), notice


def test_the_module_is_left_alone() -> None:
    model, x = quantized(layers, "8da4w in blocks"), torch.randn(5, 64)
    before = model(x)
    penstock.lower(model, (x,))
    assert torch.equal(model(x), before)


#: The stock runtime's answers to NAME.pte with NAME.in.npy: NAME.out.npy.
STOCK = """
import pathlib, sys
import numpy as np, torch
import executorch.kernels.quantized
from executorch.runtime import Runtime
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pte")):
    x = torch.from_numpy(np.load(path.with_suffix(".in.npy")))
    method = Runtime.get().load_program(path).load_method("forward")
    np.save(path.with_suffix(".out.npy"), method.execute([x])[0].numpy())
"""


def test_the_same_bits_on_the_stock_runtime(tmp_path: Path) -> None:
    ours = {}
    for name in CASES:
        model, x = quantized(Block, name), torch.randn(2, 7, 64)
        lowered = penstock.lower(model, (x,))
        lowered.save(tmp_path / f"{name}.pte")
        np.save(tmp_path / f"{name}.in.npy", x.numpy())
        file = tmp_path / f"{name}.pte"
        (ours[name],) = penstock.load(file, threads=1, engine="xnnpack")(x)
    command = [sys.executable, "-W", "ignore", "-c", STOCK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    for name, found in ours.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.out.npy"), found), name
