"""Models of PyTorch's older quantization, and prepared ones: what they are and what to do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

import penstock
from penstock.compiler.quantize import XNNPACKQuantizer

X = torch.randn(2, 8)


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def dynamic() -> nn.Module:
    return quantization.quantize_dynamic(layers(), {nn.Linear})  # type: ignore[no-any-return]


def prepared() -> nn.Module:
    mapping = quantization.get_default_qconfig_mapping("x86")
    model = quantize_fx.prepare_fx(layers(), mapping, (X,))
    model(X)
    return model


def static() -> nn.Module:
    torch.backends.quantized.engine = "x86"
    return quantize_fx.convert_fx(prepared())


def reference() -> nn.Module:
    return quantize_fx.convert_to_reference_fx(copy.deepcopy(prepared()))


def prepared_by_torchao() -> nn.Module:
    exported = torch.export.export(layers(), (X,)).module()
    model = prepare_pt2e(exported, XNNPACKQuantizer("static"))
    model(X)
    return model


def quantized_buffer() -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.quantize_per_tensor(torch.randn(8, 4), 0.1, 0, torch.qint8)
            self.register_buffer("table", weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.table.dequantize()

    return Model()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (dynamic, r"0, a torch\.ao\.nn\.quantized.*, computes with .*quantize=\.\.\."),
        (static, r"0, a torch\.ao\.nn\..*quantized.*, computes with quantized tensors"),
        (reference, r"0, a torch\.ao\.nn\.quantized\.reference.*, computes with quantized tensors"),
        (prepared, r"prepared for quantization, and not converted \(.*Observer\): give .*convert_"),
        (prepared_by_torchao, r"prepared for quantization, and not converted .*convert_pt2e"),
        (quantized_buffer, r"table is a quantized tensor of PyTorch's \(torch\.qint8\)"),
    ],
)  # fmt: skip
def test_they_are_named(make: Callable[[], nn.Module], what: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make()
    with pytest.raises(penstock.ExportError, match=what) as failure:
        penstock.lower(model, (X,))
    assert "\n" not in str(failure.value)
