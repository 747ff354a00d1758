"""Complex numbers, Fourier transforms and spectrograms: in, out and within."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from emit_cases import KERNELS_ONLY, Call, of
from emit_harness import Case
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

C64 = torch.complex64


def numbers(*shape: int, dtype: torch.dtype = C64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


Z, Y = numbers(2, 3, 8), numbers(2, 3, 8, seed=1)
FILTERS = numbers(4, 3, 3)

#: Each is called with two complex tensors.
FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "arithmetic": lambda x, y: (x * y + 2 * x - 1j * y) / (y + 3),
    "reversed": lambda x, y: (1 - x, 2 / x, 1j - y, 3j / y),
    "with_real": lambda x, y: (x * y.real, x / y.abs(), x + y.imag, y.real - x),
    "parts": lambda x, y: (x.real, y.imag, x.abs(), y.angle(), torch.view_as_real(x)),
    "conjugates": lambda x, y: (x.conj() * y, torch.conj_physical(x), y.mH.contiguous()),
    "exponentials": lambda x, y: (x.exp(), x.log(), y.sqrt(), x.log10(), x.log1p(), x.expm1()),
    "trigonometry": lambda x, y: (x.sin(), x.cos(), (10 * x).tanh(), y.sigmoid()),
    "powers": lambda x, y: (x**2, x**3, x**0.5, x**-1, x**y, 2**y, x.square()),
    "signs": lambda x, y: (x.sgn(), (x * 0).sgn(), x.reciprocal()),
    "sums": lambda x, y: (x.sum(), x.mean(1), y.sum((0, 1)), y.cumsum(-1), x.prod(), x.cumprod(1)),
    "spread": lambda x, y: (x.var(), y.std(-1), torch.linalg.vector_norm(x, dim=1)),
    "comparisons": lambda x, y: (x == y, x != x, torch.isnan(x), torch.isfinite(y)),
    "choices": lambda x, y: (
        torch.where(x.real > 0, x, y), torch.where(x.real > 0, x, 0),
        x.masked_fill(x.abs() > 1, 0), x.masked_fill(x.abs() > 1, 1j),
    ),
    "casts": lambda x, y: (x.to(torch.complex128), x.real.to(C64) + y, y + 1),
    "movement": lambda x, y: (
        x.permute(2, 0, 1)[1:, 0], x.flip(-1), x.roll(1, -1), x[:, :, ::2],
        torch.cat([x, y.real.to(C64)], 1), torch.stack(x.unbind(1)), y.chunk(2, -1)[1],
        x.split([3, 5], -1)[0], F.pad(y, (1, 2)), x[:, [0, 2]], x.T.reshape(-1),
    ),
    "products": lambda x, y: (x @ y.mT, torch.einsum("bxy,bzy->xz", x, y), torch.outer(x[0, 0],
                              y[0, 0]), x @ torch.eye(8).to(C64), torch.kron(x[0], y[1])),
    "made": lambda x, y: (
        torch.complex(x.real, y.imag), torch.polar(x.abs(), y.imag), torch.exp(1j * x.real),
        torch.zeros(2, 3, 8, dtype=C64) + x, torch.ones_like(x) * y, torch.full_like(x, 2j),
    ),
    "written": lambda x, y: x.clone().mul_(2j).add_(y),
    "untouched": lambda x, y: (x, y.real),
    "as_real_pairs": lambda x, y: torch.view_as_complex(F.relu(torch.view_as_real(x))) * y,
    "convolution": lambda x, y: F.conv1d(x, FILTERS, FILTERS[:, 0, 0], padding=1),
    "transposed_convolution": lambda x, y: F.conv_transpose1d(x, FILTERS[:3], FILTERS[0, 0], 2),
    "made_of_pieces": lambda x, y: (
        torch.cartesian_prod(x[0, 0], y[0, 1]), torch.block_diag(x[0], y[1]),
        torch.diag_embed(x, -2, 0, 1), F.unfold(x[:, None], (2, 3)),
    ),
}  # fmt: skip

#: Each is called with a real tensor [2, 3, n].
TRANSFORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "rfft": lambda x: (torch.fft.rfft(x), torch.fft.rfft(x, norm="ortho").abs()),
    "rfft_angle": lambda x: torch.fft.rfft(x).angle().cos(),
    "rfft_between": lambda x: torch.fft.rfft(x, dim=1),
    "irfft": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=x.shape[-1]),
    "fft": lambda x: torch.fft.fft(x),
    "ifft": lambda x: torch.fft.ifft(torch.fft.fft(x, norm="forward") * 1j, norm="ortho"),
    "rfft2": lambda x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho"), s=(3, x.shape[-1])),
    "fftn": lambda x: torch.fft.fftn(x.to(C64)),
    "real_of_two": lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real,
    "hfft": lambda x: (torch.fft.hfft(x.to(C64)), torch.fft.ihfft(x)),
    "hfft_of_real": lambda x: (torch.fft.hfft(x), torch.fft.hfft2(x, norm="ortho")),
    "shifted": lambda x: torch.fft.fftshift(torch.fft.rfft(x, n=20)),
}

#: One matrix, two, the kernel; and more of them.
SIZES, MORE_SIZES = (7, 32, 100, 131), (1, 2, 3, 64, 65, 66, 96, 127, 128, 210, 400, 1024)


class Rotary(nn.Module):
    """Positions as turns, as Llama's first code has them."""

    def __init__(self) -> None:
        super().__init__()
        turns = torch.outer(torch.arange(6.0), 1e4 ** (-torch.arange(4) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(turns), turns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns[:, None]).flatten(3).type_as(x)


class Operator(nn.Module):
    """A Fourier neural operator's layer: a product in the low frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(3, 5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = torch.fft.rfft(x)[..., :4]
        out = torch.zeros(x.shape[0], 5, x.shape[-1] // 2 + 1, dtype=C64)
        out[..., :4] = torch.einsum("bix,iox->box", low, self.weight)
        return torch.fft.irfft(out, n=x.shape[-1])


class Hearing(nn.Module):
    """An audio front end and its network: a logarithmic mel spectrogram, as Whisper's."""

    def __init__(self, size: int = 400, hop: int = 160) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("window", torch.hann_window(size))
        self.register_buffer("mel", torch.rand(20, size // 2 + 1))
        self.net = nn.Conv1d(20, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            x, self.size, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        mel = self.mel @ spectrum[..., :-1].abs() ** 2
        return F.relu(self.net(torch.clamp(mel, min=1e-10).log10()))


def _stft(n: int, hop: int, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    window = torch.hann_window(options.get("win_length", n))
    options = {"center": False, "return_complex": True, **options}
    return lambda x: torch.stft(x, n, hop, window=window, **options)


def _there_and_back(n: int, hop: int, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    window = torch.hamming_window(n)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, n, hop, window=window, pad_mode="constant", return_complex=True)
        return torch.istft(spectrum * 2, n, hop, window=window, **options)

    return there_and_back


def _pair(function: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: (Call(function), [(Z, Y), (Y, Z)])


LONG = Dim.DYNAMIC(min=500, max=4000)

CASES = [
    *(Case(f"complex_{name}", _pair(function), tolerance=1e-5)
      for name, function in FUNCTIONS.items()),
    Case("complex_arithmetic_kernels", _pair(FUNCTIONS["arithmetic"]), KERNELS_ONLY),
    Case("complex_doubles", lambda: (
        Call(lambda x: x * x.exp()), [(numbers(3, dtype=torch.complex128),)])),
    Case("complex_infinities", lambda: (
        Call(lambda x: (x.clone(), x[1:])),
        [(torch.complex(torch.tensor([1.0, math.inf, -0.0]), torch.tensor([-math.inf, 2, 1])),)])),
    Case("complex_of_dynamic_size", lambda: (
        Call(lambda x: (x * 2j).reshape(x.shape[0], -1) * x.shape[0]),
        [(numbers(n, 3, 2),) for n in (4, 7, 2)]),
        {"dynamic_shapes": (({0: Dim("n", max=8)},),)}),
    *(Case(f"transform_{name}_{size}", of(function, (2, 3, size)), sweep=size not in SIZES)
      for name, function in TRANSFORMS.items() for size in SIZES + MORE_SIZES
      if size > 1 or name not in ("irfft", "rfft2", "hfft", "hfft_of_real")),
    Case("transform_kernels", of(TRANSFORMS["ifft"], (2, 3, 10)), KERNELS_ONLY),
    Case("transform_of_doubles", lambda: (
        Call(TRANSFORMS["ifft"]), [(torch.randn(2, 3, 10, dtype=torch.float64),)])),
    Case("transform_of_dynamic_size", lambda: (
        Call(lambda x: (torch.fft.rfft(x), torch.fft.fft(x).abs())),
        [(torch.randn(2, n),) for n in (12, 31, 5)]),
        {"dynamic_shapes": (({1: Dim("n", min=4, max=40)},),)}),
    Case("rotary", lambda: (Rotary(), [(torch.randn(2, 6, 3, 8),)]), pieces=1),
    Case("fourier_operator", lambda: (Operator(), [(torch.randn(2, 3, 16),)]), pieces=1),
    *(Case(f"hearing_{n}", lambda n=n, hop=hop: (Hearing(n, hop), [(torch.randn(2, 2000),)]),
           pieces=1, tolerance=1e-4)
      for n, hop in ((400, 160), (512, 128), (128, 40))),
    Case("stft", of(_stft(128, 32), (2, 1000))),
    Case("stft_of_one_signal", of(_stft(400, 160), (1000,))),
    Case("stft_with_gaps", of(_stft(64, 100, return_complex=False), (2, 1000)), pieces=1),
    Case("stft_of_short_window", of(_stft(256, 60, win_length=200, normalized=True), (2, 1000))),
    Case("stft_of_both_sides", of(_stft(60, 15, onesided=False), (2, 1000))),
    Case("stft_of_a_prime", of(_stft(131, 50), (2, 1000))),
    Case("stft_of_given_window", of(
        lambda x, w: torch.stft(x, 64, 16, window=w, center=False, return_complex=True).abs(),
        (2, 300), torch.hann_window(64)), pieces=1),
    Case("stft_of_dynamic_length", lambda: (
        Call(lambda x: _stft(128, 32)(x).abs()), [(torch.randn(2, n),) for n in (800, 3000, 513)]),
        {"dynamic_shapes": (({1: LONG},),)}, pieces=1),
    *(Case(f"istft_{n}_{name}", of(_there_and_back(n, hop, **options), (2, 1000)), pieces=1)
      for n, hop in ((128, 32), (100, 30), (512, 128))
      for name, options in (("plain", {}), ("length", {"length": 900}))),
    Case("istft_not_centered", lambda: (
        Call(lambda z: torch.istft(z, 64, 16, window=torch.hamming_window(64), center=False,
                                   normalized=True)), [(numbers(33, 9),)])),
]  # fmt: skip
