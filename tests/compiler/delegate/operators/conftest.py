"""What the tests of programs of dynamic sizes share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of a module's tests are left for the stock runtime."""
    return tmp_path_factory.mktemp("programs")
