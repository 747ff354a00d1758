"""Speech models of torchaudio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from penstock.errors import InputError
from penstock.zoo.libraries import require
from penstock.zoo.model import Batches, Draft, variations

_FRAMES = 128
_BATCH, _WAVEFORM = 10, 700
_CLASSES = 4096
# The word pieces of the published Emformer, and the blank.
_SYMBOLS = 4097


def w2l(weights: str | None) -> Draft:
    """Wav2Letter on raw waveform: float32 10 x 1 x 700 -> log probabilities."""
    if weights == "default":
        raise InputError("w2l has no pretrained weights; leave the weights out or give a path")
    model = require("torchaudio.models").Wav2Letter(num_classes=_CLASSES)
    return Draft(model, _waveforms())


def _waveforms() -> Batches:
    """Sums of a few tones with noise: a waveform's spectrum falls off, unlike white noise's."""

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        time = torch.arange(_WAVEFORM) / 16_000.0
        for _ in range(count):
            pitch = 80 + 300 * torch.rand(_BATCH, 1, 1, generator=generator)
            wave = torch.zeros(_BATCH, 1, _WAVEFORM)
            for harmonic in range(1, 9):
                phase = 6.2832 * torch.rand(_BATCH, 1, 1, generator=generator)
                wave += torch.sin(6.2832 * harmonic * pitch * time + phase) / harmonic
            yield (wave + 0.1 * torch.randn(wave.shape, generator=generator),)

    return batches


def emformer_transcribe(weights: str | None) -> Draft:
    """Acoustic features float32 1 x 128 x 80 and their number -> encodings."""
    transcriber = _rnnt(weights).transcriber
    features = variations(torch.randn(1, _FRAMES, 80), torch.tensor([_FRAMES]))
    return Draft(transcriber, features)


def emformer_predict(weights: str | None) -> Draft:
    """Tokens int64 1 x 128 and their number -> encodings and the state to go on from."""

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            tokens = torch.randint(0, _SYMBOLS - 1, (1, _FRAMES), generator=generator)
            yield tokens, torch.tensor([_FRAMES])

    return Draft(_Predictor(_rnnt(weights).predictor), batches)


class _Predictor(torch.nn.Module):
    """The predictor from its initial state."""

    def __init__(self, predictor: torch.nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:
        return self.predictor(tokens, lengths, None)


def emformer_join(weights: str | None) -> Draft:
    """Source and target encodings, float32 1 x 128 x 1024 each, with their numbers -> logits."""

    def encodings(frames: int) -> Batches:
        length = torch.tensor([frames])
        return variations(torch.rand(1, frames, 1024), length, torch.rand(1, frames, 1024), length)

    return Draft(_rnnt(weights).joiner, encodings(_FRAMES), statistics=encodings(8))


def _rnnt(weights: str | None) -> Any:
    if weights == "default":
        pipelines = require("torchaudio.pipelines")
        return pipelines.EMFORMER_RNNT_BASE_LIBRISPEECH.get_decoder().model
    return require("torchaudio.models").emformer_rnnt_base(num_symbols=_SYMBOLS)
