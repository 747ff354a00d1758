"""Penstock compiles PyTorch models into ``.pte`` files in which XNNPACK does the work, and runs
such files.

>>> import penstock
>>> penstock.lower(model, (x,)).save("model.pte")       # needs the extra [compile]
>>> (y,) = penstock.load("model.pte", threads=2)(x)     # needs NumPy alone
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.errors import (
    BackendUnavailableError,
    ExportError,
    InputError,
    InternalError,
    InvalidProgramError,
    OutOfMemoryError,
    PenstockError,
    QuantizationError,
    UnsupportedError,
    for_missing_package,
)
from penstock.runtime import LoadedProgram, Method, ScalarSpec, TensorSpec, load

if TYPE_CHECKING:
    from penstock import batch, llm
    from penstock.compiler import AccuracyBudget, Lowered, Quantization, lower
    from penstock.runtime.pool import Pool

__version__ = "0.1.0"

__all__ = [
    "AccuracyBudget",
    "BackendUnavailableError",
    "ExportError",
    "InputError",
    "InternalError",
    "InvalidProgramError",
    "LoadedProgram",
    "Lowered",
    "Method",
    "OutOfMemoryError",
    "PenstockError",
    "Pool",
    "Quantization",
    "QuantizationError",
    "ScalarSpec",
    "TensorSpec",
    "UnsupportedError",
    "batch",
    "llm",
    "load",
    "lower",
]

#: Imported when first asked for, because they import torch.
_COMPILER = frozenset({"AccuracyBudget", "Lowered", "Quantization", "lower"})


def __getattr__(name: str) -> Any:
    if name in ("batch", "llm"):
        try:
            return importlib.import_module(f"penstock.{name}")
        except ModuleNotFoundError as error:
            raise for_missing_package(error) or error from error
    if name == "Pool":  # asyncio is slow to import
        return importlib.import_module("penstock.runtime.pool").Pool
    if name not in _COMPILER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module("penstock.compiler"), name)
    except ModuleNotFoundError as error:
        raise for_missing_package(error) or error from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
