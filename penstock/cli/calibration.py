"""Calibration data from the command line: a folder of samples or pictures, or a Python callable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.cli.feeds import read_arrays
from penstock.cli.sources import Source
from penstock.cli.user_code import FORM, call
from penstock.errors import InputError
from penstock.files import readable
from penstock.pictures import SUFFIXES, from_image
from penstock.runtime.specs import TensorSpec

_ARRAYS = {".npy", ".npz"}


def calibration_data(
    given: str | None, source: Source, count: int, kind: str = "calibration"
) -> Iterable[Any] | None:
    """The input tuples to calibrate with; ``None`` means the example inputs.

    ``given`` is ``package.module:callable`` or ``file.py:callable`` (which gives an iterable of
    input tuples), or a folder of ``.npy``/``.npz`` files (one sample each, an ``.npz`` with one
    array for each input, in order) or of pictures (for a model of one image input; preprocessed as
    ``penstock run`` does).
    Without it the source's own data are taken. ``count`` limits the number of samples.
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
            f"no {kind} data at {given!r}; give a folder of .npy, .npz or image files, or {FORM}"
        )
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES | _ARRAYS)[:count]
    if not files:
        raise InputError(f"{given} holds no .npy, .npz or image file")
    return _Files(files, source)


def split_data(
    given: str | None, held_out: str | None, source: Source, counts: tuple[int, int]
) -> tuple[list[Any] | None, list[Any] | None]:
    """(input tuples to calibrate with, others to measure on), at most as many as ``counts`` says;
    ``None`` where there are none but the example inputs.

    Without ``held_out`` they are of one kind: those behind the first ``counts[0]``, or the last
    quarter where there are no more.
    """
    first, other = counts
    if held_out is not None:
        found = calibration_data(given, source, first)
        return None if found is None else list(found)[:first], _some(held_out, source, other)
    found = calibration_data(given, source, first + other)
    if found is None:
        return None, None
    samples = list(found)[: first + other]
    if len(samples) <= first:
        first = len(samples) - len(samples) // 4
    return samples[:first], samples[first:] or None


def _some(given: str, source: Source, count: int) -> list[Any]:
    found = calibration_data(given, source, count, "held-out")
    assert found is not None
    return list(found)[:count]


class _Files:
    """Reads the samples when they are asked for, so that many do not fill the memory."""

    def __init__(self, files: list[Path], source: Source) -> None:
        self._files = files
        self._source = source

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        for file in self._files:
            if file.suffix.lower() in SUFFIXES:
                yield (_picture(file, self._source),)
            else:
                yield _arrays(file)


def _arrays(file: Path) -> tuple[torch.Tensor, ...]:
    arrays = read_arrays(readable(file, "calibration sample"))
    try:
        return tuple(torch.from_numpy(array) for array in arrays)
    except TypeError as error:  # texts, dates
        raise InputError(f"the calibration sample {file} holds no numbers: {error}") from error


def _picture(file: Path, source: Source) -> torch.Tensor:
    """As :func:`from_image` gives a picture to the program that is run later."""
    example = source.args[0] if len(source.args) == 1 and not source.kwargs else None
    if not isinstance(example, torch.Tensor) or example.dtype is torch.bfloat16:
        raise InputError(
            f"pictures calibrate models of one N x 3 x H x W input, which {source.name} is not; "
            "give .npy or .npz files"
        )
    dtype = np.dtype(str(example.dtype).removeprefix("torch."))
    spec = TensorSpec(tuple(example.shape), dtype)
    return torch.from_numpy(from_image(file, spec, source.normalization))
