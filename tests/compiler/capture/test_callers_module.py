"""``lower`` leaves the caller's module as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penstock


class Stateful(nn.Module):
    """Batch norm, dropout, a frozen part, buffers written in place, by slices and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(2, 5))
        self.register_buffer("table", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(torch.relu_(self.norm(self.conv(x))).mean((2, 3)))
        y = self.frozen(self.head(y)) + self.last + self.table[1:].clone().mul_(0.1)
        self.calls.add_(1.0)
        self.last.copy_(y)
        return y


def _picture(model: nn.Module) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "objects": {name: (id(t), t.data_ptr(), t._version) for name, t in tensors.items()},
        "gradients": {name: (t.requires_grad, t.grad) for name, t in tensors.items()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "parts": [(name, type(module)) for name, module in model.named_modules()],
        "attributes": sorted(vars(model)),
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"quantize": "static"}, {"quantize": "dynamic"}])
def test_nothing_changes(options: dict[str, Any], training: bool) -> None:
    model = Stateful().train(training)
    model.drop.train(not training)
    x = torch.randn(2, 3, 8, 8)
    if options.get("quantize") == "static":
        options = {**options, "calibration": [(torch.randn(2, 3, 8, 8),) for _ in range(3)]}
    before, data = _picture(model), x.clone()
    lowered = penstock.lower(model, (x,), **options)
    if lowered.quantization is not None:
        lowered.quantization.table()
    lowered.to_bytes()
    after = _picture(model)
    for name, value in before.pop("values").items():
        assert torch.equal(value, after["values"][name]), name
    del after["values"]
    assert after == before
    assert torch.equal(x, data)


def test_as_it_was_after_an_error_too() -> None:
    class Broken(Stateful):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    model = Broken().train()
    before = _picture(model)
    with pytest.raises(penstock.ExportError):
        penstock.lower(model, (torch.randn(2, 3, 8, 8),))
    assert _picture(model)["modes"] == before["modes"]
    assert torch.equal(model.last, before["values"]["last"])
