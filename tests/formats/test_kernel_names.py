"""The names of the stock runtime's kernels are those that it registers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from penstock.formats.kernel_names import stock_kernels


@pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs the stock executorch package"
)
def test_the_list_is_the_stock_one() -> None:
    script = (
        "import executorch.kernels.quantized\n"
        "from executorch.runtime import Runtime\n"
        "print(*Runtime.get().operator_registry.operator_names, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    names = [line for line in done.stdout.split() if "::" in line]
    assert sorted(names) == sorted(stock_kernels())
