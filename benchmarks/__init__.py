"""Measurements against the stock ``executorch`` package: latency, memory, compile time, size."""

from pathlib import Path

#: Of the repository.
ROOT = Path(__file__).resolve().parent.parent
