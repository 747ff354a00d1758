"""Pictures for the image models: crops of real photographs where there are some, noise elsewhere.

scikit-learn carries two sample photographs; they are read from its folder without importing it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Normalization:
    """What a model expects of its pictures: (pixel / 255 - ``mean``) / ``std`` for red, green and
    blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: Mean and standard deviation of ImageNet's pictures; what most pretrained models expect.
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: [-1, 1].
HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: [0, 1].
UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
#: (pixel - 127) / 128.
LITE = Normalization((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255))

_PHOTOGRAPHS = ("china.jpg", "flower.jpg")


@functools.lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """The sample photographs, uint8 of height x width x 3 each."""
    folder = _photograph_folder()
    if folder is None:
        rng = np.random.default_rng(20)
        return tuple(_pink_noise(rng, 427, 640) for _ in _PHOTOGRAPHS)
    from PIL import Image

    return tuple(
        np.asarray(Image.open(folder / name).convert("RGB"), dtype=np.uint8)
        for name in _PHOTOGRAPHS
    )


def _photograph_folder() -> Path | None:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None or importlib.util.find_spec("PIL") is None:
        return None
    folder = Path(spec.origin).parent / "datasets" / "images"
    return folder if all((folder / name).is_file() for name in _PHOTOGRAPHS) else None


def _pink_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls as 1/frequency, as that of photographs does."""
    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.rfftfreq(width)[None, :]
    falloff = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(height, width))
    planes = []
    for _ in range(3):
        plane = np.fft.irfft2(
            np.fft.rfft2(rng.standard_normal((height, width))) * falloff, (height, width)
        )
        planes.append(np.clip(128 + 48 * plane / plane.std(), 0, 255))
    return np.stack(planes, axis=-1).astype(np.uint8)


def crops(size: int, count: int, *, seed: int = 1) -> Iterator[np.ndarray]:
    """``count`` square crops, uint8 of ``size`` x ``size`` x 3.

    The first ones are the middles of the photographs; then come seeded crops of other places and
    scales, half of them mirrored.
    """
    pictures = photographs()
    rng = np.random.default_rng(seed)
    for index in range(count):
        picture = pictures[index % len(pictures)]
        height, width = picture.shape[:2]
        shorter = min(height, width)
        if index < len(pictures):
            side, top, left = shorter, (height - shorter) // 2, (width - shorter) // 2
        else:
            side = int(rng.integers(shorter // 3, shorter + 1))
            top = int(rng.integers(0, height - side + 1))
            left = int(rng.integers(0, width - side + 1))
        crop = _resize(picture[top : top + side, left : left + side], size)
        if index >= len(pictures) and rng.random() < 0.5:
            crop = crop[:, ::-1]
        yield np.ascontiguousarray(crop)


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    if importlib.util.find_spec("PIL") is not None:
        from PIL import Image

        resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(resized, dtype=np.uint8)
    places = np.linspace(0, picture.shape[0] - 1, size).round().astype(int)
    nearest: np.ndarray = picture[places][:, places]
    return nearest


def normalized(
    size: int, normalization: Normalization = IMAGENET
) -> Callable[[int], Iterator[tuple[torch.Tensor, ...]]]:
    """A source of batches of one crop each, float32 1 x 3 x ``size`` x ``size``, normalized."""

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        import torch

        offset = np.asarray(normalization.mean, np.float32)
        scale = np.asarray(normalization.std, np.float32)
        for crop in crops(size, count):
            values = (crop.astype(np.float32) / 255.0 - offset) / scale
            yield (torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None])),)

    return batches
