"""A torch module -> a program. With the zoo, the only part of Penstock that imports torch.

Importing the package itself imports no torch; its members do, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.compiler.delegate.report import Delegation
    from penstock.compiler.pipeline import LoweredProgram as Lowered
    from penstock.compiler.pipeline import lower
    from penstock.compiler.quantize import AccuracyBudget, Quantization, QuantizationReport

__all__ = ["AccuracyBudget", "Delegation", "Lowered", "Quantization", "QuantizationReport", "lower"]

_LAZY = {
    "AccuracyBudget": ("quantize", "AccuracyBudget"),
    "Delegation": ("delegate.report", "Delegation"),
    "Lowered": ("pipeline", "LoweredProgram"),
    "Quantization": ("quantize", "Quantization"),
    "QuantizationReport": ("quantize", "QuantizationReport"),
    "lower": ("pipeline", "lower"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        module, member = _LAZY[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), member)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
