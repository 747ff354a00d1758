"""The operators that ExecuTorch's own runtime has kernels for.

A program whose kernel calls are all among these runs on the stock runtime. The list in
``kernel_names.txt`` is what ``Runtime.get().operator_registry.operator_names`` of
``executorch==1.5.1`` gives with its portable, optimized and quantized libraries loaded; a test
compares the two.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def stock_kernels() -> frozenset[str]:
    """Names such as ``aten::add.out``."""
    text = files("penstock.formats").joinpath("kernel_names.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
