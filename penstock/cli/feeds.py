"""Inputs of a run from files: ``.npy``, ``.npz``, images, raw bytes; ones where none is given."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import InputError, shorten
from penstock.files import readable
from penstock.pictures import SUFFIXES, from_image
from penstock.runtime.free_memory import available_memory
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec
from penstock.text import counted
from penstock.zoo.images import IMAGENET, Normalization


def ones(specs: Sequence[Spec]) -> list[Any]:
    """Arrays of ones at the full shape of each input; scalars as the program was compiled for."""
    return [
        spec.value if isinstance(spec, ScalarSpec) else np.ones(spec.shape, spec.dtype)
        for spec in specs
    ]


def read_inputs(
    files: Sequence[str], specs: Sequence[Spec], normalization: Normalization = IMAGENET
) -> list[Any]:
    """The inputs that ``files`` hold, in order; fixed scalars need no file.

    A ``.npy`` file gives one input, a ``.npz`` archive one for each of its arrays in their order,
    an image one (resized and normalised, see :func:`from_image`), any other file one: its raw
    bytes in the input's dtype and memory layout.

    Raises InputError for a file that cannot be read, or for a wrong number of inputs.
    """
    tensors = [spec for spec in specs if not _fixed(spec)]
    found: list[Any] = []
    for name in files:
        path = readable(name, "input file")
        suffix = path.suffix.lower()
        if suffix in (".npy", ".npz"):
            found.extend(read_arrays(path))
            continue
        if len(found) >= len(tensors):
            raise InputError(f"{name} is one input too many: the program takes {len(tensors)}")
        spec = tensors[len(found)]
        if not isinstance(spec, TensorSpec):
            raise InputError(f"input {len(found)} is a scalar; give it as a .npy file, not {name}")
        if suffix in SUFFIXES:
            found.append(from_image(path, spec, normalization))
        else:
            found.append(from_bytes(path, spec))
    if len(found) != len(tensors):
        raise InputError(
            f"{', '.join(files)}: {counted(len(found), 'input')}, but the program takes"
            f" {len(tensors)}:"
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


def read_arrays(path: Path) -> list[np.ndarray]:
    """The array of a ``.npy`` file, or those of a ``.npz`` archive in their order. Objects, which
    would be pickles, are refused.

    Raises InputError for a file that cannot be read, or whose arrays do not fit into memory.
    """
    try:
        if zipfile.is_zipfile(path):
            _require_room(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return [loaded]
        with loaded:
            found = [loaded[name] for name in loaded.files]
        if not all(isinstance(array, np.ndarray) for array in found):
            raise ValueError("there is something in it that is no array")
        return found
    except Exception as error:  # zip, pickle, header and memory errors of all kinds
        raise InputError(f"{path} is not a NumPy file that can be read: {shorten(error)}") from None


def _require_room(path: Path) -> None:
    """An archive of a few MB can hold many GB of zeros."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > (there := available_memory()):
        raise ValueError(f"it unpacks to {size >> 20:,} MiB, and {there >> 20:,} are free")


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
