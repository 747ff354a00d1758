"""Weights of 4 bits in blocks: the search for scales, what stays 8 bits, and both runtimes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from emit_harness import run_stock
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import penstock
from penstock.compiler.quantize import XNNPACKQuantizer
from penstock.compiler.quantize.blocks import BlockObserver, block_scales
from penstock.compiler.quantize.quantization import Quantization
from penstock.errors import QuantizationError


def error(matrix: torch.Tensor, scales: torch.Tensor, block: int) -> torch.Tensor:
    blocks = matrix.reshape(len(matrix), -1, block)
    scales = scales.unsqueeze(-1)
    return (blocks - scales * (blocks / scales).round().clamp(-8, 7)).square().sum(-1)


@pytest.mark.parametrize("block", [32, 64])
def test_scales(block: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(7, 4 * block) * torch.logspace(-12, 12, 7).unsqueeze(1)
    matrix[0] = 0.0
    matrix[1, 3] = 50.0
    scales = block_scales(matrix, block)
    assert scales.shape == (7, 4) and bool((scales > 0).all())
    assert torch.equal(scales, scales.to(torch.bfloat16).float())
    blocks = matrix.reshape(7, -1, block)
    plain = torch.maximum(blocks.amax(-1) / 7, blocks.amin(-1) / -8).clamp(min=1e-30)
    plain = plain.to(torch.bfloat16).float()
    found, usual = error(matrix, scales, block), error(matrix, plain, block)
    assert bool((found <= usual).all()) and bool(
        (found[2:].sum(-1) < 0.95 * usual[2:].sum(-1)).all()
    )


def test_what_4_bits_hold_comes_out_exactly() -> None:
    torch.manual_seed(0)
    scales = torch.rand(5, 3).to(torch.bfloat16).float() + 0.5
    scales = scales.to(torch.bfloat16).float()
    integers = torch.randint(-8, 8, (5, 3, 32))
    integers[..., 0] = -8
    integers[..., 1] = 7
    observer = BlockObserver(block=32, dtype=torch.int8, quant_min=-8, quant_max=7)
    matrix = (integers * scales.unsqueeze(-1)).reshape(5, -1)
    observer(matrix)
    assert torch.equal(observer.calculate_qparams()[0], scales)
    assert torch.equal(observer.integers(matrix).reshape(integers.shape).long(), integers)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(64, 96)
        self.odd = nn.Linear(96, 40)
        self.narrow = nn.Linear(40, 64, bias=False)
        self.shared = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.narrow(self.odd(torch.tanh(self.wide(x)))))
        return self.head(self.shared(self.shared(x))).unsqueeze(0)


def test_both_runtimes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(5, 64)
    lowered = penstock.lower(model, (x,), quantize="4bit")
    assert lowered.quantization is not None
    forms = {layer.module: layer.form for layer in lowered.quantization.quantized}
    assert forms == {
        "wide": "int4 in blocks of 32",
        "odd": "int4 in blocks of 32",
        "narrow": "int8: blocks of 32 do not divide its 40 inputs",
        "shared": "int4 in blocks of 32",
        "head": "int8: its result is the model's",
    }
    assert "4 bits" not in str(lowered.quantization).splitlines()[0]
    lowered.save(tmp_path / "model.pte")
    (tmp_path / "model.in.pkl").write_bytes(pickle.dumps([[x.numpy()]]))
    run_stock(tmp_path)
    ((stock,),) = pickle.loads((tmp_path / "model.out.pkl").read_bytes())
    (found,) = penstock.load(tmp_path / "model.pte", engine="xnnpack")(x.numpy())
    np.testing.assert_array_equal(found, stock)
    wanted = model(x).detach().numpy()
    ratio = np.square(wanted).sum() / np.square(wanted - found).sum()
    assert 10 * np.log10(ratio) > 15
    eight = penstock.lower(model, (x,), quantize="dynamic")
    assert len(lowered.to_bytes()) < 0.8 * len(eight.to_bytes())


def test_overrides_and_larger_blocks() -> None:
    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(5, 64)
    scheme = Quantization("dynamic", overrides={"shared": "dynamic_4bit"}, block=64)
    lowered = penstock.lower(model, (x,), quantize=scheme)
    assert lowered.quantization is not None
    forms = {layer.module: layer.form for layer in lowered.quantization.quantized}
    assert forms["shared"] == "int4 in blocks of 64" and forms["wide"] == "int8"


@pytest.mark.parametrize("block", [0, 16, 33, -32, "32"])
def test_blocks_that_xnnpack_has_not(block: int) -> None:
    with pytest.raises(QuantizationError, match="multiple of 32"):
        Quantization("4bit", block=block)


def test_in_torchaos_flow() -> None:
    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(5, 64)
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), XNNPACKQuantizer("4bit"))
    prepared(x)
    converted = convert_pt2e(prepared)
    weights = [b for b in converted.buffers() if b.dtype == torch.int8 and b.shape == (64, 64)]
    assert len(weights) == 1, "the shared layer's weight is there twice"
    by_hand = penstock.lower(torch.export.export(converted, (x,)))
    assert not by_hand.delegation.undelegated
    (found,) = penstock.load(by_hand.to_bytes())(x)
    (expected,) = penstock.load(penstock.lower(model, (x,), quantize="4bit").to_bytes())(x)
    np.testing.assert_array_equal(found, expected)
