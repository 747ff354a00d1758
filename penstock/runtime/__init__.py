"""Runs programs: a ``.pte`` file and NumPy arrays in, NumPy arrays out. Knows no torch."""

from __future__ import annotations

from penstock.runtime.method import Method
from penstock.runtime.program import LoadedProgram, load
from penstock.runtime.specs import ScalarSpec, TensorSpec

__all__ = ["LoadedProgram", "Method", "ScalarSpec", "TensorSpec", "load"]
