"""The stock files that the tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

STOCK = Path(__file__).parent / "stock"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stock_file" in metafunc.fixturenames:
        files = sorted(STOCK.glob("*.pte"))
        metafunc.parametrize("stock_file", files, ids=[file.stem for file in files])
