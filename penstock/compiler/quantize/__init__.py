"""Quantization ahead of time: which operators become int8, calibration, and what that costs.

Importing this package imports no torch; its members that need torch are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.compiler.quantize.accuracy import AccuracyBudget, BudgetOutcome, HeldOutScores
from penstock.compiler.quantize.quantization import Observer, Quantization, Scheme

if TYPE_CHECKING:
    from penstock.compiler.quantize.flow import quantize
    from penstock.compiler.quantize.quantizer import XNNPACKQuantizer
    from penstock.compiler.quantize.report import QuantizationReport

__all__ = [
    "AccuracyBudget",
    "BudgetOutcome",
    "HeldOutScores",
    "Observer",
    "Quantization",
    "QuantizationReport",
    "Scheme",
    "XNNPACKQuantizer",
    "quantize",
]

_LAZY = {"quantize": "flow", "XNNPACKQuantizer": "quantizer", "QuantizationReport": "report"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
