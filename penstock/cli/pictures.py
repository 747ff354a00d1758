"""Pictures as inputs of a model: one preprocessing for running and for calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import InputError
from penstock.runtime.specs import TensorSpec
from penstock.zoo.images import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from PIL import Image

#: What files of pictures end in, in lower case.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


def from_image(path: Path, spec: TensorSpec) -> np.ndarray:
    """An image as torchvision's models take it: resized (bilinear) so that it covers the input's
    height and width, cropped at the centre, RGB or grey, channels first.

    Float inputs get the pixels divided by 255 and, with three channels, normalised with
    ImageNet's mean and deviation; uint8 inputs get the pixels themselves.

    Raises InputError when the input is no image, or Pillow is missing or cannot read the file.
    """
    if len(spec.shape) not in (3, 4) or spec.shape[-3] not in (1, 3) or min(spec.shape) < 1:
        raise InputError(f"{path} is an image, but the input {spec} is no image (N, 1 or 3, H, W)")
    if spec.dtype.name not in ("float32", "float16", "float64", "uint8"):
        raise InputError(f"{path} is an image, but the input is {spec.dtype}; give a .npy file")
    try:
        from PIL import Image
    except ImportError:
        raise InputError(f"to read the image {path}: pip install pillow") from None
    channels, height, width = spec.shape[-3:]
    try:
        with Image.open(path) as image:
            fitted = _fit(image.convert("RGB" if channels == 3 else "L"), height, width)
        pixels = np.asarray(fitted)
    except Exception as error:  # Pillow raises errors of all kinds for damaged files
        raise InputError(f"cannot read the image {path}: {error}") from None
    pixels = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    if spec.dtype != np.uint8:
        scaled = pixels.astype(np.float32) / np.float32(255)
        if channels == 3:
            mean = np.array(IMAGENET_MEAN, np.float32).reshape(3, 1, 1)
            scaled = (scaled - mean) / np.array(IMAGENET_STD, np.float32).reshape(3, 1, 1)
        pixels = scaled.astype(spec.dtype)
    if len(spec.shape) == 3:
        return pixels
    batch = 1 if spec.dynamic else spec.shape[0]
    return np.ascontiguousarray(np.broadcast_to(pixels, (batch, channels, height, width)))


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    from PIL import Image

    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))
