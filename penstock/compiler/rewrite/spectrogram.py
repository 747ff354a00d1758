"""Short-time Fourier transforms, there and back.

With a short constant window, frames and transform are one convolution. A filter of n values that
moves on by ``hop`` is one of ceil(n / hop) steps over the signal's blocks of ``hop`` values, which
lie in memory as channels do: XNNPACK multiplies whole blocks, and no frame is ever written out.
Signals are cut into frames for longer windows, so that the transform can have smaller matrices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock.compiler.fx.record import constant, value_of, whole
from penstock.compiler.rewrite import fourier
from penstock.compiler.rewrite.complex_tensor import Complex, NoRealForm

aten = torch.ops.aten

#: Filters of up to so many values are faster than frames, and small in the file.
MOST_FILTER_VALUES = 128 * 130


def stft(
    x: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, normalized: bool = False, onesided: bool | None = None,
    return_complex: bool | None = None, align_to_window: bool | None = None,
) -> Any:  # fmt: skip
    """[…, samples] → pairs of […, frequencies, frames]."""
    if isinstance(x, Complex) or isinstance(window, Complex):
        raise NoRealForm("of a signal or a window that is complex itself")
    hop = hop_length or n_fft // 4
    half = onesided is not False
    signal = x if x.dim() == 2 else x[None]
    factors = _window(window, win_length or n_fft, n_fft)
    scale = 1 / math.sqrt(n_fft) if normalized else 1.0
    if isinstance(factors, np.ndarray) and _as_filters(signal, n_fft, half):
        result = _convolved(signal, factors * scale, n_fft, hop, half)
    else:
        frames = _frames(signal, n_fft, hop) * _tensor(factors)
        mode = fourier.BY_ROOT if normalized else fourier.NONE
        spectrum = fourier.r2c(frames, [2], mode, half)
        result = Complex(spectrum.re.transpose(1, 2), spectrum.im.transpose(1, 2))
    if x.dim() == 1:
        result = Complex(result.re[0], result.im[0])
    return result if return_complex else torch.stack([result.re, result.im], -1)


def _as_filters(signal: Tensor, n_fft: int, half: bool) -> bool:
    count = n_fft // 2 + 1 if half else n_fft
    static = isinstance(signal.shape[1], int)
    return static and signal.dtype == torch.float32 and n_fft * 2 * count <= MOST_FILTER_VALUES


def _window(window: Tensor | None, length: int, n_fft: int) -> Any:
    """The window in the middle of ``n_fft`` values: as numbers, where it is constant."""
    before = (n_fft - length) // 2
    sides = (before, n_fft - length - before)
    if window is None:
        return np.pad(np.ones(length), sides)
    value = value_of(window)
    if value is not None:
        return np.pad(value, sides)
    return torch.nn.functional.pad(window, sides)


def _tensor(factors: Any) -> Tensor:
    return constant(factors) if isinstance(factors, np.ndarray) else factors


def _blocks(signal: Tensor, hop: int, count: int) -> Tensor:
    """[batch, samples] → [batch, count, hop]: zeros behind, or the end cut off."""
    return fourier.fit(signal, 1, count * hop).reshape(signal.shape[0], count, hop)


def _frame_count(signal: Tensor, n_fft: int, hop: int) -> int:
    return (signal.shape[1] - n_fft) // hop + 1


def _convolved(
    signal: Tensor, factors: np.ndarray[Any, Any], n_fft: int, hop: int, half: bool
) -> Complex:
    count = n_fft // 2 + 1 if half else n_fft
    turns = fourier.turns_of(count, n_fft, n_fft, -1)
    filters = np.vstack([turns.real, turns.imag]) * factors
    steps = -(-n_fft // hop)
    filters = np.pad(filters, ((0, 0), (0, steps * hop - n_fft)))
    filters = filters.reshape(2 * count, steps, hop).transpose(0, 2, 1)
    blocks = _blocks(signal, hop, _frame_count(signal, n_fft, hop) - 1 + steps)
    result = whole(
        aten.conv1d.default, blocks.transpose(1, 2), constant(np.ascontiguousarray(filters))
    )
    return Complex(result[:, :count], result[:, count:])


def _frames(signal: Tensor, n_fft: int, hop: int) -> Tensor:
    """[batch, samples] → [batch, frames, n_fft], by shifted blocks side by side."""
    if not isinstance(signal.shape[1], int):
        return signal.unfold(1, n_fft, hop)
    count, steps = _frame_count(signal, n_fft, hop), -(-n_fft // hop)
    blocks = _blocks(signal, hop, count - 1 + steps)
    return torch.cat([blocks[:, step : step + count] for step in range(steps)], 2)[:, :, :n_fft]


def istft(
    x: Complex, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, normalized: bool = False,
    onesided: bool | None = None, length: int | None = None, return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """Pairs of […, frequencies, frames] → […, samples]: frames added where they overlap, over
    the sum of the squared windows there."""
    hop = hop_length or n_fft // 4
    factors = _window(window, win_length or n_fft, n_fft)
    if not isinstance(x.shape[-1], int):
        raise NoRealForm("the number of frames is dynamic")
    if not isinstance(factors, np.ndarray):
        raise NoRealForm("the window is computed at run time")
    if return_complex:
        raise NoRealForm("the signal is complex itself")
    count, frames = n_fft // 2 + 1, x.shape[-1]
    re, im = (part if part.dim() == 3 else part[None] for part in (x.re, x.im))
    re, im = re[:, :count], im[:, :count]
    mode = fourier.BY_ROOT if normalized else fourier.BY_COUNT
    steps = -(-n_fft // hop)
    if n_fft * 2 * count <= MOST_FILTER_VALUES and re.dtype == torch.float32:
        summed = _deconvolved(re, im, factors, hop, mode)
    else:
        spectrum = Complex(re.transpose(1, 2), im.transpose(1, 2))
        signal = fourier.c2r(spectrum, [2], mode, n_fft) * constant(factors).to(re.dtype)
        parts = fourier.fit(signal, 2, steps * hop).reshape(re.shape[0], frames, steps, hop)
        placed = [
            torch.nn.functional.pad(parts[:, :, step], [0, 0, step, steps - 1 - step])
            for step in range(steps)
        ]
        total = placed[0]
        for one in placed[1:]:
            total = total + one
        summed = total.flatten(1)
    start = n_fft // 2 if center else 0
    all_samples = (frames - 1) * hop + n_fft
    end = start + length if length is not None else all_samples - start
    weights = np.zeros(summed.shape[1])
    for frame in range(frames):
        weights[frame * hop : frame * hop + n_fft] += factors**2
    inside = min(end, all_samples)
    over = 1 / np.maximum(weights[start:inside], 1e-11)
    signal = fourier.fit(summed[:, start:inside] * constant(over).to(re.dtype), 1, end - start)
    return signal if x.dim() == 3 else signal[0]


def _deconvolved(
    re: Tensor, im: Tensor, factors: np.ndarray[Any, Any], hop: int, normalization: int
) -> Tensor:
    """Inverse transform, window and sum as one convolution that gives blocks of ``hop`` values:
    block ``b`` is step ``s`` of frame ``b - s``, over all ``s``."""
    n_fft, count, steps = factors.size, re.shape[1], -(-factors.size // hop)
    matrix = fourier.inverse_of_half(n_fft, fourier.scale_of(n_fft, normalization)) * factors
    matrix = np.pad(matrix, ((0, 0), (0, steps * hop - n_fft)))
    filters = matrix.reshape(2 * count, steps, hop).transpose(2, 0, 1)[:, :, ::-1]
    blocks = whole(
        aten.conv1d.default, torch.cat([re, im], 1), constant(np.ascontiguousarray(filters)),
        None, [1], [steps - 1],
    )  # fmt: skip
    result: Tensor = blocks.transpose(1, 2).flatten(1)
    return result
