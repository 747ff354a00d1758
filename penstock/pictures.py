"""Pictures as inputs of a model: one preprocessing for running and for calibration.

What a model expects of its pictures stands in the program as two constant methods that give three
numbers each, :data:`MEAN` and :data:`STD`; where there are none, it is what most models expect.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import InputError, shorten
from penstock.files import readable
from penstock.runtime import LoadedProgram
from penstock.runtime.specs import TensorSpec
from penstock.zoo.images import IMAGENET, Normalization

if TYPE_CHECKING:
    from PIL import Image

#: What files of pictures end in, in lower case.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
#: What Pillow may take them for. It tells formats by their first bytes, and some that it knows
#: (PostScript) are programs that it would have another program run.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

#: Constant methods with the parts of a :class:`Normalization`.
MEAN, STD = "image_mean", "image_std"


def constant_methods(normalization: Normalization) -> dict[str, list[float]]:
    """What a program has to say about its pictures, for ``penstock.lower``; nothing if these are
    normalised as usual."""
    if normalization == IMAGENET:
        return {}
    return {MEAN: list(normalization.mean), STD: list(normalization.std)}


def normalization_of(program: LoadedProgram) -> Normalization:
    """What ``program`` says about its pictures. Raises InputError if that makes no sense."""
    if not {MEAN, STD} <= set(program.methods):
        return IMAGENET
    parts = []
    for name in (MEAN, STD):
        values = program.method(name).run([])
        sound = len(values) == 3 and all(isinstance(v, float) and np.isfinite(v) for v in values)
        if not sound or (name == STD and 0.0 in values):
            raise InputError(
                f"the program's method {name!r} does not give three numbers to normalise pictures "
                "with; give a .npy file instead"
            )
        parts.append((values[0], values[1], values[2]))
    return Normalization(*parts)


def check_takes_images(spec: TensorSpec, name: str) -> None:
    """Raises InputError unless the image ``name`` can be an input of the kind ``spec``."""
    if len(spec.shape) not in (3, 4) or spec.shape[-3] not in (1, 3) or min(spec.shape) < 1:
        raise InputError(f"{name} is an image, but the input {spec} is no image (N, 1 or 3, H, W)")
    if spec.dtype.name not in ("float32", "float16", "float64", "uint8"):
        raise InputError(f"{name} is an image, but the input is {spec.dtype}; give a .npy file")


def from_image(
    image: Path | bytes, spec: TensorSpec, normalization: Normalization = IMAGENET, *,
    name: str | None = None,
) -> np.ndarray:  # fmt: skip
    """An image as torchvision's models take it: resized (bilinear) so that it covers the input's
    height and width, cropped at the centre, RGB or grey, channels first.

    Float inputs get the pixels divided by 255 and, with three channels, normalised; uint8 inputs
    get the pixels themselves.

    Args:
        image: a file, or the content of one.
        name: what error messages call it; by default its path.

    Raises InputError when the input is no image, or Pillow is missing or cannot read the file.
    """
    name = name or ("the image" if isinstance(image, bytes) else str(image))
    check_takes_images(spec, name)
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(f"to read the image {name}: pip install pillow") from None
    channels, height, width = spec.shape[-3:]
    try:
        source = io.BytesIO(image) if isinstance(image, bytes) else readable(image, "image")
        with warnings.catch_warnings():
            # Pillow refuses pictures beyond 179 million pixels, and warns from the half on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=_FORMATS) as opened:
                eight = _eight_bits(opened).convert("RGB" if channels == 3 else "L")
                fitted = _fit(eight, height, width)
        pixels = np.asarray(fitted)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"cannot read the image {name}: Pillow knows no such format") from None
    except Exception as error:  # Pillow raises errors of all kinds for damaged files
        reason = shorten(error) or type(error).__name__
        raise InputError(f"cannot read the image {name}: {reason}") from None
    pixels = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    if spec.dtype != np.uint8:
        # In place and channels first from here on, which takes a fifth of the time.
        scaled = np.empty(pixels.shape, np.float32)
        scaled[...] = pixels
        scaled /= np.float32(255)
        if channels == 3:
            scaled -= np.array(normalization.mean, np.float32).reshape(3, 1, 1)
            scaled /= np.array(normalization.std, np.float32).reshape(3, 1, 1)
        pixels = scaled.astype(spec.dtype, copy=False)
    if len(spec.shape) == 3:
        return pixels
    batch = 1 if spec.dynamic else spec.shape[0]
    return np.ascontiguousarray(np.broadcast_to(pixels, (batch, channels, height, width)))


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits of grey by its upper eight, as Pillow reads 16 bits of a colour; it would
    make white of all that is not nearly black."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels are numbers of 32 bits, which do not say what is white; save it with 8 or"
            " 16 bits"
        )
    return image


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    from PIL import Image

    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    # What Pillow takes at most for a picture is the most that we make of one, too.
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels that cover {width} x {height} are"
            f" {size[0]} x {size[1]}; crop it first"
        )
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))
