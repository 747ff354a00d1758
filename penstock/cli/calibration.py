"""Calibration data from the command line: a folder of samples or pictures, or a Python callable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.cli.sources import Source, call
from penstock.errors import InputError
from penstock.zoo.images import IMAGENET_MEAN, IMAGENET_STD

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_ARRAYS = {".npy", ".npz"}


def calibration_data(given: str | None, source: Source, count: int) -> Iterable[Any] | None:
    """The input tuples to calibrate with; ``None`` means the example inputs.

    ``given`` is ``package.module:callable`` (which gives an iterable of input tuples), or a folder
    of ``.npy``/``.npz`` files (one sample each, an ``.npz`` with one array for each input, in
    order) or of pictures (for a model of one image input; scaled to its size and normalized as
    ImageNet). Without it the source's own data are taken. ``count`` limits the number of samples.
    """
    if given is None:
        return None if source.calibration is None else list(source.calibration(count))
    if ":" in given and not Path(given).exists():
        made = call(given)
        if not isinstance(made, Iterable):
            raise InputError(f"{given} must give an iterable of input tuples")
        return made
    folder = Path(given)
    if not folder.is_dir():
        raise InputError(
            f"no calibration data at {given!r}; give a folder of .npy, .npz or image files, or "
            "package.module:callable"
        )
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _PICTURES | _ARRAYS)[:count]
    if not files:
        raise InputError(f"{given} holds no .npy, .npz or image file")
    return _Files(files, source)


class _Files:
    """Reads the samples when they are asked for, so that many do not fill the memory."""

    def __init__(self, files: list[Path], source: Source) -> None:
        self._files = files
        self._source = source

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        for file in self._files:
            if file.suffix.lower() in _PICTURES:
                yield (_picture(file, self._source),)
            else:
                yield _arrays(file)


def _arrays(file: Path) -> tuple[torch.Tensor, ...]:
    try:
        loaded = np.load(file)
        arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[k] for k in loaded.files]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the calibration sample {file}: {error}") from error
    return tuple(torch.from_numpy(array) for array in arrays)


def _picture(file: Path, source: Source) -> torch.Tensor:
    from PIL import Image

    shape = tuple(source.args[0].shape) if len(source.args) == 1 else ()
    if len(shape) != 4 or shape[1] != 3:
        raise InputError(
            f"pictures calibrate models of one N x 3 x H x W input, which {source.name} is not; "
            "give .npy or .npz files"
        )
    try:
        picture = Image.open(file).convert("RGB").resize((shape[3], shape[2]))
    except OSError as error:
        raise InputError(f"cannot read the picture {file}: {error}") from error
    mean, deviation = np.asarray(IMAGENET_MEAN, np.float32), np.asarray(IMAGENET_STD, np.float32)
    values = (np.asarray(picture).astype(np.float32) / np.float32(255.0) - mean) / deviation
    image = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
    return image.expand(shape[0], -1, -1, -1).contiguous()
