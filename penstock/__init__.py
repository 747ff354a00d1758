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

if TYPE_CHECKING:
    from penstock import batch, llm
    from penstock.compiler import AccuracyBudget, Lowered, Quantization, lower
    from penstock.runtime import LoadedProgram, Method, ScalarSpec, TensorSpec, load
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

#: Where the names are that are imported when first asked for: torch takes seconds, NumPy a tenth of
#: one, in which a command could not yet say anything to Ctrl-C.
_HOMES = {
    **dict.fromkeys(("AccuracyBudget", "Lowered", "Quantization", "lower"), "penstock.compiler"),
    **dict.fromkeys(
        ("LoadedProgram", "Method", "ScalarSpec", "TensorSpec", "load"), "penstock.runtime"
    ),
    "Pool": "penstock.runtime.pool",
}
_PACKAGES = ("batch", "llm", "runtime")


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name in _PACKAGES:
            return importlib.import_module(f"penstock.{name}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        raise for_missing_package(error) or error from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
