"""Complex numbers as pairs: what the graphs become, and what is refused. That the answers are
eager's is shown in ``emit/complex_cases.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.rewrite import pipelines
from penstock.errors import UnsupportedError

aten = torch.ops.aten
Z = torch.randn(3, 4, dtype=torch.complex64)


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Hearing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(256))
        self.net = nn.Sequential(nn.Conv1d(129, 32, 3), nn.ReLU(), nn.Conv1d(32, 8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 256, 64, window=self.window, center=False, return_complex=True)
        result: torch.Tensor = self.net((spectrum.abs() ** 2 + 1e-6).log())
        return result


def targets(module: torch.fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def rewritten(function: Callable[..., Any], x: torch.Tensor) -> torch.fx.GraphModule:
    module = capture(Call(function), (x,)).module
    pipelines.run(module)
    return module


def test_no_complex_tensor_is_left_between_real_ones() -> None:
    module = rewritten(
        lambda x: torch.view_as_real(torch.fft.fft(x) * 1j).sum() + torch.fft.rfft(x).real.sum(),
        torch.randn(3, 60),
    )
    assert not any(node.meta["val"].dtype.is_complex for node in module.graph.nodes
                   if isinstance(node.meta.get("val"), torch.Tensor))  # fmt: skip


@pytest.mark.parametrize("square", [lambda x: x**2, torch.square, lambda x: x * x])
def test_the_square_of_a_modulus_has_no_root(square: Callable[..., Any]) -> None:
    found = targets(rewritten(lambda x: square(torch.fft.rfft(x).abs()), torch.randn(3, 8)))
    assert aten.sqrt.default not in found
    kept = targets(rewritten(lambda x: torch.fft.rfft(x).abs(), torch.randn(3, 8)))
    assert aten.sqrt.default in kept


def test_what_the_kernel_gives_is_not_taken_apart() -> None:
    """A spectrum that is given out as it is: one kernel, no pair."""
    found = targets(rewritten(torch.fft.rfft, torch.randn(3, 1009)))
    assert found == [aten._fft_r2c.default]


def test_matrices_stay_small() -> None:
    """A product with the whole matrix of 1,024 values would need 4 MB."""
    window = torch.hann_window(1024)
    model = Call(lambda x: torch.stft(x, 1024, 256, window=window, center=False,
                                      return_complex=True).abs())  # fmt: skip
    lowered = penstock.lower(model, (torch.randn(1, 8000),))
    assert not lowered.delegation.undelegated
    assert len(lowered.to_bytes()) < 100_000


def test_spectra_stay_in_float() -> None:
    """Their range is far beyond int8's; the network behind is quantized."""
    torch.manual_seed(0)
    model, batches = Hearing().eval(), [(torch.randn(1, 4000),) for _ in range(4)]
    lowered = penstock.lower(model, batches[0], quantize="static", calibration=batches)
    report = lowered.quantization
    assert report is not None
    assert [layer.operator for layer in report.quantized if "convolution" in layer.operator]
    assert any("spectrum" in layer.reason for layer in report.floating)
    (found,) = penstock.load(lowered.to_bytes())(batches[1][0])
    expected = model(batches[1][0]).detach().numpy()
    noise = np.square(found - expected).mean() / np.square(expected).mean()
    assert -10 * np.log10(noise) > 25


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.linalg.svdvals, "linalg_svdvals.* of complex numbers.*test_complex_pairs.py"),
        (lambda x: torch.logaddexp(x, x), "logaddexp.* of complex numbers.*test_complex_pairs.py"),
        (lambda x: torch.istft(x, 4, 1, window=x[0].real), "istft.*window is computed at run time"),
    ],
)
def test_what_has_no_real_form_is_named_with_its_place(
    function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        penstock.lower(Call(function), (Z,))


def test_the_inverse_of_a_dynamic_number_of_frames() -> None:
    model = Call(lambda x: torch.istft(x, 4, 1, window=torch.ones(4)))
    sizes = {"dynamic_shapes": (({1: Dim.DYNAMIC(min=8, max=20)}),)}
    with pytest.raises(UnsupportedError, match="istft.*number of frames is dynamic"):
        penstock.lower(model, (torch.randn(3, 9, dtype=torch.complex64),), **sizes)


def test_complex_state_is_refused() -> None:
    class State(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(4, dtype=torch.complex64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x[0])
            return self.total.real * 2

    with pytest.raises(UnsupportedError, match="complex buffer total"):
        penstock.lower(State(), (Z,))
