"""Inputs of a run from files: ``.npy``, ``.npz``, images, raw bytes; ones where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import InputError
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
#: Mean and standard deviation of ImageNet's pixels, which torchvision's and timm's models expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def ones(specs: Sequence[Spec]) -> list[Any]:
    """Arrays of ones at the full shape of each input; scalars as the program was compiled for."""
    return [
        spec.value if isinstance(spec, ScalarSpec) else np.ones(spec.shape, spec.dtype)
        for spec in specs
    ]


def read_inputs(files: Sequence[str], specs: Sequence[Spec]) -> list[Any]:
    """The inputs that ``files`` hold, in order; fixed scalars need no file.

    A ``.npy`` file gives one input, a ``.npz`` archive one for each of its arrays in their order,
    an image one (resized and normalised, see :func:`from_image`), any other file one: its raw
    bytes in the input's dtype and memory layout.

    Raises InputError for a file that cannot be read, or for a wrong number of inputs.
    """
    tensors = [spec for spec in specs if not _fixed(spec)]
    found: list[Any] = []
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no input file {name}")
        suffix = path.suffix.lower()
        if suffix in (".npy", ".npz"):
            found.extend(_numpy_arrays(path))
            continue
        if len(found) >= len(tensors):
            raise InputError(f"{name} is one input too many: the program takes {len(tensors)}")
        spec = tensors[len(found)]
        if not isinstance(spec, TensorSpec):
            raise InputError(f"input {len(found)} is a scalar; give it as a .npy file, not {name}")
        found.append(from_image(path, spec) if suffix in IMAGES else from_bytes(path, spec))
    if len(found) != len(tensors):
        raise InputError(
            f"{', '.join(files)} give {len(found)} inputs, the program takes {len(tensors)}:"
            f" {', '.join(map(str, tensors)) or 'none'}"
        )
    rest = iter(found)
    return [
        spec.value if isinstance(spec, ScalarSpec) and spec.fixed else _scalar(next(rest), spec)
        for spec in specs
    ]


def _fixed(spec: Spec) -> bool:
    return isinstance(spec, ScalarSpec) and spec.fixed


def _scalar(array: Any, spec: Spec) -> Any:
    return array.item() if isinstance(spec, ScalarSpec) and array.size == 1 else array


def _numpy_arrays(path: Path) -> list[np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return [loaded]
        with loaded:
            return [loaded[name] for name in loaded.files]
    except Exception as error:  # zip, pickle, header and memory errors of all kinds
        raise InputError(f"{path} is not a NumPy file that can be read: {error}") from None


def from_bytes(path: Path, spec: TensorSpec) -> np.ndarray:
    """Raw little-endian bytes in the input's dtype, full shape and memory layout."""
    size = path.stat().st_size
    wanted = int(np.prod(spec.shape, dtype=np.int64)) * spec.dtype.itemsize
    if size != wanted:
        raise InputError(
            f"{path} has {size} bytes, the input {spec} takes {wanted};"
            " for another shape or dtype use a .npy file"
        )
    flat: np.ndarray = np.frombuffer(path.read_bytes(), spec.dtype)
    if spec.dim_order is None:
        return flat.reshape(spec.shape)
    physical = flat.reshape([spec.shape[axis] for axis in spec.dim_order])
    return physical.transpose(np.argsort(spec.dim_order))


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
