"""Where two programs part ways: their intermediate values, layer by layer."""

from penstock.tools.compare.compare import compare
from penstock.tools.compare.report import CompareReport, Layer
from penstock.tools.compare.taps import ProgramSide, Side, Tap

__all__ = ["CompareReport", "Layer", "ProgramSide", "Side", "Tap", "compare"]
